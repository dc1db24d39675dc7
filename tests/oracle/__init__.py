"""The independent truth: decodes with msgpack and json, keeps a dict graph, solves with SciPy. Imports no dgdm."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np
from scipy import sparse
from scipy.sparse import linalg


@dataclass
class Oracle:
    """A graph as dicts; `apply` takes the raw value of one record."""

    features: int
    alpha: float = 0.15
    directed: bool = False
    aggregate: str = "in"
    sequence: int = 0
    x: dict[str, np.ndarray] = field(default_factory=dict)
    w: dict[tuple[str, str], np.float32] = field(default_factory=dict)

    def apply(self, value: bytes) -> None:
        """One valid event."""
        event = json.loads(value) if value[:1] == b"{" else msgpack.unpackb(value)
        kind, self.sequence = event["type"], self.sequence + 1
        if kind in ("AddEdge", "RemoveEdge"):
            edge = self.edge(str(event["source"]), str(event["target"]))
            if kind == "RemoveEdge":
                self.w.pop(edge, None)
                return
            for node in edge:
                self.x.setdefault(node, np.zeros(self.features, np.float32))
            weight = np.float32(event.get("weight", 1.0))
            if event.get("op", "set") == "add":
                weight = np.float32(self.w.get(edge, np.float32(0)) + weight)
            self.w[edge] = weight
        elif kind == "RemoveNode":
            node = str(event["id"])
            self.x.pop(node, None)
            self.w = {edge: weight for edge, weight in self.w.items() if node not in edge}
        else:
            node, features = str(event["id"]), event.get("features")
            if features is not None:
                raw = (
                    np.frombuffer(features, "<f4")
                    if isinstance(features, bytes)
                    else np.array(features, np.float32)
                )
                self.x[node] = raw
            else:
                self.x.setdefault(node, np.zeros(self.features, np.float32))

    def edge(self, source: str, target: str) -> tuple[str, str]:
        """The key of an edge."""
        return (source, target) if self.directed or source <= target else (target, source)

    def exact(self) -> dict[str, np.ndarray]:
        """H = αX + (1−α)PH by a direct solve in float64."""
        ids = sorted(self.x)
        place = {node: i for i, node in enumerate(ids)}
        n = len(ids)
        if n == 0:
            return {}
        a = sparse.lil_array((n, n))
        for (s, t), weight in self.w.items():
            u, v = (t, s) if self.directed and self.aggregate == "in" else (s, t)
            a[place[u], place[v]] = float(weight)
            if not self.directed:
                a[place[v], place[u]] = float(weight)
        a = a.tocsr()
        total = np.asarray(a.sum(axis=1)).ravel()
        scale = np.where(total > 0, 1 / np.where(total > 0, total, 1), 0)
        p = sparse.diags_array(scale) @ a + sparse.diags_array((total == 0).astype(float))
        x = np.array([self.x[node] for node in ids], np.float64)
        system = (sparse.eye_array(n) - (1 - self.alpha) * p).tocsc()
        h = linalg.spsolve(system, self.alpha * x).reshape(n, self.features)
        return dict(zip(ids, h, strict=True))


def table(records: Any) -> dict[str, np.ndarray]:
    """What a consumer holds after (key, value) records: the last one per key counts."""
    held: dict[str, np.ndarray] = {}
    for key, value in records:
        if value is None:
            held.pop(key.decode(), None)
            continue
        record = json.loads(value) if value[:1] == b"{" else msgpack.unpackb(value)
        vector = record["vector"]
        held[record["id"]] = np.frombuffer(vector, "<f4") if isinstance(vector, bytes) else np.array(vector)
    return held


def largest_error(exact: dict[str, np.ndarray], held: dict[str, np.ndarray]) -> float:
    """L∞ over all nodes; infinite when one is missing or too many."""
    if exact.keys() != held.keys():
        return float("inf")
    return max((float(np.abs(held[node] - h).max()) for node, h in exact.items()), default=0.0)
