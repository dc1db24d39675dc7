"""What a checkpoint says of the output is what its transaction holds: no more, and not before it is committed."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from graphtools import graph_of
from processes import make_topics

from dgdm.connections import connect_log, connect_store
from dgdm.producers.dead_letters import DeadLetterSink
from dgdm.producers.embeddings import EmbeddingSink
from dgdm.session import TURNS
from dgdm.settings import Settings
from dgdm.state.checkpoint import Checkpoint, Position
from dgdm.state.kernel_thread import KernelThread
from dgdm.state.recovery import take_ownership
from dgdm.state.store import Meta

VECTOR = np.ones((1, 4), np.float32)


async def nothing(*_: Any) -> None:
    """Lag tools see nothing."""


async def test_output_offsets_are_those_of_the_barrier_once_it_is_committed(settings: Settings) -> None:
    """
    first turn:  a, acknowledged; its commit is held
    second turn: b, written during that commit
    """
    await make_topics(settings)
    log, store, kernel = connect_log(settings), connect_store(settings), KernelThread()
    writers = [log.transactional_writer(f"dgdm-{settings.graph}-{turn}", 60) for turn in range(TURNS)]
    try:
        for writer in writers:
            await writer.start()
        sink = EmbeddingSink(writers, settings.embeddings_topic, settings.progress_topic, "msgpack")
        await sink.start()
        checkpoint = Checkpoint(
            graph=graph_of(4),
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
        reached, let_go, commit = asyncio.Event(), asyncio.Event(), writers[0].commit

        async def slow() -> None:
            reached.set()
            await let_go.wait()
            await commit()

        writers[0].commit = slow  # type: ignore[method-assign]
        await sink.publish(["a"], VECTOR, [], 1)
        barrier = dict(sink.output_offsets)
        sealing = asyncio.create_task(checkpoint.seal())
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
    finally:
        for writer in writers:
            await writer.close()
        await log.close()
        store.close()
        kernel.close()
