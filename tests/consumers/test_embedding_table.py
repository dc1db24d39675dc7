"""EmbeddingTable: what the compacted topic says, and following it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from logtools import until
from wirerecords import gone, progress, vector

from dgdm.consumers.embeddings import Embedding, EmbeddingStream
from dgdm.consumers.progress import read_progress
from dgdm.log import LogError, LogUnavailableError, UnknownTopicError, open_log

if TYPE_CHECKING:
    from pathlib import Path

    from logtools import Place

    from dgdm.consumers.embeddings import EmbeddingTable
    from dgdm.log import Message


def as_lists(table: EmbeddingTable) -> dict[str, list[float]]:
    return {node: held.tolist() for node, held in table.items()}


async def test_the_table_holds_the_last_vector_of_every_node_that_is_there(place: Place):
    topic, told = await place.new_topic(2, {"cleanup.policy": "compact"}), await place.new_topic()
    writer = await place.started(place.log.writer())
    await writer.append(topic, 0, [vector("a", [1.0]), vector("b", [2.0]), vector("a", [3.0], 5), gone("b")])
    await writer.append(topic, 1, [vector("x", [4.0]), gone("never there")])
    async with EmbeddingStream(place.log, topic, progress_topic=told) as stream:
        table = await stream.as_table()
        assert as_lists(table) == {"a": [3.0], "x": [4.0]}
        assert (len(table), "b" in table, sorted(table)) == (2, False, ["a", "x"])
        assert table.embedding("a").sequence == 5
        assert table.positions() == {0: 4, 1: 2}
        with pytest.raises(KeyError):
            table["b"]
        with pytest.raises(ValueError, match="read-only"):
            table["a"][0] = 9.0


async def test_the_table_follows_by_itself(place: Place):
    topic, told = await place.new_topic(), await place.new_topic()
    writer = await place.started(place.log.writer())
    await writer.append(topic, 0, [vector("a", [1.0])])
    async with EmbeddingStream(place.log, topic, progress_topic=told) as stream:
        table = await stream.as_table()
        await writer.append(topic, 0, [vector("b", [2.0]), gone("a")])
        await table.ready()
        assert as_lists(table) == {"b": [2.0]}
        with pytest.raises(RuntimeError, match=r"table\.changes"):
            await anext(stream.__aiter__())  # type: ignore[call-overload]
        with pytest.raises(RuntimeError, match="already"):
            await stream.as_table()


async def test_random_changes_leave_what_a_dict_would_hold(tmp_path: Path, seed: int):
    rng, expected = random.Random(seed), {}
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    await log.create("e", 3, {})
    await log.create("p", 1, {})
    writer = log.writer()
    await writer.start()
    async with EmbeddingStream(log, "e", progress_topic="p") as stream:
        table = await stream.as_table()
        for sequence in range(300):
            node = rng.randrange(20)
            batch: list[Message] = []
            for _ in range(rng.randrange(1, 5)):
                number = float(np.float32(rng.random()))
                removed = rng.random() < 0.3
                batch.append(gone(str(node)) if removed else vector(str(node), [number], sequence))
                expected.pop(str(node), None)
                if not removed:
                    expected[str(node)] = [number]
            await writer.append("e", node % 3, batch)
            if rng.random() < 0.05:
                await table.ready()
                assert as_lists(table) == expected
        await table.ready()
        assert as_lists(table) == expected
    await writer.close()
    await log.close()


async def test_progress_counts_once_the_table_has_read_what_it_speaks_of(place: Place):
    topic, told = await place.new_topic(), await place.new_topic()
    writer = await place.started(place.log.writer())
    await writer.append(topic, 0, [vector("a", [1.0], 1)])
    await writer.append(told, 0, [progress(1, events=4, output=1)])
    async with EmbeddingStream(place.log, topic, progress_topic=told) as stream:
        table = await stream.as_table()
        await table.wait_for(1)
        assert table.progress is not None
        assert (table.progress.sequence, table.progress.bound) == (1, [0.01])
        await writer.append(told, 0, [progress(2, events=5, output=2)])  # speaks of a vector to come

        async def heard() -> bool:
            return stream.progress.latest is not None and stream.progress.latest.sequence == 2

        await until(heard, "the second record")
        assert table.progress.sequence == 1
        await writer.append(topic, 0, [vector("a", [2.0], 2)])
        await table.wait_for({0: 5})
        assert table.progress.sequence == 2
        assert as_lists(table) == {"a": [2.0]}


async def test_progress_of_a_topic_that_is_no_more_blocks_nothing(place: Place):
    topic, told = await place.new_topic(), await place.new_topic()
    writer = await place.started(place.log.writer())
    await writer.append(told, 0, [progress(900, events=900, output=900)])
    async with EmbeddingStream(place.log, topic, progress_topic=told) as stream:
        table = await stream.as_table()
        await until(lambda: asyncio.sleep(0, stream.progress.latest), "the old record")
        assert table.progress is None
        await writer.append(topic, 0, [vector("a", [1.0], 1)])
        await writer.append(told, 0, [progress(1, events=1, output=1)])
        await table.wait_for(1)
        assert table.progress is not None
        assert table.progress.sequence == 1


async def test_more_progress_than_is_kept_ends_with_the_newest(tmp_path: Path):
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    await log.create("e", 1, {})
    await log.create("p", 1, {})
    writer = log.writer()
    await writer.start()
    async with EmbeddingStream(log, "e", progress_topic="p") as stream:
        table = await stream.as_table()
        for sequence in range(1, 201):
            await writer.append("p", 0, [progress(sequence, events=sequence, output=sequence)])

            async def heard(number: int = sequence) -> bool:
                return stream.progress.latest is not None and stream.progress.latest.sequence == number

            await until(heard, "each record on its own")
        await writer.append("e", 0, [vector(str(i), [1.0], i) for i in range(1, 201)])
        await table.wait_for(200)
        assert len(table) == 200
    await writer.close()
    await log.close()


async def test_waiting_for_a_progress_record_reads_its_output_offsets(place: Place):
    topic, told = await place.new_topic(), await place.new_topic()
    writer = await place.started(place.log.writer())
    await writer.append(told, 0, [progress(1, events=1, output=2)])
    record = await read_progress(place.log, told, "default")
    assert record is not None
    async with EmbeddingStream(place.log, topic, progress_topic=told) as stream:
        table = await stream.as_table()
        waiting = asyncio.create_task(table.wait_for(record))
        await writer.append(topic, 0, [vector("a", [1.0])])
        await table.ready()
        assert not waiting.done()
        await writer.append(topic, 0, [vector("b", [1.0])])
        await waiting
        assert set(table) == {"a", "b"}


@pytest.mark.parametrize(("target", "named"), [(7, "sequence 7"), ({0: 9}, "event offsets {0: 9}")])
async def test_waiting_in_vain_says_for_what_and_what_to_do(place: Place, target: Any, named: str):
    topic, told = await place.new_topic(), await place.new_topic()
    async with EmbeddingStream(place.log, topic, progress_topic=told) as stream:
        table = await stream.as_table()
        with pytest.raises(TimeoutError) as caught:
            await table.wait_for(target, timeout=0.01)
    assert named in str(caught.value)
    assert "dgdm doctor" in str(caught.value)


async def test_without_a_progress_topic_vectors_are_there_and_waiting_for_progress_says_why(place: Place):
    topic = await place.new_topic()
    writer = await place.started(place.log.writer())
    await writer.append(topic, 0, [vector("a", [1.0])])
    async with EmbeddingStream(place.log, topic, progress_topic="dgdm.nowhere") as stream:
        table = await stream.as_table()
        assert as_lists(table) == {"a": [1.0]}
        with pytest.raises(UnknownTopicError, match=r"dgdm\.nowhere"):
            await table.wait_for(1)
        await table.ready()


async def test_changes_are_told_and_conflated_while_nobody_listens(place: Place):
    topic, told = await place.new_topic(), await place.new_topic()
    writer = await place.started(place.log.writer())
    async with EmbeddingStream(place.log, topic, progress_topic=told) as stream:
        table = await stream.as_table()
        async with contextlib.aclosing(table.changes()) as changes:  # type: ignore[type-var]
            first = asyncio.create_task(anext(changes))  # type: ignore[call-overload]
            await asyncio.sleep(0)
            await writer.append(topic, 0, [vector("a", [1.0])])
            assert (await first).id == "a"
            await writer.append(
                topic, 0, [vector("a", [2.0]), vector("b", [1.0]), vector("a", [3.0]), gone("b")]
            )
            await table.ready()
            found = [await anext(changes), await anext(changes)]  # type: ignore[call-overload]
            assert isinstance(found[0], Embedding)
            assert (found[0].id, found[0].vector.tolist()) == ("a", [3.0])
            assert found[1].id == "b"
            assert not isinstance(found[1], Embedding)


async def test_changes_end_when_the_stream_is_closed(place: Place):
    topic, told = await place.new_topic(), await place.new_topic()
    async with EmbeddingStream(place.log, topic, progress_topic=told) as stream:
        table = await stream.as_table()

        async def listen() -> list[Any]:
            return [change async for change in table.changes()]

        listening = asyncio.create_task(listen())
        waiting = asyncio.create_task(table.wait_for(1))
        await asyncio.sleep(0)
    assert await listening == []
    with pytest.raises(LogError, match="closed"):
        await waiting
    with pytest.raises(LogError):
        await table.ready()


async def test_a_log_that_stays_away_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    await log.create("e", 1, {})
    await log.create("p", 1, {})
    writer = log.writer()
    await writer.start()
    async with EmbeddingStream(log, "e", progress_topic="p") as stream:
        table = await stream.as_table()
        truth, faults = stream.poll, [LogUnavailableError("no answer")] * 2
        monkeypatch.setattr("dgdm.consumers.table.RETRY", 0.01)

        async def flaky(wait: float) -> Any:
            if faults:
                raise faults.pop()
            return await truth(wait)

        monkeypatch.setattr(stream, "poll", flaky)
        await writer.append("e", 0, [vector("a", [1.0]), vector("b", [1.0])])
        await until(lambda: asyncio.sleep(0, not faults), "both faults")
        await table.ready()
        assert set(table) == {"a", "b"}
    await writer.close()
    await log.close()


async def test_any_other_fault_is_told_to_those_who_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    await log.create("e", 1, {})
    await log.create("p", 1, {})
    async with EmbeddingStream(log, "e", progress_topic="p") as stream:
        table = await stream.as_table()

        async def refused(_wait: float) -> Any:
            raise LogError("not allowed any more")

        waiting = asyncio.create_task(table.wait_for(1))
        monkeypatch.setattr(stream, "poll", refused)
        with pytest.raises(LogError, match="not allowed any more"):
            await waiting
        with pytest.raises(LogError, match="not allowed any more"):
            await anext(table.changes())  # type: ignore[call-overload]
    await log.close()
