"""When nothing more comes, nothing is left open: what was said last is committed too."""

from __future__ import annotations

import asyncio
from pathlib import Path

from processes import WorkerProcess, make_topics, until
from streams import producer

from dgdm.connections import connect_log
from dgdm.consumers.progress import read_progress
from dgdm.settings import Settings


async def test_the_last_progress_record_is_committed(settings: Settings, tmp_path: Path) -> None:
    """Checkpoints fall between a publication and the progress record that waits for its interval."""
    await make_topics(settings)
    quick = settings.model_copy(update={"checkpoint_interval": 0.05, "progress_interval": 0.1})
    log = connect_log(settings)
    try:
        async with producer(settings) as events:
            with WorkerProcess(quick, tmp_path) as worker:
                await worker.serves()
                for number in range(1, 6):
                    await events.set_features("a", [number, 0, 0, 0])
                    await asyncio.sleep(0.02 * number)
                    await events.set_features("a", [number, 1, 0, 0])
                    await events.visible(60)

                    async def committed(sequence: int = 2 * number) -> bool:
                        last = await read_progress(
                            log, settings.progress_topic, settings.graph, "read_committed"
                        )
                        return last is not None and last.sequence == sequence

                    await until(committed, "the last progress record is committed", 10)
                assert await worker.stop() == 0
    finally:
        await log.close()
