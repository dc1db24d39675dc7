"""A store that went back in time, or lost everything: between two runs, and under a live worker."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from brokers import shared_broker
from logtools import Place
from processes import WorkerProcess, make_topics, settings_of, stores
from stores import running_redis
from streams import producer, require_truth, some_events

from dgdm.producers.graph import GraphProducer
from dgdm.settings import Settings

pytestmark = pytest.mark.timeout(240)
PART = 300  # events


async def send(events: GraphProducer, part: int) -> None:
    """Acknowledged, not yet applied."""
    for event in some_events(part, PART):
        await events.send(event)
    await events.flush()


async def run(settings: Settings, folder: Path, events: GraphProducer) -> None:
    """A worker until everything sent is visible and stored."""
    with WorkerProcess(settings, folder) as worker:
        await events.visible(60)
        assert await worker.stop() == 0
    await require_truth(settings)
    await require_truth(settings, "read_uncommitted")


async def between_runs(
    settings: Settings, folder: Path, back: Callable[[], Callable[[], None]], empty: Callable[[], None]
) -> None:
    """
    run 1, copy, run 2, the copy restored, run 3: replayed from the copy
    emptied, run 4:                               rebuilt from a log that begins at 0
    emptied, the log's beginning deleted, run 5:  refused, with both offsets and the way out
    """
    await make_topics(settings)
    async with producer(settings) as events:
        await send(events, 1)
        await run(settings, folder, events)
        restore = back()
        await send(events, 2)
        await run(settings, folder, events)
        restore()
        await send(events, 3)
        await run(settings, folder, events)
        empty()
        await send(events, 4)
        await run(settings, folder, events)
    empty()
    place = Place(settings.log)
    await place.delete_records(settings.events_topic, {0: 2 * PART})
    await place.close()
    with WorkerProcess(settings, folder) as worker:
        assert await worker.ended() == 2
        (refused,) = worker.said("refused", f"begins at offset {2 * PART}, not 0")
        assert "accept_lost_history" in refused["message"]
    accepted = settings.model_copy(update={"accept_lost_history": True})
    with WorkerProcess(accepted, folder) as worker:
        assert await worker.stop() == 0
    await require_truth(settings, forward=False)  # from what is left of the log


async def test_sqlite_between_runs(tmp_path: Path) -> None:
    settings = settings_of(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store/db")
    store, copy = tmp_path / "store", tmp_path / "copy"
    store.mkdir()

    def empty() -> None:
        for file in store.iterdir():
            file.unlink()

    def back() -> Callable[[], None]:
        shutil.copytree(store, copy)

        def restore() -> None:
            empty()
            shutil.copytree(copy, store, dirs_exist_ok=True)

        return restore

    await between_runs(settings, tmp_path, back, empty)


@pytest.mark.integration
async def test_redis_between_runs_and_under_a_live_worker(tmp_path: Path) -> None:
    with running_redis() as redis:

        def back() -> Callable[[], None]:
            copy = redis.backup()

            def restore() -> None:
                redis.kill()
                redis.restore(copy)
                redis.start()

            return restore

        def empty() -> None:
            redis.command("FLUSHALL")

        settings = settings_of(shared_broker().url, redis.tcp_url)
        await between_runs(settings, tmp_path, back, empty)

        settings = settings_of(shared_broker().url, redis.tcp_url)
        await make_topics(settings)
        async with producer(settings) as events:
            await send(events, 1)
            await run(settings, tmp_path, events)
            before_this_worker = back()
            with WorkerProcess(settings, tmp_path) as worker:
                await send(events, 2)
                await stores(settings, 2 * PART)
                restore = back()
                await send(events, 3)
                await stores(settings, 3 * PART)
                restore()
                await send(events, 4)
                await worker.says("store_went_back")
                await stores(settings, 4 * PART)
                empty()
                await send(events, 5)
                await worker.says("store_went_back", times=2)
                await stores(settings, 5 * PART)
                # Further back than its own token: that cannot be told from a successor.
                before_this_worker()
                await send(events, 6)
                assert await worker.ended() == 3
                assert worker.said("fenced")
            await run(settings, tmp_path, events)
