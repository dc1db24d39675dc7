"""What every script of a worker ends with."""

from __future__ import annotations

import asyncio
import sys
from typing import NoReturn

from dgdm.settings import Settings
from dgdm.state.checkpoint import Report
from dgdm.telemetry import configure_logging
from dgdm.worker import Worker


def serve(report: Report = lambda *_: None) -> NoReturn:
    """The worker of the environment, until it stops; ends with its exit code."""
    settings = Settings()
    configure_logging(settings.log_level, settings.log_format)
    sys.exit(asyncio.run(Worker(settings, report).run()))
