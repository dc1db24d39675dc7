"""What a checkpoint says of the output is what its transaction holds: no more, and not before it is committed."""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from graphtools import arcs_of, feed, graph_of, rows_by_id
from processes import make_topics

from dgdm.benchmarks.figures import resident
from dgdm.connections import connect_log, connect_store
from dgdm.log.interface import TransactionalWriter
from dgdm.producers.dead_letters import DeadLetterSink
from dgdm.producers.embeddings import EmbeddingSink
from dgdm.schemas.events import AddEdge, RemoveNode
from dgdm.session import TURNS
from dgdm.settings import Settings
from dgdm.state.checkpoint import MOST_PARTS, Checkpoint, Position
from dgdm.state.graph import GraphState
from dgdm.state.kernel_thread import KernelThread
from dgdm.state.loading import restore
from dgdm.state.recovery import take_ownership
from dgdm.state.store import GraphStore, Meta

VECTOR = np.ones((1, 4), np.float32)
SMALL, MEGABYTES = 1_000, 100  # bytes of a record, and of all


async def nothing(*_: Any) -> None:
    """Lag tools see nothing."""


class Sealed(NamedTuple):
    """A checkpoint between real ends, its writers' first, and what it writes to."""

    checkpoint: Checkpoint
    sink: EmbeddingSink
    first: TransactionalWriter
    store: GraphStore
    graph: GraphState


@contextlib.asynccontextmanager
async def sealed(settings: Settings) -> AsyncIterator[Sealed]:
    """Nothing is published yet, and no tail is owed."""
    await make_topics(settings)
    log, store, kernel = connect_log(settings), connect_store(settings), KernelThread()
    writers = [log.transactional_writer(f"dgdm-{settings.graph}-{turn}", 60) for turn in range(TURNS)]
    try:
        for writer in writers:
            await writer.start()
        sink = EmbeddingSink(writers, settings.embeddings_topic, settings.progress_topic, "msgpack")
        await sink.start()
        graph = graph_of(4)
        checkpoint = Checkpoint(
            graph=graph,
            store=store,
            owner=take_ownership(store, "token"),
            meta=Meta(4, False, "in", 1, 0.15, [0.01] * 4, [0.0] * 4),
            position=Position(),
            dead_letters=DeadLetterSink(log.writer(), settings.dead_letters_topic),
            commit_group=nothing,
            kernel=kernel,
            report=lambda *_: None,
            stored=lambda _: None,
        )
        checkpoint.attach(sink)
        checkpoint.position.tail_owed = False
        yield Sealed(checkpoint, sink, writers[0], store, graph)
    finally:
        for writer in writers:
            await writer.close()
        await log.close()
        store.close()
        kernel.close()


async def test_output_offsets_are_those_of_the_barrier_once_it_is_committed(settings: Settings) -> None:
    """
    first turn:  a, acknowledged; its commit is held
    second turn: b, written during that commit
    """
    async with sealed(settings) as (checkpoint, sink, first, store, _):
        reached, let_go, commit = asyncio.Event(), asyncio.Event(), first.commit

        async def slow() -> None:
            reached.set()
            await let_go.wait()
            await commit()

        first.commit = slow  # type: ignore[method-assign]
        await sink.publish(["a"], VECTOR, [], 1)
        barrier = dict(sink.output_offsets)
        sealing = asyncio.create_task(checkpoint.seal(more=True))
        await reached.wait()
        await sink.publish(["b"], VECTOR, [], 2)
        assert checkpoint.position.output_offsets == {}
        let_go.set()
        await sealing
        assert await checkpoint.write()
        await checkpoint.written()
        stored = store.meta()
        assert stored is not None
        assert stored.output_offsets == barrier
        assert sink.output_offsets[0] > barrier[0]


async def test_a_checkpoint_that_was_gathered_in_parts_holds_all(settings: Settings) -> None:
    """As many parts as pay; what later ones would hold is gathered with the checkpoint."""
    async with sealed(settings) as (checkpoint, _, _, store, graph):
        feed(graph, [AddEdge("gone", "a")])
        for number in range(2 * MOST_PARTS):
            feed(graph, [AddEdge("a", str(number % MOST_PARTS), 1.0 + number)])
            await checkpoint.gather_ahead(0.0)
        assert graph.dirty_count > 0, "a part was taken although parts held every row"
        assert checkpoint.dirty_rows == graph.used
        feed(graph, [RemoveNode("gone")])
        await checkpoint.seal(more=True)
        assert await checkpoint.write()
        await checkpoint.written()
        assert checkpoint.dirty_rows == 0
        again, meta = graph_of(4), store.meta()
        assert meta is not None
        restore(again, store, meta)
        assert rows_by_id(again) == rows_by_id(graph)
        assert arcs_of(again) == arcs_of(graph)
        assert again.sequence == graph.sequence


async def test_parts_are_spread_over_the_interval(settings: Settings) -> None:
    async with sealed(settings) as (checkpoint, _, _, _, graph):
        feed(graph, [AddEdge("a", "b")])
        await checkpoint.gather_ahead(3600.0)
        assert graph.dirty_count == 0, "nothing was gathered for long"
        feed(graph, [AddEdge("a", "c")])
        await checkpoint.gather_ahead(3600.0)
        assert graph.dirty_count > 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what was freed")
async def test_what_a_burst_took_is_given_back_with_the_next_checkpoint(settings: Settings) -> None:
    async with sealed(settings) as (checkpoint, *_):
        burst = [bytes(SMALL) for _ in range(MEGABYTES * 1_000_000 // SMALL)]
        last = burst.pop()  # glibc gives the end of its heap back by itself
        full = resident()
        del burst
        assert resident() > full - MEGABYTES / 2
        await checkpoint.seal(more=True)
        assert await checkpoint.write()
        await checkpoint.written()
        assert resident() < full - MEGABYTES / 2
        assert len(last) == SMALL
