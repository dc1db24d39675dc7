"""When nothing more comes, nothing is left open: what was said last is committed too."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from processes import WorkerProcess, make_topics, until
from streams import producer

from dgdm.connections import connect_log
from dgdm.consumers.progress import read_progress
from dgdm.settings import Settings

SLOW = str(Path(__file__).with_name("slow_progress_worker.py"))
BRIEF = str(Path(__file__).with_name("brief_transactions_worker.py"))
ABORTS_EVERY = 10  # seconds: transaction.abort.timed.out.transaction.cleanup.interval.ms


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


async def test_the_last_portion_of_a_ripple_is_spoken_of(settings: Settings, tmp_path: Path) -> None:
    """A progress record of the first portions is on its way while the last one is published; then nothing comes."""
    portions = {"publish_limit": 5, "max_staleness": 0.02, "progress_interval": 0.0}
    given = settings.model_copy(update=portions)
    await make_topics(given)
    log = connect_log(given)
    try:
        async with producer(given) as events:
            with WorkerProcess(given, tmp_path, [SLOW, "0.5"]) as worker:
                for number in range(40):
                    await events.add_edge("hub", str(number))
                await events.visible(60)
                await events.set_features("hub", [100, 0, 0, 0])
                await events.visible(60)

                async def held() -> bool:
                    last = await read_progress(log, given.progress_topic, given.graph)
                    return last is not None and max(last.bound) <= given.accuracy[0]

                await until(held, "a progress record of the whole ripple", 10)
                assert await worker.stop() == 0
    finally:
        await log.close()


@pytest.mark.parametrize(
    "settings", [pytest.param("kafka-redis", marks=pytest.mark.integration)], indirect=True
)
async def test_no_transaction_that_was_begun_ahead_stays_open(settings: Settings, tmp_path: Path) -> None:
    """The broker would end it after its time, and fence the worker."""
    await make_topics(settings)
    quick = settings.model_copy(update={"checkpoint_interval": 0.2, "progress_interval": 0.1})
    async with producer(settings) as events:
        with WorkerProcess(quick, tmp_path, [BRIEF, "2"]) as worker:
            await events.set_features("a", [1, 0, 0, 0])
            await events.visible(60)
            await asyncio.sleep(2 + ABORTS_EVERY + 1)
            for number in range(2, 5):  # with the writers in turn
                await events.set_features("a", [number, 0, 0, 0])
                await events.visible(20)
                await asyncio.sleep(0.5)
            assert not worker.said("recovering")
            assert await worker.stop() == 0
