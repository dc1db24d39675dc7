"""A worker that dies by SIGKILL at one step: `crashing_worker.py STEP MOMENT COUNT`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from dgdm.settings import Settings
from dgdm.state.lifecycle import Step
from dgdm.telemetry import configure_logging
from dgdm.worker import Worker

step, moment, left = Step(sys.argv[1]), sys.argv[2], int(sys.argv[3])


def report(reached: Step, when: str) -> None:
    """Die at the given occurrence."""
    global left  # noqa: PLW0603 - one process, one death
    if reached is step and when == moment:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def main() -> int:
    settings = Settings()
    configure_logging(settings.log_level, settings.log_format)
    return int(await Worker(settings, report).run())


sys.exit(asyncio.run(main()))
