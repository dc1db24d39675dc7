"""Transactions, fencing and isolation, on both logs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from logtools import kill9, line_of, messages, read_to_end, run_python, until, values

from dgdm.log import LogError, LogUnavailableError, Message, ProducerFencedError, open_log

if TYPE_CHECKING:
    from logtools import Place


async def test_open_committed_and_aborted_under_both_isolations(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.transactional_writer(f"id-{topic}", 30))
    committed = await place.started(place.log.reader(topic, "read_committed"))
    uncommitted = await place.started(place.log.reader(topic, "read_uncommitted"))

    await writer.begin()
    assert await writer.append(topic, 0, messages("a", "b")) == 2
    assert values(await read_to_end(uncommitted)) == [b"a", b"b"]
    assert await uncommitted.end_offsets() == {0: 2}
    assert await committed.end_offsets() == {0: 0}
    assert await committed.poll(10, 0.2) == []
    await writer.commit()
    assert values(await read_to_end(committed, {0: 3})) == [b"a", b"b"]
    # The marker takes an offset: caught up is position >= end, although no record has that offset.
    assert committed.positions() == await committed.end_offsets() == {0: 3}
    assert await read_to_end(uncommitted, {0: 3}) == []
    assert uncommitted.positions() == await uncommitted.end_offsets() == {0: 3}

    await writer.begin()
    assert await writer.append(topic, 0, messages("lost")) == 4
    await writer.abort()
    assert values(await read_to_end(uncommitted, {0: 5})) == [b"lost"]
    assert await read_to_end(committed, {0: 5}) == []
    assert committed.positions() == await committed.end_offsets() == {0: 5}

    await writer.begin()
    await writer.append(topic, 0, messages("c"))
    await writer.commit()
    assert values(await read_to_end(committed, {0: 7})) == [b"c"]
    committed.seek({0: 0})
    assert values(await read_to_end(committed)) == [b"a", b"b", b"c"]
    uncommitted.seek({0: 0})
    assert values(await read_to_end(uncommitted)) == [b"a", b"b", b"lost", b"c"]


async def test_what_is_told_ahead_may_be_written_to_or_not(place: Place):
    first, second = await place.new_topic(2), await place.new_topic(1)
    writer = await place.started(place.log.transactional_writer(f"id-{first}", 30))
    reader = await place.started(place.log.reader(second, "read_uncommitted"))
    await writer.begin([(first, 1), (second, 0)])
    await writer.commit()
    marker = int(place.is_kafka)  # where a broker has heard of the transaction
    assert await read_to_end(reader, {0: marker}) == []
    assert reader.positions() == await reader.end_offsets() == {0: marker}
    await writer.begin([(first, 1), (second, 0)])
    await writer.append(first, 0, messages("a"))
    await writer.append(first, 1, messages("b"))
    await writer.commit()
    committed = await place.started(place.log.reader(first, "read_committed"))
    ends = {0: 2, 1: 2 + marker}
    assert set(values(await read_to_end(committed, ends))) == {b"a", b"b"}
    assert await read_to_end(reader, {0: 2 * marker}) == []


async def test_a_transaction_spans_topics_and_partitions(place: Place):
    first, second = await place.new_topic(2), await place.new_topic(1)
    writer = await place.started(place.log.transactional_writer(f"id-{first}", 30))
    await writer.begin()
    await writer.append(first, 0, messages("a"))
    await writer.append(first, 1, messages("b"))
    await writer.append(second, 0, messages("c"))
    await writer.commit()
    await writer.begin()
    await writer.append(second, 0, messages("d"))
    await writer.abort()
    one = await place.started(place.log.reader(first, "read_committed"))
    two = await place.started(place.log.reader(second, "read_committed"))
    assert sorted(values(await read_to_end(one, {0: 2, 1: 2}))) == [b"a", b"b"]
    assert values(await read_to_end(two, {0: 4})) == [b"c"]
    assert await one.end_offsets() == {0: 2, 1: 2}
    assert await two.end_offsets() == {0: 4}


async def test_an_open_transaction_holds_committed_readers_back_but_not_others(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.transactional_writer(f"id-{topic}", 30))
    plain = await place.started(place.log.writer())
    committed = await place.started(place.log.reader(topic, "read_committed"))
    uncommitted = await place.started(place.log.reader(topic, "read_uncommitted"))
    await plain.append(topic, 0, messages("before"))
    await writer.begin()
    await writer.append(topic, 0, messages("inside"))
    await plain.append(topic, 0, messages("after"))
    assert values(await read_to_end(committed)) == [b"before"]
    assert await committed.end_offsets() == {0: 1}
    assert values(await read_to_end(uncommitted)) == [b"before", b"inside", b"after"]
    await writer.commit()
    assert values(await read_to_end(committed, {0: 4})) == [b"inside", b"after"]


async def test_misuse_is_told_and_harmless(place: Place):
    topic = await place.new_topic()
    writer = place.log.transactional_writer(f"id-{topic}", 30)
    with pytest.raises(LogError, match="not been started"):
        await writer.begin()
    await place.started(writer)
    with pytest.raises(LogError, match="call begin first"):
        await writer.append(topic, 0, messages("a"))
    with pytest.raises(LogError, match="call begin first"):
        await writer.commit()
    await writer.begin()
    with pytest.raises(LogError, match="open already"):
        await writer.begin()
    await writer.commit()  # empty
    await writer.begin()
    await writer.abort()  # empty
    await writer.begin()
    assert await writer.append(topic, 0, messages("a")) == 1
    await writer.commit()


async def test_a_successor_fences_the_zombie_and_aborts_its_transaction(place: Place):
    topic = await place.new_topic()
    zombie = await place.started(place.log.transactional_writer(f"id-{topic}", 30))
    await zombie.begin()
    await zombie.append(topic, 0, messages("kept"))
    await zombie.commit()
    await zombie.begin()
    await zombie.append(topic, 0, messages("open"))

    successor = await place.started(place.log.transactional_writer(f"id-{topic}", 30))
    reader = await place.started(place.log.reader(topic, "read_committed"))
    everything = await place.started(place.log.reader(topic, "read_uncommitted"))
    fence = (await everything.end_offsets())[0]
    assert (await reader.end_offsets())[0] == fence  # nothing is open any more
    assert values(await read_to_end(reader)) == [b"kept"]

    with pytest.raises(ProducerFencedError):
        await zombie.append(topic, 0, messages("zombie"))
    with pytest.raises(ProducerFencedError):
        await zombie.commit()
    with pytest.raises(ProducerFencedError):
        await zombie.begin()
    await zombie.close()

    await successor.begin()
    await successor.append(topic, 0, messages("successor"))
    await successor.commit()
    assert values(await read_to_end(reader, {0: fence + 2})) == [b"successor"]
    everything.seek({0: fence})
    assert values(await read_to_end(everything, {0: fence + 2})) == [
        b"successor"
    ]  # no record of the zombie after the fence


async def test_a_zombie_cannot_commit_or_abort(place: Place):
    topic = await place.new_topic()
    for end in ("commit", "abort"):
        zombie = await place.started(place.log.transactional_writer(f"{end}-{topic}", 30))
        await zombie.begin()
        await zombie.append(topic, 0, messages(end))
        await place.started(place.log.transactional_writer(f"{end}-{topic}", 30))
        with pytest.raises(ProducerFencedError):
            await getattr(zombie, end)()
    other = await place.started(
        place.log.transactional_writer(f"other-{topic}", 30)
    )  # other ids are not touched
    await other.begin()
    await other.append(topic, 0, messages("other"))
    await place.started(place.log.transactional_writer(f"another-{topic}", 30))
    await other.commit()
    reader = await place.started(place.log.reader(topic, "read_committed"))
    assert values(await read_to_end(reader, {0: 6})) == [b"other"]


async def test_an_abandoned_transaction_times_out_and_its_writer_is_fenced(place: Place):
    topic = await place.new_topic()
    slow = await place.started(place.log.transactional_writer(f"id-{topic}", 0.5))
    plain = await place.started(place.log.writer())
    reader = await place.started(place.log.reader(topic, "read_committed"))
    await slow.begin()
    await slow.append(topic, 0, messages("abandoned"))
    await plain.append(topic, 0, messages("waiting"))
    got = await reader.poll(10, 25)  # a reader alone must get past it
    assert values(got) == [b"waiting"]
    with pytest.raises(ProducerFencedError):
        await slow.commit()
    # The same id can start again.
    again = await place.started(place.log.transactional_writer(f"id-{topic}", 30))
    await again.begin()
    await again.append(topic, 0, messages("again"))
    await again.commit()
    assert values(await read_to_end(reader, {0: 5})) == [b"again"]


async def test_close_aborts_what_is_open(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.transactional_writer(f"id-{topic}", 30))
    await writer.begin()
    await writer.append(topic, 0, messages("a"))
    await writer.close()
    reader = await place.started(place.log.reader(topic, "read_committed"))
    everything = await place.started(place.log.reader(topic, "read_uncommitted"))
    assert await read_to_end(reader, {0: 2}) == []
    assert await reader.end_offsets() == await everything.end_offsets() == {0: 2}


async def test_a_cancelled_call_leaves_a_dead_writer(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.transactional_writer(f"id-{topic}", 30))
    await writer.begin()
    await writer.append(topic, 0, messages("a"))
    appending = asyncio.create_task(writer.append(topic, 0, messages("b")))
    await asyncio.sleep(0)
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending
    with pytest.raises(LogUnavailableError, match="cancelled"):
        await writer.commit()
    await writer.close()
    await place.started(place.log.transactional_writer(f"id-{topic}", 30))
    reader = await place.started(place.log.reader(topic, "read_committed"))
    assert await read_to_end(reader) == []


WRITER = """
import asyncio, sys
from dgdm.log import open_log
from logtools import messages

async def main(url, topic, name):
    log = open_log(url)
    writer = log.transactional_writer(name, 600)
    await writer.start()
    await writer.begin()
    await writer.append(topic, 0, messages("committed"))
    await writer.commit()
    await writer.begin()
    await writer.append(topic, 0, messages(*map(str, range(1000))))
    print("open", flush=True)
    while True:
        await writer.append(topic, 0, messages("more"))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_kill_minus_9_in_mid_transaction(place: Place):
    topic = await place.new_topic()
    process = run_python(WRITER, place.url, topic, f"id-{topic}")
    try:
        assert await line_of(process) == "open"
        reader = await place.started(place.log.reader(topic, "read_committed"))
        assert values(await read_to_end(reader)) == [b"committed"]
    finally:
        kill9(process)
    assert (await reader.end_offsets())[0] == 2  # still open: nobody has come since
    successor = await place.started(place.log.transactional_writer(f"id-{topic}", 30))
    await successor.begin()
    end = await successor.append(topic, 0, messages("successor"))
    await successor.commit()
    assert values(await read_to_end(reader, {0: end + 1})) == [b"successor"]


READER = """
import asyncio, sys
from dgdm.log import open_log

async def main(url, topic):
    log = open_log(url)
    reader = log.reader(topic, "read_committed")
    await reader.start()
    print("ready", flush=True)
    seen = 0
    while seen < 300:
        for record in await reader.poll(1000, 1.0):
            assert record.value == str(seen).encode(), (record, seen)
            seen += 1
    await reader.close()
    print("seen", seen, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_two_processes_share_a_log(place: Place):
    topic = await place.new_topic()
    process = run_python(READER, place.url, topic)
    try:
        assert await line_of(process) == "ready"
        writer = await place.started(place.log.transactional_writer(f"id-{topic}", 30))
        for start in range(0, 300, 30):
            await writer.begin()
            await writer.append(topic, 0, messages(*map(str, range(start, start + 30))))
            await writer.commit()
        assert await line_of(process) == "seen 300"
    finally:
        kill9(process)


COMPACT_SOON = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.01",
    "segment.ms": "100",
    "segment.bytes": str(1 << 20),
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "500",
}


async def test_compaction_never_trusts_a_record_that_is_not_committed(place: Place):
    topic = await place.new_topic(1, COMPACT_SOON)
    plain = await place.started(place.log.writer())
    writer = await place.started(place.log.transactional_writer(f"id-{topic}", 60))
    reader = await place.started(place.log.reader(topic, "read_committed"))
    table = {b"k%d" % i: b"committed" for i in range(10)}
    await plain.append(topic, 0, [Message(key, b"older") for key in table] * 200)
    await plain.append(topic, 0, [Message(key, value) for key, value in table.items()])
    await writer.begin()
    await writer.append(topic, 0, [Message(key, b"open") for key in table] * 300)

    async def read_table() -> tuple[dict[bytes | None, bytes | None], int]:
        reader.seek({0: 0})
        got = await read_to_end(reader)
        return {r.key: r.value for r in got if r.key != b"pump"}, len(got)

    assert (await read_table())[0] == table
    await writer.abort()
    records = 0

    async def compacted() -> bool:
        nonlocal records
        await plain.append(topic, 0, [Message(b"pump", b"")] * 200)
        found, records = await read_table()
        assert found == table  # an aborted record supersedes nothing
        return records < 1500

    await until(compacted, "superseded records to go")


async def test_compaction_keeps_the_last_record_per_key(place: Place):
    topic = await place.new_topic(1, COMPACT_SOON)
    writer = await place.started(place.log.transactional_writer(f"id-{topic}", 30))
    expected: dict[bytes | None, bytes | None] = {}

    written_to = 0

    async def write(start: int, end: int, *, commit: bool) -> None:
        nonlocal written_to
        batch = [(f"k{i % 700}", None if i % 7 == 0 else f"{i}") for i in range(start, end)]
        await writer.begin()
        written_to = 1 + await writer.append(topic, 0, [_message(k, v) for k, v in batch])
        if not commit:
            await writer.abort()
            return
        await writer.commit()
        expected.update({k.encode(): None if v is None else v.encode() for k, v in batch})

    await write(0, 3000, commit=True)
    await write(5000, 6000, commit=False)
    await write(3000, 4000, commit=True)
    written = 4000
    reader = await place.started(place.log.reader(topic, "read_committed"))

    async def compacted() -> bool:
        nonlocal written
        await write(written, written + 100, commit=True)
        written += 100
        reader.seek({0: 0})
        got = await read_to_end(reader, {0: written_to})
        assert {r.key: r.value for r in got} == expected  # at every moment
        assert [r.offset for r in got] == sorted(r.offset for r in got)
        return len(got) < written - 1500

    await until(compacted, "superseded records to go")
    late = await place.started(place.log.reader(topic, "read_uncommitted"))
    assert await late.beginning_offsets() == {0: 0}  # compaction moves no start: offsets are missing inside


def _message(key: str, value: str | None) -> Message:
    return Message(key.encode(), None if value is None else value.encode())


async def test_a_second_log_object_sees_the_same_log(place: Place):
    topic = await place.new_topic()
    other = open_log(place.url)
    place.closing.push_async_callback(other.close)
    assert list(await other.describe([topic])) == [topic]
    assert not await other.create(topic, 1, {})
