"""GraphProducer: right keys, right order, each once; what is wrong is said at once, in words."""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import pytest
from logtools import read_to_end, until
from wirerecords import progress

from dgdm.log import LogError, RecordRejectedError, UnknownTopicError, open_log
from dgdm.producers.graph import GraphProducer
from dgdm.schemas.events import AddEdge, AddNode, RemoveNode, SetFeatures
from dgdm.schemas.reasons import InvalidEvent, Reason

if TYPE_CHECKING:
    from pathlib import Path

    from logtools import Place

    from dgdm.log import Record


async def written(place: Place, topic: str) -> list[Record]:
    return await read_to_end(await place.started(place.log.reader(topic, "read_committed")))


async def test_every_method_writes_its_event_under_its_key(place: Place):
    topic = await place.new_topic()
    async with GraphProducer(place.log, topic) as producer:
        await producer.add_node("ann", [1, 0.5])
        await producer.add_node(7)
        await producer.set_features("ann", np.array([2, 3], np.float64))
        await producer.add_edge("ann", "bob", 2.5)
        await producer.add_edge("bob", 7, op="add")
        await producer.remove_edge("ann", "bob")
        await producer.remove_node("ann")
        await producer.send(RemoveNode("ü", ts=5))
        assert await producer.flush() == producer.offsets == {0: 8}
    found = [
        (r.key.decode(), msgpack.unpackb(r.value)) for r in await written(place, topic) if r.key and r.value
    ]
    floats = lambda *x: np.array(x, "<f4").tobytes()  # noqa: E731 - short, and used here alone
    assert found == [
        ("ann", {"type": "AddNode", "id": "ann", "features": floats(1, 0.5)}),
        ("7", {"type": "AddNode", "id": "7"}),
        ("ann", {"type": "SetFeatures", "id": "ann", "features": floats(2, 3)}),
        ("ann", {"type": "AddEdge", "source": "ann", "target": "bob", "weight": 2.5, "op": "set"}),
        ("bob", {"type": "AddEdge", "source": "bob", "target": "7", "weight": 1.0, "op": "add"}),
        ("ann", {"type": "RemoveEdge", "source": "ann", "target": "bob"}),
        ("ann", {"type": "RemoveNode", "id": "ann"}),
        ("ü", {"type": "RemoveNode", "id": "ü", "ts": 5}),
    ]


async def test_json_for_those_who_want_to_read_the_topic(place: Place):
    topic = await place.new_topic()
    async with GraphProducer(place.url, topic, encoding="json") as producer:
        await producer.set_features("a", (1, 2))
    (record,) = await written(place, topic)
    assert json.loads(record.value or b"") == {"type": "SetFeatures", "id": "a", "features": [1.0, 2.0]}


INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
FLOATS = [np.float16, np.float32, np.float64, np.longdouble]


@pytest.mark.parametrize("kind", [*INTEGERS, *FLOATS])
async def test_numbers_of_every_numpy_kind_are_numbers(tmp_path: Path, kind: Any):
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    await log.create("e", 1, {})
    async with GraphProducer(log, "e") as producer:
        await producer.add_node("a", np.array([1, 2], kind))
        await producer.set_features("a", [kind(3), 4])
        await producer.add_edge("a", "b", kind(5))
        if kind in INTEGERS:
            await producer.add_node(kind(6))
        await producer.remove_node(np.str_("a"))
        await producer.flush()
    reader = log.reader("e", "read_committed")
    await reader.start()
    found = [msgpack.unpackb(r.value or b"") for r in await read_to_end(reader)]
    assert np.frombuffer(found[0]["features"], "<f4").tolist() == [1, 2]
    assert np.frombuffer(found[1]["features"], "<f4").tolist() == [3, 4]
    assert found[2]["weight"] == 5.0
    if kind in INTEGERS:
        assert found[3]["id"] == "6"
    assert found[-1] == {"type": "RemoveNode", "id": "a"}
    await reader.close()
    await log.close()


class Series:
    """What pandas and torch give: no array, but able to become one."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array([1.0, 2.0], dtype)


WRONG: list[tuple[Any, Reason, str]] = [
    (AddNode(True), Reason.BAD_ID, "True"),
    (AddNode(np.bool_(1)), Reason.BAD_ID, "True"),  # type: ignore[arg-type]
    (AddNode(1.0), Reason.BAD_ID, "1.0"),  # type: ignore[arg-type]
    (AddNode(np.float64(1)), Reason.BAD_ID, "1.0"),  # type: ignore[arg-type]
    (AddNode(b"a"), Reason.BAD_ID, "a"),  # type: ignore[arg-type]
    (AddNode(""), Reason.BAD_ID, "256"),
    (AddNode("x" * 257), Reason.BAD_ID, "257"),
    (AddNode("\udc80"), Reason.BAD_ID, "Unicode"),
    (AddNode(np.array(["a"])), Reason.BAD_ID, "array"),  # type: ignore[arg-type]
    (AddNode(None), Reason.BAD_ID, "None"),  # type: ignore[arg-type]
    (AddEdge("a", None), Reason.BAD_ID, "None"),  # type: ignore[arg-type]
    (AddNode("a", [1, "2"]), Reason.WRONG_TYPE, "2"),
    (AddNode("a", [1, True]), Reason.WRONG_TYPE, "True"),
    (AddNode("a", np.array([True])), Reason.WRONG_TYPE, "True"),
    (AddNode("a", np.array(["1"])), Reason.WRONG_TYPE, "1"),
    (AddNode("a", np.ones((2, 2))), Reason.WRONG_TYPE, "1."),
    (AddNode("a", 3.0), Reason.WRONG_TYPE, "3.0"),
    (AddNode("a", [float("nan")]), Reason.NOT_FINITE, "nan"),
    (AddNode("a", [1e39]), Reason.NOT_FINITE, "1e+39"),
    (SetFeatures("a", None), Reason.WRONG_TYPE, "features"),
    (AddEdge("a", "b", 0), Reason.BAD_WEIGHT, "0"),
    (AddEdge("a", "b", -1), Reason.BAD_WEIGHT, "-1"),
    (AddEdge("a", "b", 1e-46), Reason.BAD_WEIGHT, "1e-46"),
    (AddEdge("a", "b", float("inf")), Reason.NOT_FINITE, "inf"),
    (AddEdge("a", "b", 1e39), Reason.NOT_FINITE, "1e+39"),
    (AddEdge("a", "b", "2"), Reason.WRONG_TYPE, "2"),  # type: ignore[arg-type]
    (AddEdge("a", "b", True), Reason.WRONG_TYPE, "True"),
    (AddEdge("a", "b", None), Reason.WRONG_TYPE, "None"),  # type: ignore[arg-type]
    (AddEdge("a", "b", 1, "toggle"), Reason.WRONG_TYPE, "toggle"),  # type: ignore[arg-type]
    (RemoveNode("a", ts="now"), Reason.WRONG_TYPE, "now"),  # type: ignore[arg-type]
    ({"type": "AddNode", "id": "a"}, Reason.WRONG_TYPE, "AddNode"),
]


@pytest.mark.parametrize(("event", "reason", "named"), WRONG)
async def test_what_is_wrong_is_named_and_nothing_of_it_is_sent(
    tmp_path: Path, event: Any, reason: Reason, named: str
):
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    await log.create("e", 1, {})
    async with GraphProducer(log, "e") as producer:
        await producer.add_node("before")
        with pytest.raises(InvalidEvent) as caught:
            await producer.send(event)
        await producer.add_node("after", Series())
        assert await producer.flush() == {0: 2}
    assert caught.value.reason == reason
    assert named in str(caught.value)
    await log.close()


async def test_an_event_too_large_for_the_topic_is_refused_alone(place: Place):
    topic = await place.new_topic(1, {"max.message.bytes": "2000"})
    async with GraphProducer(place.log, topic) as producer:
        await producer.add_node("a", [1.0] * 400)
        with pytest.raises(RecordRejectedError, match="2000"):
            await producer.add_node("b", [1.0] * 600)
        await producer.add_node("c")
    assert [r.key for r in await written(place, topic)] == [b"a", b"c"]


async def test_several_partitions_keep_the_order_of_each_key(place: Place):
    topic = await place.new_topic(3)
    async with GraphProducer(place.log, topic, batch=7) as producer:
        for turn in range(20):
            for node in range(10):
                await producer.add_edge(node, "t", turn + 1)
        offsets = await producer.flush()
    found = await written(place, topic)
    assert sum(offsets.values()) == len(found) == 200
    assert offsets == {p: sum(r.partition == p for r in found) for p in offsets}
    for node in range(10):
        key = str(node).encode()
        mine = [(r.partition, msgpack.unpackb(r.value or b"")["weight"]) for r in found if r.key == key]
        assert mine == [(zlib.crc32(key) % 3, turn + 1) for turn in range(20)]


async def test_leaving_writes_what_waits_even_when_the_body_fails(place: Place):
    topic = await place.new_topic()
    with pytest.raises(ZeroDivisionError):
        async with GraphProducer(place.log, topic, linger=60) as producer:
            await producer.add_node("a")
            raise ZeroDivisionError
    assert len(await written(place, topic)) == 1
    with pytest.raises(LogError, match="closed"):
        await producer.add_node("b")
    await producer.close()


async def test_a_cancelled_program_does_not_wait_for_the_log(tmp_path: Path):
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    await log.create("e", 1, {})
    inside = asyncio.Event()

    async def program() -> None:
        async with GraphProducer(log, "e") as producer:

            async def never(*_: Any) -> int:
                return await asyncio.Future()

            producer._writer.append = never  # type: ignore[method-assign]
            await producer.add_node("a")
            inside.set()
            await producer.flush()

    running = asyncio.create_task(program())
    await inside.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 20)
    await log.close()


async def test_own_writes_are_visible_when_progress_says_so(place: Place):
    topic, told = await place.new_topic(), await place.new_topic()
    writer = await place.started(place.log.writer())
    async with GraphProducer(place.log, topic, progress_topic=told) as producer:
        await producer.visible(timeout=1)  # nothing was sent
        for node in range(3):
            await producer.add_node(node)
        waiting = asyncio.create_task(producer.visible())
        await until(lambda: asyncio.sleep(0, producer.offsets), "the acknowledgement")
        await writer.append(told, 0, [progress(9, events=9, output=0, graph="other")])
        await writer.append(told, 0, [progress(2, events=2, output=1)])

        async def heard() -> bool:
            latest = producer._follower.latest
            return latest is not None and latest.sequence == 2

        await until(heard, "a record that is not enough")
        assert not waiting.done()
        await writer.append(told, 0, [progress(3, events=3, output=2)])
        await waiting
        await producer.visible(timeout=20)
        await producer.add_node(4)
        with pytest.raises(
            TimeoutError, match=r"event offsets \{0: 3\}, these events end at \{0: 4\}.*dgdm doctor"
        ):
            await producer.visible(timeout=0.2)


async def test_without_a_progress_topic_waiting_says_so(place: Place):
    topic = await place.new_topic()
    async with GraphProducer(place.log, topic, progress_topic="dgdm.nowhere") as producer:
        await producer.add_node("a")
        with pytest.raises(UnknownTopicError, match=r"dgdm\.nowhere"):
            await producer.visible()


async def test_starting_without_the_topic_leaves_nothing_open(place: Place):
    with pytest.raises(UnknownTopicError, match=r"dgdm\.nowhere"):
        async with GraphProducer(place.url, "dgdm.nowhere"):
            pass


async def test_before_start_there_is_a_sentence(tmp_path: Path):
    producer = GraphProducer(f"sqlite:///{tmp_path}/log.db")
    with pytest.raises(LogError, match="async with"):
        await producer.add_node("a")
    await producer.close()
    for wrong in ({"batch": 0}, {"linger": -1.0}):
        with pytest.raises(ValueError, match=r"batch=.*linger="):
            GraphProducer("sqlite:///x.db", **wrong)  # type: ignore[arg-type]


async def test_many_tasks_may_share_a_producer(place: Place):
    topic = await place.new_topic()
    async with GraphProducer(place.log, topic, batch=50) as producer:

        async def send_some(task: int) -> None:
            for number in range(100):
                await producer.add_edge(task, "t", number + 1)
                if number % 30 == 0:
                    await producer.flush()

        await asyncio.gather(*(send_some(task) for task in range(8)))
    found = await written(place, topic)
    assert len(found) == 800
    for task in range(8):
        mine = [msgpack.unpackb(r.value or b"")["weight"] for r in found if r.key == str(task).encode()]
        assert mine == [float(number + 1) for number in range(100)]
