"""Servers that go away under load and come back: the stream goes on, or waits, and in the end is what it would be."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from brokers import Broker, own_broker, shared_broker
from processes import WorkerProcess, make_topics, read_all, settings_of, stored_meta, until
from stores import RedisProcess, running_redis
from streams import require_truth, some_events

from dgdm.log.interface import Message
from dgdm.log.kafka import KafkaLog
from dgdm.producers.graph import GraphProducer
from dgdm.settings import Settings

LOADED_ONCE = [str(Path(__file__).with_name("crashing_worker.py")), "load", "before", "2"]
AWAY = 20  # seconds
pytestmark = [pytest.mark.timeout(280), pytest.mark.integration]


@contextlib.asynccontextmanager
async def patient_producer(settings: Settings) -> AsyncIterator[GraphProducer]:
    """One that outlasts the outage by far."""
    log = KafkaLog(settings.log.removeprefix("kafka://"), delivery_timeout=200)
    names = {"progress_topic": settings.progress_topic, "graph": settings.graph}
    try:
        async with GraphProducer(log, settings.events_topic, **names) as events:
            yield events
    finally:
        await log.close()


@contextlib.asynccontextmanager
async def load(events: GraphProducer, settings: Settings) -> AsyncIterator[list[int]]:
    """Events all the time, every hundredth of them bad; at the end their offsets, when all are visible."""
    stop = asyncio.Event()
    bad: list[int] = []

    async def send() -> None:
        for part in itertools.count():
            for event in some_events(part, 99):
                await events.send(event)
            await events._outbox.put(Message(b"bad", b"\xff"))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.05)
            if stop.is_set():
                return

    sending = asyncio.create_task(send())
    yield bad
    stop.set()
    await sending
    await events.visible(90)
    bad += [r.offset for r in await read_all(settings, settings.events_topic) if r.value == b"\xff"]


async def require_all(settings: Settings, bad: list[int]) -> None:
    """The oracle's verdict under both isolations, and each bad event among the dead letters."""
    await require_truth(settings)
    await require_truth(settings, "read_uncommitted")
    letters = await read_all(settings, settings.dead_letters_topic)
    assert {int(dict(letter.headers)["dgdm-offset"]) for letter in letters} == set(bad)
    assert bad


async def published(settings: Settings) -> int:
    """Records consumers may read as committed."""
    return len(await read_all(settings, settings.embeddings_topic))


async def goes_on(settings: Settings) -> None:
    """Vectors are published and committed now."""
    before = await published(settings)

    async def more() -> bool:
        return await published(settings) > before

    await until(more, "more committed vectors")


async def a_redis_that_goes_away(folder: Path, broker: Broker, redis: RedisProcess) -> None:
    """
    below the limit: frozen 5 s, then killed for 20 s; the stream goes on, transactions are committed
    above the limit: killed; PAUSED until it is back, then SERVING
    """
    settings = settings_of(broker.url, redis.tcp_url)
    await make_topics(settings)
    async with patient_producer(settings) as events:
        with WorkerProcess(settings, folder) as worker:
            await worker.serves()
            async with load(events, settings) as bad:
                await stores_on(settings)
                redis.freeze()
                await asyncio.sleep(5)
                await goes_on(settings)
                redis.thaw()
                await stores_on(settings)
                redis.kill()
                await asyncio.sleep(AWAY)
                await goes_on(settings)
                assert not worker.said("state", "now paused")
                redis.start()
                await stores_on(settings)
            assert await worker.stop() == 0
        await require_all(settings, bad)
        few = settings.model_copy(update={"dirty_rows": 40})
        with WorkerProcess(few, folder) as worker:
            await worker.serves()
            async with load(events, few) as bad:
                redis.kill()
                await worker.says("state", "now paused")
                redis.start()
                await worker.says("state", "now serving", 2)
            assert await worker.stop() == 0
    await require_all(settings, bad)


async def stores_on(settings: Settings) -> None:
    """Checkpoints are written now."""
    before = await stored_meta(settings)

    async def more() -> bool:
        now = await stored_meta(settings)
        return now is not None and (before is None or now.event_sequence > before.event_sequence)

    await until(more, "more events in the store")


async def a_broker_that_goes_away(folder: Path, broker: Broker, redis: RedisProcess, *, kill: bool) -> None:
    """
    idle:       the reader notices first; PAUSED until it is back, then SERVING
    under load: the writers persist; what they give up is sent again

    Nothing is loaded from the store again.
    """
    settings = settings_of(broker.url, redis.tcp_url)
    go, come = (broker.kill9, broker.start) if kill else (broker.pause, broker.resume)
    await make_topics(settings)
    with WorkerProcess(settings, folder, LOADED_ONCE) as worker:
        await worker.serves()
        await until(lambda: stored_meta(settings), "the first checkpoint, after which nothing is under way")
        await asyncio.to_thread(go)
        await worker.says("state", "now paused")
        await asyncio.to_thread(come)
        await worker.says("state", "now serving", 2)
        assert worker.said("recovering", "goes on with the graph in memory")
        async with patient_producer(settings) as events:
            async with load(events, settings) as bad:
                await goes_on(settings)
                await asyncio.to_thread(go)
                await asyncio.sleep(AWAY)
                await asyncio.to_thread(come)
                await goes_on(settings)
            assert await worker.stop() == 0
    await require_all(settings, bad)


async def test_twenty_seconds_without_one_of_the_servers(tmp_path: Path) -> None:
    """At the same time, because each mostly waits."""
    folders = [tmp_path / name for name in ("redis", "killed", "frozen")]
    for folder in folders:
        folder.mkdir()
    steady = shared_broker()  # started here: starting blocks the loop for seconds
    with running_redis() as moody, running_redis() as redis, own_broker() as one, own_broker() as two:
        async with asyncio.TaskGroup() as group:
            group.create_task(a_redis_that_goes_away(folders[0], steady, moody))
            group.create_task(a_broker_that_goes_away(folders[1], one, redis, kill=True))
            group.create_task(a_broker_that_goes_away(folders[2], two, redis, kill=False))
