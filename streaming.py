"""StreamingDGDM: a moving graph and its embeddings in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .diffusion.exact import Certificate, certify
from .schemas.events import (
    AddEdge,
    AddNode,
    GraphEvent,
    RemoveEdge,
    RemoveNode,
    SetFeatures,
    as_features,
    as_weight,
    encode_event,
)
from .schemas.ids import parse_id
from .state import open_store
from .state.collecting import collect_all
from .state.graph import GraphState
from .state.id_table import ids_of
from .state.loading import restore
from .state.recovery import take_ownership
from .state.rules import Rules
from .state.solution import solve
from .state.store import Meta

Id = str | int
Vector = NDArray[np.float32]


class Changes(NamedTuple):
    """What moved by more than half the accuracy since it was last returned."""

    updated: dict[str, Vector]
    removed: list[str]


class StreamingDGDM:
    """A graph whose embeddings H = αX + (1−α) P H follow its events, within `accuracy` (L∞, feature units).

    Methods raise InvalidEvent (a ValueError) that names the bad value, KeyError for unknown ids.
    """

    def __init__(
        self,
        features: int,
        alpha: float = 0.15,
        accuracy: float | Sequence[float] = 0.01,
        directed: bool = False,
        aggregate: Literal["in", "out"] = "in",
        offset: float | Sequence[float] = 0.0,
        unknown_nodes: Literal["create", "reject"] = "create",
        max_nodes: int | None = None,
        max_edges: int | None = None,
        allow_floor: bool = False,
    ) -> None:
        if features < 1:
            raise ValueError(f"features = {features}: a node has at least one")
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha = {alpha} is not in (0, 1]")
        tolerance = _columns("accuracy", accuracy, features)
        if not (np.isfinite(tolerance) & (tolerance > 0)).all():
            raise ValueError(f"accuracy = {accuracy} must be finite and above 0")
        rules = Rules(
            features,
            tolerance,
            _columns("offset", offset, features),
            directed,
            aggregate,
            unknown_nodes,
            max_nodes,
            max_edges,
            allow_floor,
        )
        self.graph = GraphState(rules, alpha)
        self._moved = asyncio.Event()

    def add_node(self, node: Id, features: Any = None) -> None:
        """A node with features [F], zeros by default; new features if it exists."""
        self.apply(AddNode(parse_id(node), None if features is None else as_features(features)))

    def set_features(self, node: Id, features: Any) -> None:
        """New features [F]."""
        self.apply(SetFeatures(parse_id(node), as_features(features)))

    def remove_node(self, node: Id) -> None:
        """Remove a node and its edges; nothing if there is none."""
        self.apply(RemoveNode(parse_id(node)))

    def add_edge(
        self, source: Id, target: Id, weight: float = 1.0, op: Literal["set", "add"] = "set"
    ) -> None:
        """Set an edge's weight, or add to it."""
        if op not in ("set", "add"):
            raise ValueError(f"op = {op!r} is neither 'set' nor 'add'")
        self.apply(AddEdge(parse_id(source), parse_id(target), as_weight(weight), op))

    def remove_edge(self, source: Id, target: Id) -> None:
        """Remove an edge; nothing if there is none."""
        self.apply(RemoveEdge(parse_id(source), parse_id(target)))

    def apply(self, update: GraphEvent) -> None:
        """Any event: repaired at once, pushed by `incremental_diffuse`."""
        self.apply_all([update])

    def apply_all(self, updates: Sequence[GraphEvent]) -> None:
        """Many events at once. Raises InvalidEvent for the first bad one; the good ones are applied."""
        applied = self.graph.apply([encode_event(update) for update in updates], push=False)
        self._moved.set()
        if applied.refused:
            raise applied.refused[0][1]

    def incremental_diffuse(self) -> Changes:
        """Bring the affected embeddings back within the accuracy; those that moved by more than half of it."""
        self.graph.push()
        publication = self.graph.gather(max(1, self.graph.moved_count))
        self.graph.acknowledge(publication)
        removed = [node for node in publication.tombstones if node not in self]
        return Changes(dict(zip(publication.ids, publication.vectors, strict=True)), removed)

    async def subscribe(self) -> AsyncIterator[Changes]:
        """Changes as they come."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            changes = self.incremental_diffuse()
            if changes.updated or changes.removed:
                yield changes

    def embedding(self, node: Id) -> Vector:
        """One vector [F], within `error_bound`. Raises KeyError."""
        self.graph.push()
        row = self.graph.row_of(parse_id(node))
        if row is None:
            raise KeyError(node)
        return self.graph.rules.raw(self.graph.arrays.H[row])

    def embeddings(self) -> tuple[list[str], Vector]:
        """All ids and their vectors [n, F]."""
        self.graph.push()
        rows = self.graph.rows()
        return ids_of(self.graph.ids, rows), self.graph.rules.raw(self.graph.arrays.H[rows])

    @property
    def error_bound(self) -> list[float]:
        """What the vectors last returned are within, per column, in feature units."""
        return self.graph.bound()

    @property
    def counters(self) -> dict[str, int]:
        """Rows visited, pushes, arc updates, …: locality can be seen."""
        return self.graph.counters

    def weight(self, source: Id, target: Id) -> float | None:
        """Weight of an edge, or None."""
        return self.graph.weight(parse_id(source), parse_id(target))

    def __len__(self) -> int:
        return self.graph.nodes

    def __contains__(self, node: object) -> bool:
        return isinstance(node, str) and self.graph.row_of(node) is not None

    def certify(self) -> Certificate:
        """The exact solution in float64 against the vectors last returned."""
        exact = solve(self.graph)
        g, width = self.graph.arrays, self.graph.rules.features
        rows = self.graph.rows()
        rows = rows[g.announced[rows] == 1]
        ids = ids_of(self.graph.ids, rows)
        held = self.graph.rules.raw(g.P[rows]).astype(np.float64)
        truth = np.array([exact[node] for node in ids]).reshape(len(ids), width)
        return certify(ids, truth, held, self.graph.bound())

    def save(self, path: str | Path) -> None:
        """Everything into one new SQLite file. Raises FileExistsError."""
        if Path(path).exists():
            raise FileExistsError(f"{path} exists: name a new file")
        store = open_store(f"sqlite:///{path}", "saved")
        try:
            owner = take_ownership(store, "saved")
            rules = self.graph.rules
            meta = Meta(
                rules.features,
                rules.directed,
                rules.aggregate,
                1,
                self.graph.alpha,
                rules.accuracy.tolist(),
                rules.offset.tolist(),
            )
            parts = list(collect_all(self.graph, meta))
            store.rewrite(owner._replace(sequence=owner.sequence + 1), owner, parts)
        finally:
            store.close()

    @classmethod
    def load(cls, path: str | Path) -> StreamingDGDM:
        """What `save` wrote. Raises FileNotFoundError, StoreError."""
        if not Path(path).exists():
            raise FileNotFoundError(f"there is no file {path}")
        store = open_store(f"sqlite:///{path}", "saved")
        try:
            meta = store.meta()
            if meta is None:
                raise ValueError(f"{path} holds no saved graph")
            aggregate: Any = meta.aggregate
            loaded = cls(meta.features, meta.alpha, meta.accuracy, meta.directed, aggregate, meta.offset)
            restore(loaded.graph, store, meta)
        finally:
            store.close()
        return loaded


def _columns(name: str, value: float | Sequence[float], features: int) -> NDArray[np.float64]:
    columns = (
        np.broadcast_to(np.asarray(value, np.float64), (features,))
        if np.ndim(value) == 0
        else np.asarray(value)
    )
    if columns.shape != (features,):
        raise ValueError(f"{name} has {np.size(value)} columns and the graph {features}")
    return columns.astype(np.float64)
