"""A graph of dicts, fed with raw records, and its exact diffusion in float64."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from .foreign_wire import Event, read

FLOOR = 2.5e-5  # share of a feature's size below which float32 cannot keep an accuracy
FARTHEST = float(np.finfo(np.float32).max) / 8  # from its offset, in units of the first column
SMALL = 2_000  # rows up to which a direct solve costs nothing
Edge = tuple[str, str]


@dataclass
class Oracle:
    """The graph after some records. Without `accuracy` there is no float32 floor."""

    features: int
    alpha: float = 0.15
    directed: bool = False
    aggregate: str = "in"
    unknown_nodes: str = "create"
    max_nodes: int | None = None
    max_edges: int | None = None
    accuracy: Any = None  # one number, or one for each column
    offset: Any = 0.0
    sequence: int = 0  # events applied, those that changed nothing included
    x: dict[str, np.ndarray] = field(default_factory=dict)  # float32 [F]
    w: dict[Edge, np.float32] = field(default_factory=dict)
    touching: defaultdict[str, set[Edge]] = field(default_factory=lambda: defaultdict(set))

    def apply(self, value: bytes | None) -> str | None:
        """Apply one record: None, or the slug that says why it was refused and changed nothing."""
        event = read(value)
        if isinstance(event, str):
            return event
        refused = self._refusal(event)
        if refused is None:
            self.sequence += 1
            self._apply(event)
        return refused

    def edge(self, source: str, target: str) -> Edge:
        """The key of an edge in `w`."""
        return (source, target) if self.directed or source <= target else (target, source)

    def weights(self) -> dict[Edge, float]:
        """Weight by arc (u, v) of P: u averages over v. An undirected edge is two arcs, a self loop one."""
        arcs = {}
        for (source, target), weight in self.w.items():
            turned = self.directed and self.aggregate == "in"
            arcs[(target, source) if turned else (source, target)] = float(weight)
            if not self.directed:
                arcs[target, source] = float(weight)
        return arcs

    def exact(self) -> dict[str, np.ndarray]:
        """H = αX + (1−α)PH in float64, by id."""
        ids = sorted(self.x)
        if not ids:
            return {}
        place = {node: i for i, node in enumerate(ids)}
        arcs = self.weights()
        u = np.array([place[node] for node, _ in arcs], np.int64)
        v = np.array([place[node] for _, node in arcs], np.int64)
        n = len(ids)
        matrix = sparse.csr_array((np.fromiter(arcs.values(), np.float64, len(arcs)), (u, v)), shape=(n, n))
        total = matrix.sum(axis=1)
        absorbing = total == 0
        scale = 1 / np.where(absorbing, 1, total)
        p = (sparse.diags_array(scale) @ matrix + sparse.diags_array(absorbing.astype(np.float64))).tocsr()
        x = np.array([self.x[node] for node in ids], np.float64)
        h = solve(p, x, self.alpha)
        return dict(zip(ids, h, strict=True))

    def _refusal(self, event: Event) -> str | None:
        """The rules that need to know the graph, in their order."""
        missing = {node for node in event.nodes if node not in self.x}
        if event.kind in ("RemoveNode", "RemoveEdge"):
            return None
        edge = self.edge(*event.nodes) if event.kind == "AddEdge" else None
        if edge is not None and edge not in self.w and self._full(len(self.w), 1, self.max_edges):
            return "max-edges"
        if event.features is not None:
            if len(event.features) != self.features:
                return "wrong-length"
            too_large = self._too_large(event.features)
            if too_large is not None:
                return too_large
        if missing and event.kind != "AddNode" and self.unknown_nodes == "reject":
            return "unknown-node"
        if missing and self._full(len(self.x), len(missing), self.max_nodes):
            return "max-nodes"
        if edge is not None and not np.isfinite(self._added(edge, event)):
            return "weight-overflow"
        return None

    @staticmethod
    def _full(count: int, more: int, limit: int | None) -> bool:
        return limit is not None and count + more > limit

    def _too_large(self, x: np.ndarray) -> str | None:
        """The first column that is too far from its offset decides."""
        if self.accuracy is None:
            return None
        accuracy = np.broadcast_to(np.asarray(self.accuracy, np.float64), x.shape)
        size = np.abs(x.astype(np.float64) - np.asarray(self.offset, np.float64))
        for far, own in zip(size, accuracy, strict=True):
            if far > min(own / FLOOR, FARTHEST * own / accuracy[0]):
                return "not-finite" if far > FARTHEST * own / accuracy[0] else "float32-floor"
        return None

    def _added(self, edge: Edge, event: Event) -> np.float32:
        if event.op == "set":
            return event.weight
        with np.errstate(over="ignore"):
            return np.float32(self.w.get(edge, np.float32(0)) + event.weight)

    def _apply(self, event: Event) -> None:
        if event.kind == "RemoveNode":
            (node,) = event.nodes
            self.x.pop(node, None)
            for edge in list(self.touching.pop(node, ())):
                self._drop(edge)
        elif event.kind == "RemoveEdge":
            self._drop(self.edge(*event.nodes))
        else:
            for node in event.nodes:
                self.x.setdefault(node, np.zeros(self.features, np.float32))
            if event.features is not None:
                self.x[event.nodes[0]] = event.features
            if event.kind == "AddEdge":
                edge = self.edge(*event.nodes)
                self.w[edge] = self._added(edge, event)
                for node in edge:
                    self.touching[node].add(edge)

    def _drop(self, edge: Edge) -> None:
        if self.w.pop(edge, None) is not None:
            for node in edge:
                self.touching[node].discard(edge)


def solve(p: sparse.csr_array, x: np.ndarray, alpha: float, small: int = SMALL) -> np.ndarray:
    """H [n, F] with H = αX + (1−α)PH: by sparse LU up to `small` rows, else by iteration.

    The iteration ends when its residual proves an error below 1e-12 of the largest feature.
    """
    n = len(x)
    if n <= small:
        return linalg.splu((sparse.eye_array(n) - (1 - alpha) * p).tocsc()).solve(alpha * x)
    h, enough = x.copy(), 1e-12 * max(1e-300, float(np.abs(x).max(initial=0)))
    for _ in range(100_000):
        following = alpha * x + (1 - alpha) * (p @ h)
        error = float(np.abs(following - h).max(initial=0)) / alpha
        h = following
        if error <= enough:
            return h
    raise ArithmeticError(f"no convergence at alpha = {alpha}: error {error}")
