"""Events in, from both logs."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import msgpack
from logtools import until

from dgdm.consumers.events import EventSource
from dgdm.log import Message

if TYPE_CHECKING:
    from logtools import Place


def edge(source: str, target: str) -> Message:
    value = msgpack.packb({"type": "AddEdge", "source": source, "target": target})
    return Message(source.encode(), value)


async def test_records_keep_their_order_and_their_place_whatever_they_say(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.writer())
    removal = Message(b"c", b'{"type": "RemoveNode", "id": "c"}')
    sent = [edge("a", "b"), Message(b"x", b"\xc1"), removal, Message(b"y", None), edge("b", "c")]
    await writer.append(topic, 0, sent)
    source = await place.started(EventSource(place.log, topic, "read_committed"))
    batch = await source.poll(100, 10)
    assert [(record.offset, record.key, record.value) for record in batch.records] == [
        (offset, message.key, message.value) for offset, message in enumerate(sent)
    ]
    assert batch.offsets == {0: 5}
    ((offset, _, checksum),) = batch.last.values()
    assert (offset, checksum) == (4, zlib.crc32((sent[4].key or b"") + (sent[4].value or b"")))


async def test_the_last_record_counts_even_when_it_is_bad(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.writer())
    await writer.append(topic, 0, [edge("a", "b"), Message(None, None)])
    source = await place.started(EventSource(place.log, topic, "read_committed"))
    batch = await source.poll(100, 10)
    assert batch.last[0][0] == 1
    assert batch.last[0][2] == 0  # the checksum of nothing
    assert batch.last[0][1] == batch.records[1].timestamp


async def test_several_partitions_and_seek(place: Place):
    topic = await place.new_topic(3)
    writer = await place.started(place.log.writer())
    await writer.append(topic, 0, [edge("a", "b"), edge("a", "c"), edge("a", "d")])
    await writer.append(topic, 2, [edge("z", "y")])
    source = await place.started(EventSource(place.log, topic, "read_committed"))
    source.seek({0: 2})
    seen: list[bytes | None] = []
    last: dict[int, tuple[int, int, int]] = {}

    async def all_there() -> bool:
        batch = await source.poll(100, 0.1)
        seen.extend(record.value for record in batch.records)
        last.update(batch.last)
        return batch.offsets == {0: 3, 1: 0, 2: 1}

    await until(all_there, "both partitions")
    assert set(seen) == {edge("a", "d").value, edge("z", "y").value}
    assert len(seen) == 2
    assert {partition: identity[0] for partition, identity in last.items()} == {0: 2, 2: 0}


async def test_an_empty_poll_is_an_empty_batch(place: Place):
    topic = await place.new_topic()
    source = await place.started(EventSource(place.log, topic, "read_committed"))
    batch = await source.poll(100, 0.05)
    assert (list(batch.records), batch.last) == ([], {})
    assert batch.offsets == {0: 0}


async def test_lag_counts_what_is_not_read_yet(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.writer())
    await writer.append(topic, 0, [edge("a", str(i)) for i in range(10)])
    source = await place.started(EventSource(place.log, topic, "read_committed"))
    assert len((await source.poll(4, 10)).records) == 4
    assert source.lag == 6
    while (await source.poll(100, 10)).offsets != {0: 10}:
        pass
    assert source.lag == 0
