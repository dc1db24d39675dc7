"""Vectors, tombstones and progress out, inside the transactions of one fenced writer."""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import pytest
from logtools import read_to_end

from dgdm.log import LogError, UnknownTopicError
from dgdm.producers.embeddings import EmbeddingSink, check_limits
from dgdm.schemas.progress import Progress

if TYPE_CHECKING:
    from logtools import Place

    from dgdm.log import TransactionalWriter

PROGRESS = Progress("g", 5, {0: 7}, {0: 3}, [0.01], [0.01], 2, 1, 1_700_000_000_000)


async def sink_of(
    place: Place, topic: str, progress: str, encoding: Any = "msgpack"
) -> tuple[EmbeddingSink, TransactionalWriter]:
    writer = await place.started(place.log.transactional_writer(f"dgdm-{topic}", 60))
    sink = EmbeddingSink([writer], topic, progress, encoding)
    await sink.start()
    return sink, writer


async def records(place: Place, topic: str, isolation: Any = "read_uncommitted") -> list[Any]:
    return await read_to_end(await place.started(place.log.reader(topic, isolation)))


async def test_each_key_goes_to_the_partition_its_checksum_names(place: Place):
    topic, told = await place.new_topic(4), await place.new_topic()
    sink, _ = await sink_of(place, topic, told)
    ids = [f"node-{i}" for i in range(50)] + ["ü", "01", " 1"]
    vectors = np.arange(2 * len(ids), dtype=np.float32).reshape(-1, 2)
    await sink.publish(ids, vectors, ["gone"], 9)
    found = {record.key.decode(): record for record in await records(place, topic)}
    assert set(found) == {*ids, "gone"}
    assert found["gone"].value is None
    for node, numbers in zip(ids, vectors, strict=True):
        assert found[node].partition == zlib.crc32(node.encode()) % 4
        read = msgpack.unpackb(found[node].value)
        assert (read["id"], read["sequence"]) == (node, 9)
        assert np.array_equal(np.frombuffer(read["vector"], "<f4"), numbers)
    counts = {p: sum(r.partition == p for r in found.values()) for p in range(4)}
    assert sink.output_offsets == counts


async def test_a_node_that_came_back_has_its_vector_last(place: Place):
    topic, told = await place.new_topic(), await place.new_topic()
    sink, _ = await sink_of(place, topic, told)
    await sink.publish(["a"], np.ones((1, 1), np.float32), ["a", "b"], 1)
    assert [(r.key, r.value is None) for r in await records(place, topic)] == [
        (b"a", True), (b"b", True), (b"a", False),
    ]  # fmt: skip


async def test_json_is_for_readers_without_messagepack(place: Place):
    topic, told = await place.new_topic(), await place.new_topic()
    sink, _ = await sink_of(place, topic, told, "json")
    await sink.publish(["a"], np.array([[0.5, 2.0]], np.float32), [], 3)
    await sink.publish_progress(PROGRESS)
    (vector,), (progress,) = await records(place, topic), await records(place, told)
    read = json.loads(vector.value)
    assert (read["id"], read["vector"], read["sequence"]) == ("a", [0.5, 2.0], 3)
    assert json.loads(progress.value)["event_offsets"] == {"0": 7}
    assert progress.key == b"g"


async def test_a_transaction_is_begun_by_the_first_record_only(place: Place):
    topic, told = await place.new_topic(), await place.new_topic()
    sink, writer = await sink_of(place, topic, told)
    begun: list[bool] = []
    begin = writer.begin

    async def counted(ahead: Any = ()) -> None:
        begun.append(True)
        await begin(ahead)

    writer.begin = counted  # type: ignore[method-assign]
    await sink.commit(more=False)
    await sink.publish([], np.empty((0, 2), np.float32), [], 1)
    await sink.commit(more=False)
    assert not begun
    await sink.publish(["a"], np.ones((1, 2), np.float32), [], 1)
    await sink.publish_progress(PROGRESS)
    assert len(begun) == 1
    assert not await records(place, topic, "read_committed")
    await sink.commit(more=False)
    assert [r.key for r in await records(place, topic, "read_committed")] == [b"a"]
    assert [r.key for r in await records(place, told, "read_committed")] == [b"g"]
    await sink.commit(more=False)
    await sink.publish([], np.empty((0, 2), np.float32), ["a"], 2)
    assert len(begun) == 2
    await sink.commit(more=False)
    assert sink.output_offsets == {0: (await records(place, topic))[-1].offset + 1}


async def test_one_writer_writes_while_the_other_commits(place: Place):
    topic, told = await place.new_topic(), await place.new_topic()
    writers = [await place.started(place.log.transactional_writer(f"dgdm-{topic}-{n}", 60)) for n in range(2)]
    sink = EmbeddingSink(writers, topic, told, "msgpack")
    await sink.start()
    let_go, one = asyncio.Event(), np.ones((1, 2), np.float32)
    commit = writers[0].commit

    async def slow() -> None:
        await let_go.wait()
        await commit()

    writers[0].commit = slow  # type: ignore[method-assign]
    await sink.publish(["a"], one, [], 1)
    committing = asyncio.create_task(sink.commit(more=False))
    await asyncio.sleep(0)
    await sink.publish(["b"], one, [], 2)
    assert sink.output_offsets == {0: 2}
    assert not await records(place, topic, "read_committed")
    let_go.set()
    await committing
    assert [r.key for r in await records(place, topic, "read_committed")] == [b"a"]
    await sink.commit(more=False)
    assert [r.key for r in await records(place, topic, "read_committed")] == [b"a", b"b"]
    await sink.publish(["c"], one, [], 3)
    await sink.commit(more=False)
    assert [r.key for r in await records(place, topic, "read_committed")] == [b"a", b"b", b"c"]


async def test_the_next_transaction_is_begun_ahead_while_there_is_more(place: Place):
    topic, told = await place.new_topic(2), await place.new_topic()
    writers = [await place.started(place.log.transactional_writer(f"dgdm-{topic}-{n}", 60)) for n in range(2)]
    sink = EmbeddingSink(writers, topic, told, "msgpack")
    await sink.start()
    ahead, begin = [], writers[1].begin

    async def noted(places: Any = ()) -> None:
        ahead.append(set(places))
        await begin(places)

    writers[1].begin = noted  # type: ignore[method-assign]
    await sink.publish(["a"], np.ones((1, 2), np.float32), [], 1)
    await sink.publish_progress(PROGRESS)
    await sink.commit(more=True)
    assert ahead == [{(topic, zlib.crc32(b"a") % 2), (told, 0)}]
    assert sink.open
    await sink.commit(more=True)  # nothing was written to this one
    assert not sink.open
    await sink.publish(["b"], np.ones((1, 2), np.float32), [], 2)
    await sink.commit(more=False)
    assert not sink.open
    assert len(ahead) == 1
    assert {r.key for r in await records(place, topic, "read_committed")} == {b"a", b"b"}


async def test_topics_that_are_not_there(place: Place):
    topic = await place.new_topic()
    with pytest.raises(UnknownTopicError, match=r"dgdm\.nowhere"):
        await sink_of(place, topic, "dgdm.nowhere")
    with pytest.raises(UnknownTopicError, match=r"dgdm\.nowhere"):
        await sink_of(place, "dgdm.nowhere", topic)
    with pytest.raises(UnknownTopicError, match=r"dgdm\.nowhere"):
        await check_limits(place.log, "dgdm.nowhere", 8, "msgpack")


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_the_size_that_the_check_asks_for_is_enough_and_needed(place: Place, encoding: Any):
    tight = await place.new_topic(1, {"max.message.bytes": "1000"})
    with pytest.raises(LogError, match=r"300 features takes up to \d+ bytes.*is 1000: raise it") as caught:
        await check_limits(place.log, tight, 300, encoding)
    (needed,) = map(int, re.findall(r"raise it to (\d+)", str(caught.value)))
    assert ("choose encoding = msgpack" in str(caught.value)) == (encoding == "json")
    await check_limits(place.log, await place.new_topic(), 300, encoding)
    enough = await place.new_topic(1, {"max.message.bytes": str(needed)})
    await check_limits(place.log, enough, 300, encoding)
    sink, _ = await sink_of(place, enough, await place.new_topic(), encoding)
    longest = ["n" * 256]
    worst = np.full((1, 300), -1.17549435e-38, np.float32)
    await sink.publish(longest, worst, [], 2**63 - 1)
    for number in (-3.4028235e38, 1.1754944e-38, -1.0000001e-7, 0.1, 123456.79):
        await sink.publish(longest, np.full((1, 300), number, np.float32), [], 2**63 - 1)
    short = await place.new_topic(1, {"max.message.bytes": str(needed - 1)})
    with pytest.raises(LogError, match="raise it"):
        await check_limits(place.log, short, 300, encoding)
