"""The demo's certificate: graph and features from the log's bytes, the exact answer from SciPy in float64.

It shares nothing with what it judges: MessagePack by another library, a dict for the graph, no kernel of dgdm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Doubles = NDArray[np.float64]
TOLERANCE = 1e-10  # of the largest feature: certified error of the exact answer itself


@dataclass
class RebuiltGraph:
    """An undirected graph as plain dicts, from the values of event records in their order."""

    width: int
    features: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    weights: dict[str, dict[str, float]] = field(default_factory=dict)
    events: int = 0

    def apply(self, values: Iterable[bytes | None]) -> None:
        """Raises ValueError for an event the demo does not send."""
        for value in values:
            event = msgpack.unpackb(value)
            match event["type"]:
                case "AddEdge" if event["op"] == "add":
                    self._strengthen(event["source"], event["target"], event["weight"])
                case "AddNode" if event.get("features") is None:
                    self._node(event["id"])
                case "SetFeatures":
                    self._node(event["id"])
                    self.features[event["id"]] = np.frombuffer(event["features"], "<f4")
                case _:
                    raise ValueError(f"the demo sends no such event: {event!r:.200}")
            self.events += 1

    def _node(self, node: str) -> dict[str, float]:
        if node not in self.weights:
            self.weights[node] = {}
            self.features[node] = np.zeros(self.width, np.float32)
        return self.weights[node]

    def _strengthen(self, source: str, target: str, weight: float) -> None:
        """Sums are rounded to float32 after every addition, in the order of the log."""
        there, back = self._node(source), self._node(target)
        there[target] = back[source] = float(np.float32(there.get(target, 0.0) + weight))

    def exact(self, alpha: float) -> dict[str, Doubles]:
        """H = αX + (1−α) P H by iteration, P row-stochastic, rows without edges absorbing: id → [F]."""
        nodes = list(self.weights)
        row = {node: i for i, node in enumerate(nodes)}
        arcs = [(row[u], row[v], w) for u, targets in self.weights.items() for v, w in targets.items()]
        arcs += [(i, i, 1.0) for node, i in row.items() if not self.weights[node]]
        columns = np.array(arcs, np.float64).reshape(-1, 3).T
        rows, targets = columns[0].astype(np.int64), columns[1].astype(np.int64)
        total = np.bincount(rows, columns[2], len(nodes))
        p = sparse.csr_array((columns[2] / total[rows], (rows, targets)), shape=(len(nodes), len(nodes)))
        x = np.array([self.features[node] for node in nodes], np.float64).reshape(len(nodes), self.width)
        h, limit = x, TOLERANCE * max(1.0, float(np.abs(x).max(initial=0.0)))
        while True:
            following = alpha * x + (1 - alpha) * (p @ h)
            moved = float(np.abs(following - h).max(initial=0.0))
            h = following
            if moved / alpha <= limit:
                return dict(zip(nodes, h, strict=True))


@dataclass(frozen=True)
class Verdict:
    """How far a table is from the exact answer."""

    error: float  # largest over nodes and columns, in units of each column's accuracy: kept while ≤ 1
    worst: str  # the node it was found at
    compared: int
    missing: list[str]  # in the graph, not in the table
    extra: list[str]  # in the table, not in the graph

    @property
    def holds(self) -> bool:
        """Whether every vector is within the accuracy, none is missing and none too many."""
        return self.error <= 1 and not self.missing and not self.extra


def compare(
    exact: Mapping[str, Doubles], table: Mapping[str, NDArray[np.float32]], accuracy: list[float]
) -> Verdict:
    """Vectors held against the exact ones. A vector that is not finite is an infinite error."""
    ids = [node for node in exact if node in table]
    difference = np.array([table[node].astype(np.float64) - exact[node] for node in ids])
    units = np.abs(difference.reshape(len(ids), len(accuracy))) / np.array(accuracy)
    errors = np.where(np.isfinite(units), units, np.inf).max(axis=1, initial=0.0)
    at = int(errors.argmax()) if ids else -1
    return Verdict(
        error=float(errors[at]) if ids else 0.0,
        worst=ids[at] if ids else "",
        compared=len(ids),
        missing=[node for node in exact if node not in table],
        extra=[node for node in table if node not in exact],
    )


def rebuilt(width: int, values: Iterable[Any]) -> RebuiltGraph:
    """The graph of these record values."""
    graph = RebuiltGraph(width)
    graph.apply(values)
    return graph
