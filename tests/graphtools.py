"""What tests of the graph share: streams of events, a consumer's table, and a store that is a few dicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dgdm.diffusion.arrays import CHUNK
from dgdm.schemas.events import (
    AddEdge,
    AddNode,
    GraphEvent,
    RemoveEdge,
    RemoveNode,
    SetFeatures,
    as_weight,
    encode_event,
)
from dgdm.state.collecting import collect, collect_all
from dgdm.state.graph import GraphState, Publication
from dgdm.state.id_table import ids_of
from dgdm.state.rules import Rules
from dgdm.state.store import Meta, StoreChanges, StoredArcs, StoredRaw, StoredRows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SHAPES = [(False, "in"), (True, "in"), (True, "out")]  # directed, aggregate


def graph_of(features: int = 1, accuracy: float = 0.01, alpha: float = 0.15, **rules: object) -> GraphState:
    """A graph with one accuracy for all columns and no offset."""
    return GraphState(
        Rules(features, np.full(features, accuracy), np.zeros(features), **rules),  # type: ignore[arg-type]
        alpha,
    )


def some_stream(random: np.random.Generator, count: int, features: int, nodes: int) -> list[GraphEvent]:
    """Mixed events on few nodes: weights over ten orders of magnitude, loops, removals, ids that come back."""
    stream: list[GraphEvent] = []
    for kind in random.choice(
        ["edge"] * 5 + ["unedge"] * 2 + ["set", "add", "bare", "remove"], count
    ).tolist():
        a, b = map(str, random.integers(0, nodes, 2))
        x = (random.normal(size=features) * 10 ** random.uniform(-3, 0)).astype(np.float32)
        if kind == "edge":
            weight = as_weight(10 ** float(random.uniform(-5, 5)))
            stream.append(AddEdge(a, b, weight, "add" if random.integers(2) else "set"))
        elif kind == "unedge":
            stream.append(RemoveEdge(a, b))
        elif kind == "set":
            stream.append(SetFeatures(a, x))
        elif kind == "remove":
            stream.append(RemoveNode(a))
        else:
            stream.append(AddNode(a, x if kind == "add" else None))
    return stream


def feed(graph: GraphState, events: Sequence[GraphEvent], *, push: bool = True) -> list[tuple[int, str]]:
    """Apply all of them in one batch; which were refused, and why."""
    applied = graph.apply([encode_event(event) for event in events], push=push)
    return [(index, error.reason.value) for index, error in applied.refused]


def rows_by_id(graph: GraphState) -> dict[str, int]:
    """Every id with its row."""
    rows = graph.rows()
    return dict(zip(ids_of(graph.ids, rows), rows.tolist(), strict=True))


class Table:
    """What a consumer holds, and a publication on its way to it."""

    def __init__(self) -> None:
        self.held: dict[str, np.ndarray] = {}
        self.on_its_way: Publication | None = None

    def send(self, graph: GraphState, limit: int = 1_000_000) -> Publication:
        """Publish; the acknowledgement comes later."""
        assert self.on_its_way is None, "one publication in flight"
        self.on_its_way = publication = graph.gather(limit)
        assert not set(publication.ids) & set(publication.tombstones)
        for node in publication.tombstones:
            self.held.pop(node, None)
        self.held.update(zip(publication.ids, publication.vectors, strict=True))
        return publication

    def acknowledge(self, graph: GraphState) -> None:
        """The acknowledgement arrives."""
        if self.on_its_way is not None:
            graph.acknowledge(self.on_its_way)
            self.on_its_way = None

    def deliver(self, graph: GraphState, limit: int = 1_000_000) -> Publication:
        """Publish and acknowledge until nothing is left; the last publication."""
        self.acknowledge(graph)
        while True:
            publication = self.send(graph, limit)
            self.acknowledge(graph)
            if publication.complete:
                return publication


class Replica:
    """Every StoreChanges applied to dicts, as a store would; and read again as a store is."""

    def __init__(self, graph: GraphState) -> None:
        rules = graph.rules
        self.meta = Meta(
            rules.features,
            rules.directed,
            rules.aggregate,
            1,
            graph.alpha,
            rules.accuracy.tolist(),
            rules.offset.tolist(),
            raw_features=0 if graph.raw is None else graph.raw.width,
        )
        self.raw_words: dict[int, np.ndarray] = {}
        self.rows: dict[str, int] = {}
        self.x: dict[int, np.ndarray] = {}
        self.vector: dict[int, np.ndarray] = {}
        self.chunk: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def checkpoint(self, graph: GraphState) -> StoreChanges:
        """What changed since the last one."""
        changes = collect(graph, self.meta)
        self.apply(changes)
        return changes

    def rewrite(self, graph: GraphState) -> None:
        """Everything, from nothing."""
        for part in (self.rows, self.x, self.vector, self.chunk, self.raw_words):
            part.clear()
        for changes in collect_all(graph, self.meta):
            self.apply(changes)

    def apply(self, changes: StoreChanges) -> None:
        """Deletions first."""
        for node in changes.freed_ids:
            self.rows.pop(node, None)
        for row in changes.freed_rows.tolist():
            self.x.pop(row, None)
            self.vector.pop(row, None)
            self.raw_words.pop(row, None)
        for row, chunk in changes.freed_chunks.tolist():
            del self.chunk[row, chunk]  # a chunk that is not stored must not be freed
        self.rows.update(zip(changes.ids, changes.id_rows.tolist(), strict=True))
        self.x.update(zip(changes.feature_rows.tolist(), changes.features, strict=True))
        self.vector.update(zip(changes.vector_rows.tolist(), changes.vectors, strict=True))
        self.raw_words.update(zip(changes.raw_rows.tolist(), changes.raw, strict=True))
        begin = 0
        for (row, chunk), end in zip(changes.chunks.tolist(), changes.chunk_ends.tolist(), strict=True):
            assert 0 < end - begin <= CHUNK
            self.chunk[row, chunk] = changes.targets[begin:end], changes.weights[begin:end]
            begin = end
        self.meta = changes.meta

    def must_equal(self, graph: GraphState) -> None:
        """The same ids, features, arcs and published vectors as the graph, and nothing else."""
        g, raw = graph.arrays, graph.rules.raw
        assert self.rows == rows_by_id(graph)
        alive = set(self.rows.values())
        assert self.x.keys() == alive
        for row in alive:
            np.testing.assert_array_equal(self.x[row], raw(g.X[row]))
        assert self.vector.keys() == {row for row in alive if g.announced[row]}
        for row, vector in self.vector.items():
            np.testing.assert_array_equal(vector, raw(g.P[row]))
        if graph.raw is not None:
            assert self.raw_words.keys() == alive
            words = graph.raw.words(np.array(sorted(alive), np.int32))
            np.testing.assert_array_equal([self.raw_words[row] for row in sorted(alive)] or words, words)
            assert self.meta.encoders == graph.raw.counts(g.alive)
        arcs: dict[int, dict[int, float]] = {}
        for (row, _), (targets, weights) in self.chunk.items():
            own = arcs.setdefault(row, {})
            assert not own.keys() & set(targets.tolist()), "an arc in two chunks"
            own.update(zip(targets.tolist(), weights.tolist(), strict=True))
        assert arcs == arcs_of(graph)
        assert (self.meta.nodes, self.meta.arcs) == (len(alive), sum(map(len, arcs.values())))
        assert self.meta.event_sequence == graph.sequence
        assert self.meta.owed_tombstones == list(graph.owed_tombstones)

    # read as a store

    def ids(self) -> Iterator[tuple[list[str], np.ndarray]]:
        yield list(self.rows), np.array(list(self.rows.values()), np.int32)

    def features(self) -> Iterator[StoredRows]:
        yield self._stored(self.x)

    def vectors(self) -> Iterator[StoredRows]:
        yield self._stored(self.vector)

    def raw(self) -> Iterator[StoredRaw]:
        rows = np.array(list(self.raw_words), np.int32)
        yield StoredRaw(
            rows,
            np.array(list(self.raw_words.values()), np.int32).reshape(len(rows), 2 + self.meta.raw_features),
        )

    def _stored(self, part: dict[int, np.ndarray]) -> StoredRows:
        values = np.array(list(part.values()), np.float32).reshape(len(part), self.meta.features)
        return StoredRows(np.array(list(part), np.int32), values)

    def arcs(self) -> Iterator[StoredArcs]:
        for key in sorted(self.chunk, reverse=True):  # no particular order
            targets, weights = self.chunk[key]
            ends = np.array([len(targets)], np.int64)
            yield StoredArcs(np.array([key], np.int32), ends, targets, weights)


def arcs_of(graph: GraphState) -> dict[int, dict[int, float]]:
    """{row: {target row: weight}}, rows without arcs left out."""
    a = graph.arrays.rows
    found = {}
    for row in graph.rows().tolist():
        part = slice(a.offset[row], a.offset[row] + a.length[row])
        if a.length[row]:
            found[row] = dict(zip(a.target[part].tolist(), a.weight[part].tolist(), strict=True))
    return found


def named_arcs(graph: GraphState) -> dict[tuple[str, str], float]:
    """{(id, target id): weight}, whatever the rows."""
    names = {row: node for node, row in rows_by_id(graph).items()}
    return {
        (names[row], names[target]): weight
        for row, own in arcs_of(graph).items()
        for target, weight in own.items()
    }
