"""The kernels once more, in the dumbest possible way: dicts, float64, dense matrices. Slow, and plainly right.

Rows are keys. `w[u][v]` is the weight of the arc u → v; weights are float32 values, everything else is float64.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

FEATURES_CHANGED, ARCS_CHANGED, VECTOR_CHANGED, ID_CHANGED = 1, 2, 4, 8
CHUNK = 256


class Op(NamedTuple):
    """One operation of a batch: add, features, remove (u), set, grow, unset (u → v)."""

    kind: str
    u: int
    v: int = 0
    w: float = 0.0
    x: np.ndarray | None = None


class Graph:
    """Rows that are alive are the keys of `x`."""

    def __init__(self, features: int, alpha: float, *, directed: bool) -> None:
        self.features, self.alpha, self.directed = features, alpha, directed
        self.x: dict[int, np.ndarray] = {}
        self.h: dict[int, np.ndarray] = {}
        self.r: dict[int, np.ndarray] = {}
        self.p: dict[int, np.ndarray] = {}
        self.w: dict[int, dict[int, float]] = {}
        self.announced: set[int] = set()
        self.unknown: set[int] = set()
        self.moved: set[int] = set()
        self.generation: Counter[int] = Counter()
        self.dirty: Counter[int] = Counter()

    # -- by definition

    @property
    def arcs(self) -> int:
        """How many; an undirected edge is two, a self loop one."""
        return sum(len(own) for own in self.w.values())

    @property
    def edges(self) -> int:
        """How many an event can name."""
        loops = sum(u in own for u, own in self.w.items())
        return self.arcs if self.directed else (self.arcs + loops) // 2

    def columns(self) -> dict[int, dict[int, float]]:
        """{v: {u: weight}}: the same arcs by their target."""
        found: dict[int, dict[int, float]] = {u: {} for u in self.x}
        for u, own in self.w.items():
            for v, weight in own.items():
                found[v][u] = weight
        return found

    def transition(self) -> tuple[list[int], np.ndarray]:
        """Rows, and P [n, n] for them in that order."""
        rows = sorted(self.x)
        p = np.zeros((len(rows), len(rows)))
        for i, u in enumerate(rows):
            total = sum(self.w[u].values())
            for j, v in enumerate(rows):
                p[i, j] = self.w[u].get(v, 0.0) / total if self.w[u] else float(u == v)
        return rows, p

    def stacked(self, part: dict[int, np.ndarray]) -> np.ndarray:
        """[n, F], rows in order."""
        return np.array([part[u] for u in sorted(self.x)]).reshape(len(self.x), self.features)

    def resolvent(self) -> np.ndarray:
        """(I − (1−α) P)⁻¹ [n, n]"""
        _, p = self.transition()
        return np.linalg.inv(np.eye(len(p)) - (1 - self.alpha) * p)

    def exact(self) -> np.ndarray:
        """H* [n, F]"""
        return self.alpha * self.resolvent() @ self.stacked(self.x)

    def residual(self, u: int) -> np.ndarray:
        """R_u = αX + (1−α)PH − H from its definition."""
        total = sum(self.w[u].values())
        mean = sum((weight / total * self.h[v] for v, weight in self.w[u].items()), np.zeros(self.features))
        mean = mean if self.w[u] else self.h[u]
        return self.alpha * self.x[u] + (1 - self.alpha) * mean - self.h[u]

    # -- operations

    def apply(self, op: Op) -> str:
        """APPLIED, NOTHING, LOST or OVERFLOW."""
        if op.kind == "add":
            return self.add_row(op.u, op.x)
        if op.kind == "features":
            return self.set_features(op.u, op.x)
        if op.kind == "remove":
            return self.remove_row(op.u)
        return self.change_arc(op)

    def add_row(self, u: int, x: np.ndarray | None) -> str:
        """A new node: absorbing, H = X, R = 0, never published."""
        value = np.zeros(self.features) if x is None else x.astype(np.float64)
        self.x[u], self.h[u], self.r[u] = value, value, np.zeros(self.features)
        self.p[u], self.w[u] = np.zeros(self.features), {}
        self.announced.discard(u)
        self.unknown.discard(u)
        self.moved.add(u)
        self.dirty[u] |= ID_CHANGED | FEATURES_CHANGED
        return "APPLIED"

    def set_features(self, u: int, x: np.ndarray | None) -> str:
        """R_u from its definition."""
        assert x is not None
        if (self.x[u] == x).all():
            return "NOTHING"
        self.x[u] = x.astype(np.float64)
        self.r[u] = self.residual(u)
        self.dirty[u] |= FEATURES_CHANGED
        return "APPLIED"

    def change_arc(self, op: Op) -> str:
        """Both sides of an undirected edge."""
        before = self.w[op.u].get(op.v, 0.0)
        with np.errstate(over="ignore"):
            grown = float(np.float32(before) + np.float32(op.w))
        after = {"set": op.w, "grow": grown, "unset": 0.0}[op.kind]
        if not np.isfinite(after):
            return "OVERFLOW"
        if after == before:
            return "LOST" if op.kind == "grow" else "NOTHING"
        for u, v in {(op.u, op.v), (op.u, op.v) if self.directed else (op.v, op.u)}:
            if after > 0:
                self.w[u][v] = after
            else:
                del self.w[u][v]
            self.r[u] = self.residual(u)
            self.dirty[u] |= ARCS_CHANGED
        return "APPLIED"

    def remove_row(self, v: int) -> str:
        """Every arc at v goes, and then v."""
        pointing = [u for u in self.w if v in self.w[u] and u != v]
        for u in pointing:
            del self.w[u][v]
            self.dirty[u] |= ARCS_CHANGED
        self.dirty[v] |= ARCS_CHANGED | FEATURES_CHANGED
        for part in (self.x, self.h, self.r, self.p, self.w):
            part.pop(v)
        for u in pointing:
            self.r[u] = self.residual(u)
        self.generation[v] += 1
        return "APPLIED"

    # -- push

    def push_row(self, u: int) -> None:
        """H_u += d, R_u = 0, R_t += (1−α) P_tu d for every t ≠ u."""
        rows, p = self.transition()
        i = rows.index(u)
        d = self.r[u] / (1 - (1 - self.alpha) * p[i, i])
        self.h[u] = self.h[u] + d
        self.r[u] = np.zeros(self.features)
        self.moved.add(u)
        for j, t in enumerate(rows):
            if t != u:
                self.r[t] = self.r[t] + (1 - self.alpha) * p[j, i] * d

    def push(self, epsilon: float) -> int:
        """Push the largest row until none is above ε; how many pushes."""
        pushes = 0
        while self.x:
            u = max(self.r, key=lambda row: np.abs(self.r[row]).max())
            if np.abs(self.r[u]).max() <= epsilon:
                break
            self.push_row(u)
            pushes += 1
        return pushes

    # -- upkeep

    def scrub(self, u: int) -> float:
        """R_u from its definition; how far the maintained one was off."""
        exact = self.residual(u)
        drift = float(np.abs(exact - self.r[u]).max())
        self.r[u] = exact
        return drift

    def gap(self, u: int) -> float:
        """|H_u − P_u|∞"""
        return float(np.abs(self.h[u] - self.p[u]).max())

    def wanted(self, tau: float) -> set[int]:
        """Rows to publish: those that may have moved, and did, or that consumers do not know."""
        known = self.announced - self.unknown
        return {u for u in self.moved & self.x.keys() if u not in known or self.gap(u) > tau}

    def acknowledge(self, u: int, generation: int, vector: np.ndarray) -> None:
        """Consumers hold the vector, unless the row belongs to another node by now."""
        if u in self.x and self.generation[u] == generation:
            self.p[u] = vector.astype(np.float64)
            self.announced.add(u)
            self.unknown.discard(u)
            self.dirty[u] |= VECTOR_CHANGED


def theta_form(
    r: np.ndarray, rho: np.ndarray, total: float, before: float, after: float, others: int
) -> np.ndarray:
    """R_u after an arc's weight changed from `before` to `after`, `total` being the sum of weights before.

    ρ is the residual that row u would have if the arc's target were its only neighbour; `others`: how many arcs
    row u has beside this one.
    """
    if others == 0 and after > 0:
        return rho
    theta = (after - before) / (total + after - before)
    return r + theta * (rho - r)


class Lists:
    """Slack lists as lists of pairs, and what a store holds of them in chunks."""

    def __init__(self) -> None:
        self.lists: dict[int, list[tuple[int, float]]] = {}

    def find(self, u: int, v: int) -> int | None:
        """Place of v in the list of u."""
        return next((i for i, (t, _) in enumerate(self.lists.get(u, [])) if t == v), None)

    def append(self, u: int, v: int, w: float) -> None:
        """At the end."""
        self.lists.setdefault(u, []).append((v, w))

    def drop(self, u: int, i: int) -> None:
        """The last one takes its place."""
        own = self.lists[u]
        own[i] = own[-1]
        own.pop()

    def change(self, u: int, i: int, w: float) -> None:
        """A new weight."""
        self.lists[u][i] = (self.lists[u][i][0], w)

    def free(self, u: int) -> None:
        """The whole list."""
        self.lists.pop(u, None)

    def chunks(self) -> dict[tuple[int, int], list[tuple[int, float]]]:
        """{(row, chunk): arcs}, as a checkpoint cuts them."""
        return {
            (u, i // CHUNK): own[i : i + CHUNK]
            for u, own in self.lists.items()
            for i in range(0, len(own), CHUNK)
        }


def diffuse(p: np.ndarray, x: np.ndarray, alpha: float, steps: int | None) -> np.ndarray:
    """Z_0 = X, Z_{k+1} = αX + (1−α) P Z_k; or the fixed point by a dense solution."""
    if steps is None:
        return np.linalg.solve(np.eye(len(p)) - (1 - alpha) * p, alpha * x)
    z = x
    for _ in range(steps):
        z = alpha * x + (1 - alpha) * p @ z
    return z
