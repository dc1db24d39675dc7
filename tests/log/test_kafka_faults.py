"""Kafka only: a broker that dies, freezes or forgets; a file does none of this (its faults: test_sqlite_file)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.admin import NewTopic
from brokers import Broker, own_broker
from logtools import Place, admin, messages, read_to_end, until, values

from dgdm.log import (
    LogError,
    LogUnavailableError,
    OffsetOutOfRangeError,
    UnknownTopicError,
    open_log,
)
from dgdm.log.kafka import KafkaLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from dgdm.log.interface import Log


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """Killed and frozen by these tests, alive again after each."""
    with own_broker() as broker:
        yield broker


@pytest.fixture
async def impatient(broker: Broker) -> AsyncIterator[Place]:
    """A log with short time-outs."""
    place = Place(broker.url)
    place.log = KafkaLog(broker.bootstrap, request_timeout=2.0, delivery_timeout=3.0, silence=2.0)
    try:
        yield place
    finally:
        await place.close()


def mine() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


async def in_thread(call: Any) -> None:
    await asyncio.to_thread(call)


async def test_a_broker_killed_and_restarted_under_live_clients(broker: Broker):
    place = Place(broker.url)
    topic = await place.new_topic()
    reader = await place.started(place.log.reader(topic, "read_committed"))
    writer = await place.started(place.log.writer())
    await writer.append(topic, 0, messages("before"))
    got = values(await read_to_end(reader))
    await in_thread(broker.kill9)
    appending = asyncio.create_task(writer.append(topic, 0, messages("during")))
    assert await reader.poll(10, 0.5) == []
    await in_thread(broker.start)
    assert await appending == 2  # patient: retried until the broker was back
    await writer.append(topic, 0, messages("after"))

    async def all_there() -> bool:
        try:
            got.extend(values(await reader.poll(10, 0.5)))
        except LogUnavailableError:
            return False
        return len(got) >= 3

    await until(all_there, "the reader to resume")
    assert got == [b"before", b"during", b"after"]
    await place.close()


async def test_a_broker_that_stays_away_is_unavailable_and_close_does_not_hang(
    broker: Broker, impatient: Place
):
    topic = await impatient.new_topic()
    before = mine()
    reader, writer = impatient.log.reader(topic, "read_committed"), impatient.log.writer()
    transactional = impatient.log.transactional_writer(f"id-{topic}", 60)
    for client in (reader, writer, transactional):
        await client.start()
    await transactional.begin()
    await transactional.append(topic, 0, messages("open"))
    await in_thread(broker.kill9)
    try:
        results = await asyncio.gather(
            writer.append(topic, 0, messages("lost?")), transactional.commit(), return_exceptions=True
        )
        assert [type(result) for result in results] == [LogUnavailableError] * 2

        async def silence() -> bool:
            try:
                await reader.poll(10, 0.2)
            except LogUnavailableError:
                return True
            return False

        await until(silence, "the reader to say that nobody answers")
        with pytest.raises(LogUnavailableError):
            await reader.end_offsets()
        for dead in (writer, transactional):
            with pytest.raises(LogUnavailableError):
                await dead.append(topic, 0, messages("never"))
        with pytest.raises(LogUnavailableError):
            await impatient.log.describe([topic])
        with pytest.raises(LogUnavailableError, match="no Kafka broker"):
            await open_log(broker.url).writer().start()
        start = time.monotonic()
        for client in (reader, writer, transactional):
            await client.close()
        assert time.monotonic() - start < 30  # a bound, not a measurement
        assert mine() - before == set()
    finally:
        await in_thread(broker.start)
    successor = await impatient.started(impatient.log.transactional_writer(f"id-{topic}", 60))
    await successor.begin()
    end = await successor.append(topic, 0, messages("successor"))
    await successor.commit()
    again = await impatient.started(impatient.log.reader(topic, "read_committed"))
    kept = values(await read_to_end(again, {0: end + 1}))
    assert kept[-1] == b"successor"
    assert set(kept) <= {b"open", b"lost?", b"successor"}


async def test_a_frozen_broker(broker: Broker, impatient: Place):
    topic = await impatient.new_topic()
    before = mine()
    reader, writer = (
        impatient.log.reader(topic, "read_committed"),
        impatient.log.transactional_writer("frozen", 60),
    )
    for client in (reader, writer):
        await client.start()
    await writer.begin()
    await writer.append(topic, 0, messages("open"))
    await in_thread(broker.pause)
    try:
        with pytest.raises(LogUnavailableError):
            await writer.append(topic, 0, messages("x" * 900_000))
        with pytest.raises(LogUnavailableError):
            await impatient.log.writer().start()
        for client in (reader, writer):
            await client.close()
        assert mine() - before == set()
    finally:
        await in_thread(broker.resume)


async def test_a_topic_created_again_under_live_clients(broker: Broker, impatient: Place):
    topic = await impatient.new_topic()
    reader = await impatient.started(impatient.log.reader(topic, "read_committed"))
    writer = await impatient.started(impatient.log.writer())
    await writer.append(topic, 0, messages(*"abcdef"))
    await read_to_end(reader)
    async with admin(broker.url) as client:
        await client.delete_topics([topic])

        async def gone() -> bool:
            return not await impatient.log.describe([topic])

        await until(gone, "the topic to be deleted")

        async def told() -> bool:
            try:
                await reader.poll(10, 0.2)
            except UnknownTopicError:
                return True
            return False

        await until(told, "the reader to hear of the deletion")
        await client.create_topics([NewTopic(topic, 1, 1)])
    await until(lambda: impatient.log.describe([topic]), "the topic to be there again")

    async def out_of_range() -> bool:
        try:
            await reader.poll(10, 0.2)
        except OffsetOutOfRangeError:
            return True
        except LogError:
            return False
        return False

    await until(out_of_range, "the reader to see that its position is beyond the new end")
    fresh = await impatient.started(impatient.log.writer())
    assert await fresh.append(topic, 0, messages("new")) == 1
    reader.seek(await reader.beginning_offsets())
    assert values(await read_to_end(reader)) == [b"new"]


async def test_a_transaction_time_out_that_the_broker_does_not_allow(impatient: Place):
    with pytest.raises(LogError, match=r"transaction\.max\.timeout\.ms"):
        await impatient.log.transactional_writer("long", 24 * 3600).start()


async def test_nobody_at_the_address():
    log = open_log("kafka://127.0.0.1:1,localhost:2")
    for start in (log.reader("t", "read_committed").start, log.writer().start, lambda: log.describe(["t"])):
        with pytest.raises(LogUnavailableError, match=r"127\.0\.0\.1:1.*Connection refused.*localhost:2"):
            await start()
    await log.close()


async def test_nothing_is_fetched_before_the_first_poll(impatient: Place):
    """At the end of a topic the broker holds a fetch back for half a second, and every question after it."""
    topic = await impatient.new_topic()
    writer = await impatient.started(impatient.log.writer())
    await writer.append(topic, 0, messages("a"))
    reader = await impatient.started(impatient.log.reader(topic, "read_committed"))
    for _ in range(3):
        assert await reader.end_offsets() == {0: 1}
    assert reader.known_ends() == {0: 0}, "no fetch has told the end"
    assert values(await reader.poll(10, 10)) == [b"a"]
    assert reader.known_ends() == {0: 1}


def ways_in(log: Log, topic: str) -> dict[str, tuple[Any, Any]]:
    """What connects, by name, and how."""
    reader, writer = log.reader(topic, "read_committed"), log.writer()
    transactional = log.transactional_writer(topic, 60)
    clients = {"reader": reader, "writer": writer, "transactional": transactional}
    admin_way = (log, lambda: log.describe([topic]))
    return {"admin": admin_way, **{name: (client, client.start) for name, client in clients.items()}}


@pytest.mark.parametrize("kind", ["reader", "writer", "transactional", "admin"])
async def test_a_start_that_is_cancelled_leaves_no_connection(impatient: Place, kind: str):
    topic = await impatient.new_topic()
    before = mine()
    for turns in range(40):
        log = open_log(impatient.url)
        client, start = ways_in(log, topic)[kind]
        starting = asyncio.create_task(start())
        for _ in range(turns):
            await asyncio.sleep(0.0002)
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        await client.close()
        await log.close()
    assert mine() - before == set()
    with warnings.catch_warnings(record=True) as lost:
        warnings.simplefilter("always")
        gc.collect()
    assert [str(one.message) for one in lost] == []


async def test_start_and_stop_leave_no_tasks(impatient: Place):
    topic = await impatient.new_topic()
    before = mine()
    for client in (impatient.log.reader(topic, "read_committed"), impatient.log.writer()):
        await client.start()
        await client.close()
    assert mine() - before == set()
