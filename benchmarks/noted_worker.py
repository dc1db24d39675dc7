"""The worker, noting when it did what may hold a vector up: `python -m benchmarks.noted_worker FILE`.

A line for each: a moment of the machine's monotonic clock, before or after, and what: a step of a checkpoint, or a
collection of Python's garbage.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from pathlib import Path

from dgdm.settings import Settings
from dgdm.state.lifecycle import Step
from dgdm.telemetry import configure_logging
from dgdm.worker import Worker

HOLD_UP = {Step.BARRIER, Step.TRANSACTION, Step.GATHER, Step.STORE, Step.GROUP}


def main() -> int:
    """Its exit code."""
    settings = Settings()
    configure_logging(settings.log_level, settings.log_format)
    with Path(sys.argv[1]).open("a", buffering=1) as notes:

        def note(what: str, moment: str) -> None:
            notes.write(f"{time.monotonic():.6f} {moment} {what}\n")

        def report(step: Step, moment: str) -> None:
            if step in HOLD_UP:
                note(step.value, moment)

        gc.callbacks.append(
            lambda phase, info: note(
                f"garbage {info['generation']}", "before" if phase == "start" else "after"
            )
        )
        return int(asyncio.run(Worker(settings, report).run()))


if __name__ == "__main__":
    sys.exit(main())
