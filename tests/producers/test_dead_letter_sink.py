"""Dead letters: nothing bad vanishes, and nothing bad stops the stream."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from logtools import read_to_end

from dgdm.log import LogUnavailableError, Message, Record, UnknownTopicError, open_log
from dgdm.producers.dead_letters import BUFFERED, LONGEST, DeadLetterSink
from dgdm.schemas.reasons import InvalidEvent, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from logtools import Place

ERROR = InvalidEvent(
    Reason.BAD_WEIGHT, "the weight 0 is not above 0 in float32; remove an edge by RemoveEdge"
)


async def sink_of(place: Place, topic: str) -> DeadLetterSink:
    sink = DeadLetterSink(await place.started(place.log.writer()), topic)
    await sink.start()
    return sink


async def letters(place: Place, topic: str) -> list[Record]:
    return await read_to_end(await place.started(place.log.reader(topic, "read_committed")))


def record(
    key: bytes | None = b"k",
    value: bytes | None = b"v",
    headers: Sequence[tuple[str, bytes]] = (),
    offset: int = 41,
) -> Record:
    return Record(3, offset, 1_700_000_000_000, key, value, headers)


async def test_a_letter_is_the_record_and_what_was_wrong(place: Place):
    topic = await place.new_topic()
    sink = await sink_of(place, topic)
    await sink.put("dgdm.events", [(record(headers=[("trace", b"\x00\xff"), ("trace", b"2")]), ERROR)])
    assert await letters(place, topic) == []
    await sink.flush()
    (letter,) = await letters(place, topic)
    assert (letter.key, letter.value) == (b"k", b"v")
    assert list(letter.headers[:2]) == [("trace", b"\x00\xff"), ("trace", b"2")]
    assert dict(letter.headers[2:]) == {
        "dgdm-error": b"bad-weight",
        "dgdm-message": str(ERROR).encode(),
        "dgdm-topic": b"dgdm.events",
        "dgdm-partition": b"3",
        "dgdm-offset": b"41",
    }
    await sink.flush()
    assert len(await letters(place, topic)) == 1


async def test_null_key_and_null_value_stay_null(place: Place):
    topic = await place.new_topic()
    sink = await sink_of(place, topic)
    await sink.put("e", [(record(key=None, value=None), ERROR)])
    await sink.put("e", [(record(key=b"", value=b""), ERROR)])
    await sink.flush()
    assert [(r.key, r.value) for r in await letters(place, topic)] == [(None, None), (b"", b"")]
    assert not any(name == "dgdm-truncated" for r in await letters(place, topic) for name, _ in r.headers)


async def test_headers_that_pretend_to_be_ours_are_replaced(place: Place):
    topic = await place.new_topic()
    sink = await sink_of(place, topic)
    old = [("dgdm-error", b"null-value"), ("dgdm-offset", b"7"), ("dgdm-truncated", b"1"), ("mine", b"x")]
    await sink.put("e", [(record(headers=old), ERROR)])
    await sink.flush()
    (letter,) = await letters(place, topic)
    names = [name for name, _ in letter.headers]
    assert len(names) == len(set(names)) == 6
    assert dict(letter.headers)["dgdm-error"] == b"bad-weight"
    assert dict(letter.headers)["dgdm-offset"] == b"41"


async def test_what_is_too_large_is_cut_and_says_so(place: Place):
    topic = await place.new_topic()
    sink = await sink_of(place, topic)
    huge = record(b"k" * 1_000_000, b"v" * 10_000_000, [("a", b"1"), ("h", b"x" * 900_000), ("z", b"2")])
    many = record(headers=[(f"h{i}", b"") for i in range(100_000)])
    for bad in (huge, many):
        await sink.put("e", [(bad, ERROR)])
    await sink.flush()
    first, second = await letters(place, topic)
    assert first.key == b"k" * (LONGEST // 4)
    assert first.value == b"v" * LONGEST
    assert dict(first.headers)["dgdm-truncated"] == b"10000000"
    assert first.headers[0] == ("a", b"1")
    assert first.headers[1][0] == "h"
    assert (second.key, second.value) == (b"k", b"v")
    assert dict(second.headers)["dgdm-truncated"] == b"1"
    for letter in (first, second):
        assert dict(letter.headers)["dgdm-error"] == b"bad-weight"
        assert dict(letter.headers)["dgdm-offset"] == b"41"


async def test_a_topic_that_takes_little_gets_little(place: Place):
    topic = await place.new_topic(1, {"max.message.bytes": "3000"})
    sink = await sink_of(place, topic)
    bad = [record(b"k" * 5_000, b"v" * size, [("h", b"x" * 5_000)], size) for size in (10, 2_900, 400_000)]
    for one in bad:
        await sink.put("e", [(one, ERROR)])
    await sink.flush()
    found = await letters(place, topic)
    assert [dict(r.headers)["dgdm-offset"] for r in found] == [b"10", b"2900", b"400000"]
    assert [dict(r.headers)["dgdm-truncated"] for r in found] == [b"10", b"2900", b"400000"]
    assert [dict(r.headers)["dgdm-error"] for r in found] == [b"bad-weight"] * 3
    assert found[0].value == b"v" * 10
    await sink.put("e", [(record(), ERROR)])
    await sink.flush()
    assert (await letters(place, topic))[-1].value == b"v"


async def test_a_compacted_topic_stops_nothing_either(place: Place):
    topic = await place.new_topic(1, {"cleanup.policy": "compact"})
    sink = await sink_of(place, topic)
    await sink.put("e", [(record(key=None), ERROR)])
    await sink.flush()
    assert [r.key for r in await letters(place, topic)] == [b""]


async def test_no_record_makes_it_raise(tmp_path: Path, seed: int):
    rng = random.Random(seed)

    def noise() -> bytes | None:
        size = rng.choice([0, 1, 100, 70_000, 300_000])
        return rng.choice([None, rng.randbytes(size)])

    log = open_log(f"sqlite:///{tmp_path}/log.db")
    await log.create("d", 1, {"max.message.bytes": "20000"})
    writer = log.writer()
    await writer.start()
    sink = DeadLetterSink(writer, "d")
    for offset in range(200):
        names = ["", "ü", "dgdm-error", "\x00", "n" * 5_000, "x"]
        headers: list[Any] = [(rng.choice(names), noise()) for _ in range(rng.randrange(5))]
        await sink.put("e", [(Record(0, offset, 0, noise(), noise(), headers), ERROR)])
    await sink.flush()
    reader = log.reader("d", "read_committed")
    await reader.start()
    found = await read_to_end(reader)
    assert [int(dict(r.headers)["dgdm-offset"]) for r in found] == list(range(200))
    await reader.close()
    await writer.close()
    await log.close()


async def test_a_full_buffer_is_flushed_at_once(place: Place):
    topic = await place.new_topic()
    sink = await sink_of(place, topic)
    for offset in range(BUFFERED):
        await sink.put("e", [(record(offset=offset), ERROR)])
    assert len(await letters(place, topic)) == BUFFERED
    for offset in range(40):
        await sink.put("e", [(record(value=b"v" * LONGEST, offset=offset), ERROR)])
    assert len(await letters(place, topic)) > BUFFERED


async def test_what_was_not_acknowledged_is_kept_for_the_next_flush(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.writer())
    truth, faults = writer.append, [LogUnavailableError("no answer")]

    async def flaky(topic: str, partition: int, messages: Sequence[Message]) -> int:
        if faults:
            raise faults.pop()
        return await truth(topic, partition, messages)

    writer.append = flaky  # type: ignore[method-assign]
    sink = DeadLetterSink(writer, topic)
    await sink.put("e", [(record(), ERROR)])
    with pytest.raises(LogUnavailableError):
        await sink.flush()
    await sink.flush()
    assert [r.value for r in await letters(place, topic)] == [b"v"]


async def test_a_topic_that_is_not_there(place: Place):
    with pytest.raises(UnknownTopicError, match=r"dgdm\.nowhere"):
        await sink_of(place, "dgdm.nowhere")
