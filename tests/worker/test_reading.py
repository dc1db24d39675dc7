"""The next batch: complete as of the moment it is taken, when it is small."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from processes import make_topics
from streams import producer

from dgdm.connections import connect_log
from dgdm.consumers.events import EventSource
from dgdm.producers.graph import GraphProducer
from dgdm.reading import FEW, Reading
from dgdm.settings import Settings

A_MOMENT = 0.5  # seconds: what a broker needs to hand a record over


class Ends(NamedTuple):
    """Of one events topic."""

    events: GraphProducer
    source: EventSource


@contextlib.asynccontextmanager
async def ends(settings: Settings) -> AsyncIterator[Ends]:
    await make_topics(settings)
    log = connect_log(settings)
    source = EventSource(log, settings.events_topic, "read_committed")
    await source.start()
    try:
        async with producer(settings) as events:
            yield Ends(events, source)
    finally:
        await source.close()
        await log.close()


async def send(events: GraphProducer, names: range) -> None:
    """One event for each."""
    await asyncio.gather(*(events.add_node(str(name)) for name in names))
    await events.flush()


class Counting:
    """An encoder that says how much it was given."""

    def encode(self, values: list[bytes | None]) -> int:
        """In place of columns."""
        return len(values)


async def test_what_has_come_since_is_added_to_a_batch_of_few(settings: Settings) -> None:
    async with ends(settings) as (events, source):
        await send(events, range(3))
        source.seek({0: 0})
        reading = Reading(source, 1000, None)
        await reading.task
        await send(events, range(3, 5))
        await asyncio.sleep(A_MOMENT)
        read = await reading.take()
        assert [record.offset for record in read.batch.records] == [0, 1, 2, 3, 4]
        assert read.values == [record.value for record in read.batch.records]
        assert read.batch.offsets == {0: 5}
        assert read.batch.last[0] == (
            4,
            read.batch.records[-1].timestamp,
            source.checksum(read.batch.records[-1]),
        )
        await send(events, range(5, 6))
        assert [record.offset for record in (await reading.task).batch.records] == [5]
        await reading.stop()


async def test_a_batch_is_left_as_it_is_when_it_is_large_or_encoded(settings: Settings) -> None:
    async with ends(settings) as (events, source):
        encoding: Any = Counting()
        for reading, first in ((Reading(source, FEW, None), FEW), (Reading(source, 3, encoding), 3)):
            await send(events, range(2 * FEW))
            source.seek({0: 0})
            read = await reading.task
            await asyncio.sleep(A_MOMENT)
            assert await reading.take() is read
            assert len(read.values) == first
            assert read.encoded == (None if first == FEW else first)
            await reading.stop()
