"""The last progress record, the ones that follow, and the tail that recovery reads."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from logtools import until
from wirerecords import gone, progress, vector

from dgdm.consumers.progress import ProgressFollower, follow_progress, read_progress
from dgdm.consumers.tail import read_tail
from dgdm.log import LogError, Message, UnknownTopicError

if TYPE_CHECKING:
    from logtools import Place


async def test_the_last_record_of_the_graph_is_found(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.writer())
    assert await read_progress(place.log, topic, "default") is None
    strangers = [Message(b"default", b"\xc1 no record"), Message(None, b"x"), Message(b"default", None)]
    mine, others = progress(2, events=20, output=7), progress(9, events=90, output=9, graph="other")
    await writer.append(topic, 0, [progress(1, events=10, output=5), mine, others, *strangers])
    found = await read_progress(place.log, topic, "default")
    assert found is not None
    assert (found.sequence, found.event_offsets, found.output_offsets) == (2, {0: 20}, {0: 7})
    assert (found.bound, found.nodes) == ([0.01], 2)


async def test_a_record_far_before_the_end_is_found_too(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.writer())
    await writer.append(topic, 0, [progress(1, events=1, output=1)])
    await writer.append(topic, 0, [progress(i, events=i, output=i, graph="other") for i in range(7_000)])
    found = await read_progress(place.log, topic, "default")
    assert found is not None
    assert found.sequence == 1


async def test_an_uncommitted_record_is_progress_for_those_who_read_uncommitted(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.transactional_writer(f"dgdm-{topic}", 60))
    await writer.begin()
    await writer.append(topic, 0, [progress(1, events=1, output=1)])
    await writer.commit()
    await writer.begin()
    await writer.append(topic, 0, [progress(2, events=2, output=2)])
    seen, committed = [
        await read_progress(place.log, topic, "default", isolation)
        for isolation in ("read_uncommitted", "read_committed")
    ]
    assert seen is not None
    assert committed is not None
    assert (seen.sequence, committed.sequence) == (2, 1)


async def test_following_begins_with_the_last_one_and_goes_on(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.writer())
    await writer.append(topic, 0, [progress(1, events=1, output=1), progress(2, events=2, output=2)])
    async with contextlib.aclosing(follow_progress(place.log, topic, "default")) as records:
        assert (await anext(records)).sequence == 2
        await writer.append(topic, 0, [progress(9, events=9, output=9, graph="other")])
        await writer.append(topic, 0, [progress(3, events=3, output=3)])
        assert (await anext(records)).sequence == 3


async def test_a_follower_wakes_those_who_wait(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.writer())
    follower = ProgressFollower(place.log, topic, "default")
    follower.start()
    try:
        waiting = asyncio.create_task(follower.wait_until(lambda p: p.sequence >= 2))
        await writer.append(topic, 0, [progress(1, events=1, output=1)])

        async def heard() -> bool:
            return follower.latest is not None

        await until(heard, "the first record")
        assert not waiting.done()
        await writer.append(topic, 0, [progress(2, events=2, output=2)])
        assert (await waiting).sequence == 2
    finally:
        await follower.close()


async def test_a_follower_of_no_topic_says_so_to_those_who_wait(place: Place):
    follower = ProgressFollower(place.log, "dgdm.nowhere", "default")
    follower.start()
    with pytest.raises(UnknownTopicError, match=r"dgdm\.nowhere"):
        await follower.wait_until(lambda _: True)
    await follower.close()


async def test_closing_a_follower_ends_the_waiting(place: Place):
    follower = ProgressFollower(place.log, await place.new_topic(), "default")
    follower.start()
    waiting = asyncio.create_task(follower.wait_until(lambda _: True))
    await asyncio.sleep(0)
    await follower.close()
    with pytest.raises(LogError, match="closed"):
        await waiting
    await follower.close()


async def test_the_tail_is_keys_and_the_highest_sequence_whatever_is_committed(place: Place):
    topic = await place.new_topic(2)
    first = await place.started(place.log.transactional_writer(f"dgdm-{topic}", 60))
    await first.begin()
    await first.append(topic, 0, [vector("old", [1.0], 10)])
    await first.commit()
    start = (await read_tail(place.log, topic, {})).end
    await first.begin()
    await first.append(
        topic, 0, [vector("a", [1.0], 12), gone("b"), Message(b"c", b"\xc1 a stranger's value")]
    )
    await first.append(topic, 1, [vector("d", [1.0], 11)])
    second = await place.started(place.log.transactional_writer(f"dgdm-{topic}", 60))  # aborts what is open
    tail = await read_tail(place.log, topic, start)
    assert tail.keys == {"a", "b", "c", "d"}
    assert tail.sequence == 12
    assert tail.begin == {0: 0, 1: 0}
    assert all(tail.end[p] > start[p] for p in (0, 1))
    nothing = await read_tail(place.log, topic, tail.end)
    assert (nothing.keys, nothing.sequence, nothing.end) == (frozenset(), 0, tail.end)
    await second.close()


async def test_keys_that_no_embedding_can_have_are_not_in_the_tail(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.writer())
    keys = [None, b"", b"\xff\xfe", b"x" * 257, "ü".encode()]
    await writer.append(topic, 0, [Message(key, b"\xc1") for key in keys])
    assert (await read_tail(place.log, topic, {0: 0})).keys == {"ü"}


async def test_offsets_past_the_end_make_the_whole_topic_the_tail(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.writer())
    await writer.append(topic, 0, [vector("a", [1.0], 1), vector("b", [1.0], 2)])
    assert (await read_tail(place.log, topic, {0: 1})).keys == {"b"}
    assert (await read_tail(place.log, topic, {0: 99})).keys == {"a", "b"}


async def test_offsets_before_the_beginning_are_the_beginning(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.writer())
    await writer.append(topic, 0, [vector("a", [1.0], 1), vector("b", [1.0], 2), vector("c", [1.0], 3)])
    await place.delete_records(topic, {0: 2})
    tail = await read_tail(place.log, topic, {0: 0})
    assert (tail.keys, tail.begin) == ({"c"}, {0: 2})
