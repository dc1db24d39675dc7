"""A worker that writes down its steps, so that a SIGKILL can be said where it struck: `traced_worker.py FILE`."""

from __future__ import annotations

import asyncio
import os
import sys

from dgdm.settings import Settings
from dgdm.state.lifecycle import Step
from dgdm.telemetry import configure_logging
from dgdm.worker import Worker

file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def report(step: Step, moment: str) -> None:
    os.write(file, f"{moment} {step}\n".encode())


async def main() -> int:
    settings = Settings()
    configure_logging(settings.log_level, settings.log_format)
    return int(await Worker(settings, report).run())


sys.exit(asyncio.run(main()))
