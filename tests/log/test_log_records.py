"""Records, offsets and positions, on both logs."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from logtools import messages, read_to_end, until, values

from dgdm.log import LogError, Message, OffsetOutOfRangeError, RecordRejectedError, UnknownTopicError

if TYPE_CHECKING:
    from logtools import Place

    from dgdm.log import Isolation


async def test_order_and_offsets_over_several_partitions(place: Place):
    topic = await place.new_topic(3)
    writer = await place.started(place.log.writer())
    assert await writer.partitions(topic) == 3
    assert await writer.append(topic, 0, messages("a", "b")) == 2
    assert await writer.append(topic, 2, messages("c")) == 1
    assert await writer.append(topic, 0, messages("d")) == 3
    reader = await place.started(place.log.reader(topic, "read_committed"))
    assert list(reader.partitions) == [0, 1, 2]
    assert reader.positions() == {0: 0, 1: 0, 2: 0}
    got = await read_to_end(reader)
    assert [(r.offset, r.key, r.value) for r in got if r.partition == 0] == [
        (0, b"a", b"a"),
        (1, b"b", b"b"),
        (2, b"d", b"d"),
    ]
    assert [(r.partition, r.offset, r.value) for r in got if r.partition] == [(2, 0, b"c")]
    assert reader.positions() == await reader.end_offsets() == {0: 3, 1: 0, 2: 1}
    assert await reader.beginning_offsets() == {0: 0, 1: 0, 2: 0}


async def test_the_log_sets_the_timestamp(place: Place):
    topic = await place.new_topic()
    before = time.time_ns() // 1_000_000
    writer = await place.started(place.log.writer())
    await writer.append(topic, 0, messages("a"))
    after = time.time_ns() // 1_000_000
    reader = await place.started(place.log.reader(topic, "read_uncommitted"))
    (record,) = await read_to_end(reader)
    assert before <= record.timestamp <= after


async def test_nulls_empty_bytes_and_headers_come_back_as_written(place: Place):
    topic = await place.new_topic()
    sent = [
        Message(None, b"v"),
        Message(b"k", None),
        Message(None, None),
        Message(b"", b""),
        Message(
            b"k", b"v", [("dgdm-error", b"bad"), ("", b""), ("ü", b"\x00\xff"), ("dgdm-error", b"twice")]
        ),
    ]
    writer = await place.started(place.log.writer())
    await writer.append(topic, 0, sent)
    reader = await place.started(place.log.reader(topic, "read_committed"))
    got = await read_to_end(reader)
    assert [(r.key, r.value, list(r.headers)) for r in got] == [
        (m.key, m.value, list(m.headers)) for m in sent
    ]


async def test_seek_back_and_forth_and_max_records(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.writer())
    await writer.append(topic, 0, messages(*"abcdef"))
    reader = await place.started(place.log.reader(topic, "read_committed"))
    reader.seek({0: 4})
    assert reader.positions() == {0: 4}
    assert values(await read_to_end(reader)) == [b"e", b"f"]
    reader.seek({0: 1})
    assert values(await reader.poll(2, 10)) == [b"b", b"c"]
    assert reader.positions() == {0: 3}
    assert values(await reader.poll(100, 10)) == [b"d", b"e", b"f"]
    assert await reader.poll(100, 0.05) == []
    with pytest.raises(LogError, match="no partition 7"):
        reader.seek({7: 0})


async def test_a_poll_wakes_up_for_a_record_written_meanwhile(place: Place):
    topic = await place.new_topic()
    reader = await place.started(place.log.reader(topic, "read_committed"))
    writer = await place.started(place.log.writer())
    waiting = asyncio.create_task(reader.poll(10, 25))
    await writer.append(topic, 0, messages("late"))
    assert values(await waiting) == [b"late"]


async def test_positions_outside_the_log_are_told_at_both_ends(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.writer())
    await writer.append(topic, 0, messages(*"abcdef"))
    await place.delete_records(topic, {0: 3})
    reader = await place.started(place.log.reader(topic, "read_committed"))
    assert await reader.beginning_offsets() == {0: 3}
    assert reader.positions() == {0: 3}
    for outside in (2, 7):
        reader.seek({0: outside})
        with pytest.raises(OffsetOutOfRangeError, match=f"offset {outside} "):
            await reader.poll(10, 10)
    reader.seek({0: 6})  # the end itself is inside
    assert await reader.poll(10, 0.1) == []
    reader.seek({0: 4})
    assert values(await read_to_end(reader)) == [b"e", b"f"]


async def test_unknown_topics_are_named_at_once(place: Place):
    with pytest.raises(UnknownTopicError, match="nowhere"):
        await place.log.reader("nowhere", "read_committed").start()
    writer = await place.started(place.log.writer())
    with pytest.raises(UnknownTopicError, match="nowhere"):
        await writer.append("nowhere", 0, messages("a"))
    with pytest.raises(UnknownTopicError, match="nowhere"):
        await writer.partitions("nowhere")
    topic = await place.new_topic()
    assert await writer.append(topic, 0, messages("a")) == 1  # a refusal is not a death
    with pytest.raises(LogError, match="no partition 1"):
        await writer.append(topic, 1, messages("a"))
    with pytest.raises(LogError, match="without a message"):
        await writer.append(topic, 0, [])


async def test_large_records(place: Place):
    topic = await place.new_topic(1, {"max.message.bytes": str(12 << 20)})
    big = b"x" * (10 << 20)
    writer = await place.started(place.log.writer())
    assert await writer.append(topic, 0, [Message(b"a", b"1"), Message(b"b", big), Message(b"c", b"3")]) == 3
    reader = await place.started(place.log.reader(topic, "read_committed"))
    assert values(await read_to_end(reader)) == [b"1", big, b"3"]


async def test_a_record_above_the_limit_is_refused_before_it_does_harm(place: Place):
    topic = await place.new_topic(1, {"max.message.bytes": "5000"})
    writer = await place.started(place.log.writer())
    fits = b"x" * (5000 - 61 - 9)  # a batch's header, and the fields of a record of this size
    assert await writer.append(topic, 0, [Message(b"", fits)]) == 1
    with pytest.raises(RecordRejectedError, match=r"5001 bytes .*max.message.bytes is 5000"):
        await writer.append(topic, 0, [Message(b"small", b"1"), Message(b"", fits + b"x")])
    # Nothing of the refused call was written, and the writer lives: many small ones become several batches.
    assert await writer.append(topic, 0, [Message(b"k", b"y" * 900)] * 50) == 51


async def test_a_compacted_topic_wants_keys(place: Place):
    topic = await place.new_topic(1, {"cleanup.policy": "compact"})
    writer = await place.started(place.log.writer())
    with pytest.raises(RecordRejectedError, match="without a key"):
        await writer.append(topic, 0, [Message(b"k", b"v"), Message(None, b"v")])
    assert await writer.append(topic, 0, messages("a")) == 1


async def test_a_hundred_thousand_records_in_batches(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.writer())
    reader = await place.started(place.log.reader(topic, "read_committed"))
    sent = [Message(b"%d" % (i % 1000), b"%d" % i * 10) for i in range(100_000)]
    for start in range(0, len(sent), 10_000):
        assert await writer.append(topic, 0, sent[start : start + 10_000]) == start + 10_000
    got = await read_to_end(reader)
    assert [(r.offset, r.key, r.value) for r in got] == [(i, m.key, m.value) for i, m in enumerate(sent)]


async def test_reading_while_two_writers_write(place: Place):
    topic = await place.new_topic(2)
    reader = await place.started(place.log.reader(topic, "read_committed"))

    async def write(name: str) -> None:
        writer = await place.started(place.log.writer())
        for i in range(100):
            await writer.append(topic, i % 2, messages(f"{name}{i}", f"{name}{i}'"))

    writing = asyncio.gather(write("a"), write("b"))
    got = []

    async def all_there() -> bool:
        got.extend(await reader.poll(50, 0.1))
        return len(got) >= 400

    await until(all_there, "400 records")
    await writing
    for partition in (0, 1):
        mine = [r for r in got if r.partition == partition]
        assert [r.offset for r in mine] == list(range(200))
        for name in "ab":
            expected = [f"{name}{i}{s}".encode() for i in range(partition, 100, 2) for s in ("", "'")]
            assert [r.value for r in mine if (r.value or b"").startswith(name.encode())] == expected


async def test_describe_create_and_group_offsets(place: Place):
    topic = await place.new_topic(3, {"cleanup.policy": "compact"})
    assert not await place.log.create(topic, 3, {})
    found = await place.log.describe([topic, "nowhere"])
    assert list(found) == [topic]
    assert (found[topic].name, found[topic].partitions) == (topic, 3)
    assert found[topic].config["cleanup.policy"] == "compact"
    assert found[topic].config["max.message.bytes"] == "1048588"
    assert found[topic].config["message.timestamp.type"] == "CreateTime"
    assert await place.log.describe([]) == {}
    group = f"group-of-{topic}"
    await place.log.commit_group_offsets(group, topic, {0: 5, 2: 7})
    await place.log.commit_group_offsets(group, topic, {0: 6})
    assert await place.group_offsets(group, topic) == {0: 6, 2: 7}
    with pytest.raises(LogError, match="is no topic name"):
        await place.log.create("a topic", 1, {})
    with pytest.raises(LogError, match="at least 1"):
        await place.log.create("none", 0, {})
    with pytest.raises(LogError, match=r"max\.message\.bytes"):
        await place.log.create("bad-value", 1, {"max.message.bytes": "many"})


async def test_close_is_safe_at_any_time(place: Place):
    topic = await place.new_topic()
    for client in (
        place.log.reader(topic, "read_committed"),
        place.log.writer(),
        place.log.transactional_writer("closing", 10),
    ):
        await client.close()  # never started
    reader, writer = place.log.reader(topic, "read_committed"), place.log.writer()
    failed = place.log.reader("nowhere", "read_committed")
    with pytest.raises(UnknownTopicError):
        await failed.start()
    for client in (reader, writer):
        await client.start()
    for client in (reader, writer, failed):
        await client.close()
        await client.close()
    with pytest.raises(LogError, match="closed"):
        await writer.append(topic, 0, messages("a"))
    with pytest.raises(LogError, match="closed"):
        await reader.poll(1, 0)


@pytest.mark.parametrize("isolation", ["read_committed", "read_uncommitted"])
async def test_what_a_poll_has_seen_of_the_end_costs_no_question(place: Place, isolation: Isolation):
    topic = await place.new_topic(2)
    writer = await place.started(place.log.writer())
    reader = await place.started(place.log.reader(topic, isolation))
    assert reader.known_ends() == {0: 0, 1: 0}
    await writer.append(topic, 1, messages(*"abcdefghij"))
    opened = await place.started(place.log.transactional_writer(f"id-{topic}", 30))
    await opened.begin()
    await opened.append(topic, 1, messages("open"))
    end = 10 if isolation == "read_committed" else 11

    async def saw_it() -> bool:
        await reader.poll(1, 0.1)
        return reader.known_ends() == {0: 0, 1: end}

    await until(saw_it, "the end of partition 1")
    assert await reader.end_offsets() == {0: 0, 1: end}
