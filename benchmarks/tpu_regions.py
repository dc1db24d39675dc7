"""Montevideo's 675 bus stops, hour by hour: a region in int8, push, and sparse float32 sweeps, in one run."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from dgdm import StreamingDGDM
from dgdm.examples.buses import DAY, Buses, buses
from dgdm.tpu.accelerator import Cpu
from dgdm.tpu.region import Region, coupling_of

ALPHA, ACCURACY = 0.15, 0.01
EPSILON = ALPHA * ACCURACY / 2
MOST = 30  # passes of an hour; then plain sweeps go on


class RegionWay:
    """All stops are one region; residuals are those of the definition, in float32."""

    def __init__(self, table: Buses) -> None:
        p = table.transition()
        n = len(table.stops)
        self.region = Region(np.arange(n), p.toarray(), ALPHA, Cpu(), columns=DAY)
        self.coupling = coupling_of(p, np.arange(n), ALPHA)
        self.h = self.x = table.features(0)
        self.matrix = self.coupling.matrix  # (1−α) P − I

    def tick(self, x: np.ndarray) -> int:
        """Passes of an hour."""
        r = np.float32(ALPHA) * x + self.matrix @ self.h
        passes = 0
        while float(np.abs(r).max()) > EPSILON:
            done = self.region.settle(self.coupling, r) if passes < MOST else None
            if done is None or not done.accepted.all():
                self.h = self.h + r
            else:
                self.h = self.h + done.delta
            r = np.float32(ALPHA) * x + self.matrix @ self.h
            passes += 1
        return passes


class SparseWay:
    """H += R until the residual is small: what a library of sparse matrices does."""

    def __init__(self, table: Buses) -> None:
        n = len(table.stops)
        self.h = table.features(0)
        self.matrix = coupling_of(table.transition(), np.arange(n), ALPHA).matrix

    def tick(self, x: np.ndarray) -> int:
        """Sweeps of an hour."""
        sweeps = 0
        while True:
            r = np.float32(ALPHA) * x + self.matrix @ self.h
            if float(np.abs(r).max()) <= EPSILON:
                return sweeps
            self.h = self.h + r
            sweeps += 1


class PushWay:
    """The stream's own way: 675 events, then push."""

    def __init__(self, table: Buses) -> None:
        self.graph = StreamingDGDM(features=DAY, alpha=ALPHA, accuracy=ACCURACY)
        self.names = [str(stop) for stop in table.stops]
        first = table.features(0)
        for name, x in zip(self.names, first, strict=True):
            self.graph.add_node(name, x)
        for (a, b), metres in zip(table.links.tolist(), table.metres.tolist(), strict=True):
            self.graph.add_edge(self.names[a], self.names[b], 1.0 / metres)
        self.graph.graph.push()

    def change(self, x: np.ndarray) -> None:
        """The events of an hour."""
        for name, row in zip(self.names, x, strict=True):
            self.graph.set_features(name, row)

    def tick(self) -> int:
        """Pushes of an hour."""
        before = self.graph.counters["pushes"]
        self.graph.graph.push()
        return self.graph.counters["pushes"] - before

    @property
    def h(self) -> np.ndarray:
        """[675, 24]."""
        ids, vectors = self.graph.embeddings()
        place = {node: i for i, node in enumerate(ids)}
        return vectors[[place[name] for name in self.names]]


def montevideo(hours: int | None = None) -> dict[str, Any]:
    """Every hour by each way, held against the exact answer in float64."""
    table = buses()
    count = table.hours if hours is None else min(hours, table.hours)
    n = len(table.stops)
    exact = ALPHA * np.linalg.inv(np.eye(n) - (1 - ALPHA) * table.transition().toarray())
    region, spread, push = RegionWay(table), SparseWay(table), PushWay(table)
    seen: dict[str, list[tuple[int, float, float]]] = {"region": [], "sparse": [], "push": []}
    for hour in range(count):
        x = table.features(hour)
        truth = exact @ x
        push.change(x)
        for name, tick, way in (
            ("region", lambda x=x: region.tick(x), region),
            ("sparse", lambda x=x: spread.tick(x), spread),
            ("push", push.tick, push),
        ):
            begun = time.perf_counter()
            passes = tick()
            took = 1000 * (time.perf_counter() - begun)
            seen[name].append((passes, took, float(np.abs(way.h - truth).max())))
    chosen = region.region.baked.chosen
    found: dict[str, Any] = {
        "stops": n,
        "columns": DAY,
        "hours": count,
        "accuracy": ACCURACY,
        "baked": {"convolutions": chosen.parts, "contraction": chosen.contraction},
    }
    for name, ticks in seen.items():
        steps, ms, errors = (np.array(values) for values in zip(*ticks, strict=True))
        unit = {"region": "passes", "sparse": "sweeps", "push": "pushes"}[name]
        found[name] = {
            f"{unit}_per_tick": {"median": float(np.median(steps)), "max": int(steps.max())},
            "ms_per_tick": {
                "p10": round(float(np.percentile(ms, 10)), 3),
                "median": round(float(np.median(ms)), 3),
                "p90": round(float(np.percentile(ms, 90)), 3),
            },
            "worst_error": float(errors.max()),
            "certified_hours": int((errors <= ACCURACY).sum()),
        }
    return found
