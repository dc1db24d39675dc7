"""A worker whose progress records take their time: `slow_progress_worker.py SECONDS`."""

from __future__ import annotations

import asyncio
import sys

from scripted import serve

from dgdm.producers.embeddings import EmbeddingSink
from dgdm.schemas.progress import Progress

publish = EmbeddingSink.publish_progress


async def slowly(sink: EmbeddingSink, progress: Progress) -> None:
    await asyncio.sleep(float(sys.argv[1]))
    await publish(sink, progress)


EmbeddingSink.publish_progress = slowly  # type: ignore[method-assign]
serve()
