"""EmbeddingStream: changes in the order of the log, from anywhere, past anything."""

from __future__ import annotations

import contextlib
import logging
import random
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import pytest
from logtools import messages
from wirerecords import gone, vector

from dgdm.consumers.embeddings import Change, Embedding, EmbeddingStream, Removed
from dgdm.log import LogError, Message, UnknownTopicError, open_log
from dgdm.schemas.embeddings import encode_embeddings

if TYPE_CHECKING:
    from pathlib import Path

    from logtools import Place


async def take(stream: EmbeddingStream, count: int) -> list[Change]:
    """The next changes, by iteration."""
    found = []
    async with contextlib.aclosing(stream.__aiter__()) as changes:  # type: ignore[type-var]
        async for change in changes:
            found.append(change)
            if len(found) == count:
                break
    return found


def plain(change: Change) -> Any:
    if isinstance(change, Removed):
        return change.id, None
    return change.id, change.vector.tolist(), change.sequence


async def test_changes_come_in_order_with_their_numbers(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.writer())
    await writer.append(topic, 0, [vector("ann", [1.0, 0.5], 3), gone("bob"), vector("ann", [0.25, 0.0], 4)])
    async with EmbeddingStream(place.log, topic, start="beginning") as stream:
        found = await take(stream, 3)
        assert [plain(c) for c in found] == [("ann", [1.0, 0.5], 3), ("bob", None), ("ann", [0.25, 0.0], 4)]
        assert isinstance(found[0], Embedding)
        assert (found[0].vector.dtype, found[0].ts) == (np.float32, 1_700_000_000_000)
        assert stream.positions() == await stream.end() == {0: 3}


async def test_now_beginning_and_given_offsets(place: Place):
    topic = await place.new_topic(2)
    writer = await place.started(place.log.writer())
    await writer.append(topic, 0, [vector("a", [1.0]), vector("b", [1.0]), vector("c", [1.0])])
    await writer.append(topic, 1, [vector("x", [1.0])])
    async with (
        EmbeddingStream(place.log, topic) as now,
        EmbeddingStream(place.log, topic, start={0: 2}) as given,
        EmbeddingStream(place.log, topic, start="beginning") as beginning,
    ):
        await writer.append(topic, 0, [vector("d", [1.0])])
        assert {c.id for c in await take(now, 1)} == {"d"}
        assert {c.id for c in await take(given, 3)} == {"c", "x", "d"}
        assert {c.id for c in await take(beginning, 5)} == {"a", "b", "c", "x", "d"}


async def test_json_records_are_read_as_well(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.writer())
    values = encode_embeddings(["ü"], np.array([[0.1, 2.0]], np.float32), 7, 5, "json")
    await writer.append(topic, 0, [Message("ü".encode(), values[0])])
    async with EmbeddingStream(place.log, topic, start="beginning") as stream:
        (change,) = await take(stream, 1)
    assert isinstance(change, Embedding)
    assert np.array_equal(change.vector, np.array([0.1, 2.0], np.float32))


async def test_bad_records_are_skipped_counted_and_logged(place: Place, caplog: pytest.LogCaptureFixture):
    topic = await place.new_topic()
    writer = await place.started(place.log.writer())
    good = vector("good", [1.0])
    other_key = Message(b"other", good.value)
    short = Message(b"s", msgpack.packb({"id": "s", "vector": b"123", "sequence": 1, "ts": 1}))
    text = Message(b"t", msgpack.packb({"id": "t", "vector": "abc", "sequence": 1, "ts": 1}))
    nan = vector("nan", [float("nan")])
    bad = [
        *messages("x", "{", ""), Message(None, None), Message(b"\xff", None), other_key, short, text, nan,
        Message(b"deep", b"\x91" * 100_000),
    ]  # fmt: skip
    await writer.append(topic, 0, [*bad, good])
    with caplog.at_level(logging.WARNING, "dgdm.consumers"):
        async with EmbeddingStream(place.log, topic, start="beginning") as stream:
            assert [c.id for c in await take(stream, 1)] == ["good"]
            assert stream.skipped == len(bad)
    assert any(record.__dict__.get("event") == "bad_embedding" for record in caplog.records)
    assert topic in caplog.text


async def test_no_bytes_crash_the_reader(tmp_path: Path, seed: int):
    rng = random.Random(seed)
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    await log.create("e", 1, {})
    writer = log.writer()
    await writer.start()
    hostile = []
    for _ in range(3_000):
        value = bytearray(vector("node", [1.0, 2.0]).value or b"")
        for _ in range(rng.randrange(1, 4)):
            value[rng.randrange(len(value))] = rng.randrange(256)
        hostile.append(Message(b"node", bytes(value)))
    await writer.append("e", 0, [*hostile, vector("last", [1.0])])
    async with EmbeddingStream(log, "e", start="beginning") as stream:
        found: list[Change] = []
        while not found or found[-1].id != "last":
            found += await stream.poll()
        assert len(found) + stream.skipped == 3_001
        assert {c.id for c in found} == {"node", "last"}
        assert all(isinstance(c, Embedding) and np.isfinite(c.vector).all() for c in found)
    await writer.close()
    await log.close()


async def test_isolation_decides_whether_open_transactions_are_seen(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.transactional_writer(f"dgdm-{topic}", 60))
    async with (
        EmbeddingStream(place.log, topic) as early,
        EmbeddingStream(place.log, topic, isolation="read_committed") as late,
    ):
        await writer.begin()
        await writer.append(topic, 0, [vector("a", [1.0])])
        assert [c.id for c in await take(early, 1)] == ["a"]
        assert await late.poll(0.05) == []
        await writer.commit()
        assert [c.id for c in await take(late, 1)] == ["a"]


async def test_a_topic_that_is_not_there(place: Place):
    with pytest.raises(UnknownTopicError, match=r"dgdm\.nowhere"):
        async with EmbeddingStream(place.url, "dgdm.nowhere"):
            pass


async def test_an_address_that_is_none():
    with pytest.raises(LogError, match="kafka://host:port"):
        EmbeddingStream("localhost:9092")


async def test_an_address_is_enough(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.writer())
    await writer.append(topic, 0, [vector("a", [1.0])])
    async with EmbeddingStream(place.url, topic, start="beginning") as stream:
        (change,) = await take(stream, 1)
        assert plain(change)[:2] == ("a", [1.0])
        assert stream.positions() == {0: 1}
