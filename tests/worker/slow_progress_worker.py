"""A worker whose progress records take their time: `slow_progress_worker.py SECONDS`."""

from __future__ import annotations

import asyncio
import sys

from dgdm.producers.embeddings import EmbeddingSink
from dgdm.schemas.progress import Progress
from dgdm.settings import Settings
from dgdm.telemetry import configure_logging
from dgdm.worker import Worker

publish = EmbeddingSink.publish_progress


async def slowly(sink: EmbeddingSink, progress: Progress) -> None:
    await asyncio.sleep(float(sys.argv[1]))
    await publish(sink, progress)


async def main() -> int:
    settings = Settings()
    configure_logging(settings.log_level, settings.log_format)
    return int(await Worker(settings).run())


EmbeddingSink.publish_progress = slowly  # type: ignore[method-assign]
sys.exit(asyncio.run(main()))
