"""Random event streams, sent for real, and the verdict of the oracle on what consumers hold."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any, NamedTuple

import msgpack
import numpy as np
import oracle
from processes import read_all

from dgdm.connections import connect_store
from dgdm.producers.graph import GraphProducer
from dgdm.schemas.events import AddEdge, GraphEvent, RemoveEdge, RemoveNode, SetFeatures, as_weight
from dgdm.settings import Settings
from dgdm.state.store import Meta


def some_events(seed: int, count: int, nodes: int = 150, features: int = 4) -> list[GraphEvent]:
    """Edges that are set, added to and removed, features that move, nodes that go and come back."""
    rng, normal = random.Random(seed), np.random.default_rng(seed)
    stream: list[GraphEvent] = []
    for _ in range(count):
        a, b, kind = str(rng.randrange(nodes)), str(rng.randrange(nodes)), rng.random()
        if kind < 0.1:
            stream.append(SetFeatures(a, normal.normal(size=features).astype(np.float32)))
        elif kind < 0.12:
            stream.append(RemoveNode(a))
        elif kind < 0.25:
            stream.append(RemoveEdge(a, b))
        else:
            weight = as_weight(10 ** rng.uniform(-3, 3))
            stream.append(AddEdge(a, b, weight, rng.choice(["set", "add"])))
    return stream


def producer(settings: Settings) -> GraphProducer:
    """A producer for these settings."""
    return GraphProducer(
        settings.log, settings.events_topic, progress_topic=settings.progress_topic, graph=settings.graph
    )


def require_time_runs_forward(records: list[Any]) -> None:
    """No consumer is sent an older graph after a newer one."""
    sequences: dict[int, int] = {}
    for record in records:
        if record.value is not None:
            value = record.value
            sequence = (json.loads(value) if value[:1] == b"{" else msgpack.unpackb(value))["sequence"]
            assert sequence >= sequences.get(record.partition, 0), f"at offset {record.offset}"
            sequences[record.partition] = sequence


async def send_slowly(events: GraphProducer, stream: list[GraphEvent], pause: float = 0.02) -> None:
    """50 at a time."""
    for number, event in enumerate(stream):
        await events.send(event)
        if number % 50 == 49:
            await asyncio.sleep(pause)


async def require_truth(
    settings: Settings,
    isolation: Any = "read_committed",
    truth: oracle.Oracle | None = None,
    *,
    forward: bool = True,
    within: float | None = None,
) -> None:
    """Consumers hold the exact answer within the accuracy, and the store every weight exactly.

    The answer for the whole log, or for what `truth` has applied.
    """
    assert settings.features is not None
    if truth is None:
        truth = oracle.Oracle(
            settings.features,
            settings.alpha,
            settings.directed,
            settings.aggregate,
            accuracy=None if settings.allow_floor else settings.columns("accuracy", settings.features),
            offset=settings.columns("offset", settings.features),
        )
        for record in await read_all(settings, settings.events_topic):
            truth.apply(record.value)
    records = await read_all(settings, settings.embeddings_topic, isolation)
    if forward:
        require_time_runs_forward(records)
    held = oracle.table((record.key, record.value) for record in records)
    assert oracle.largest_error(truth.exact(), held) <= (within or settings.accuracy[0])
    stored = await asyncio.to_thread(read_store, settings)
    assert stored.meta.event_sequence == truth.sequence
    assert stored.features.keys() == truth.x.keys()
    assert stored.weights == truth.weights()


class Stored(NamedTuple):
    """Everything a store holds of a graph, by id."""

    meta: Meta
    features: dict[str, np.ndarray]
    vectors: dict[str, np.ndarray]
    weights: dict[tuple[str, str], float]


def read_store(settings: Settings) -> Stored:
    """As a recovery would read it."""
    store = connect_store(settings)
    try:
        meta = store.meta()
        assert meta is not None
        ids = {
            row: node for names, rows in store.ids() for node, row in zip(names, rows.tolist(), strict=True)
        }
        weights: dict[tuple[str, str], float] = {}
        for chunks, ends, targets, weight in store.arcs():
            sources = np.repeat(chunks[:, 0], np.diff(ends, prepend=0)).tolist()
            for row, target, w in zip(sources, targets.tolist(), weight.tolist(), strict=True):
                weights[ids[row], ids[target]] = w
        features, vectors = (
            {ids[row]: x for rows, values in part for row, x in zip(rows.tolist(), values, strict=True)}
            for part in (store.features(), store.vectors())
        )
        return Stored(meta, features, vectors, weights)
    finally:
        store.close()
