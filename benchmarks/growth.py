"""What an event costs in graphs of one mean degree, from 10k nodes to 1M; the graphs take turns.

Processor time of the one thread counts, so that others on the machine do not.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

from dgdm.diffusion.arrays import ARC_UPDATES, VISITED, GraphArrays

from .figures import at_most, spread, tell, with_goals
from .kernel_graphs import (
    ALPHA,
    Scratch,
    edge_events,
    ends,
    kinds,
    loaded,
    rmat_edges,
    scratch_for,
    solved,
    stream,
    unit_rows,
)

NODES, QUICK = (10_000, 100_000, 1_000_000), (200, 400, 800)
DEGREE, FEATURES, ACCURACY, BATCH = 10, 32, 0.01, 1_000
ROUNDS, EVENTS = 9, 20_000
SLOWER, MORE = 2.0, 1.2  # the largest graph against the smallest


class Grown(NamedTuple):
    """One of the graphs, and what was seen of it."""

    arrays: GraphArrays
    scratch: Scratch
    edges: Any
    microseconds: list[float]
    visited: list[float]
    arc_updates: list[float]


def measure(*, quick: bool) -> dict[str, Any]:
    """Time, rows visited and arc updates per event."""
    random = np.random.default_rng(1)
    graphs = {n: _graph(random, n) for n in (QUICK if quick else NODES)}
    for turn in range((2 if quick else ROUNDS) + 1):
        for graph in graphs.values():
            _round(graph, random, 1_000 if quick else EVENTS, counted=turn > 0)
    cases = {
        f"{n} nodes": {
            "us_per_event": spread(graph.microseconds),
            "visited_per_event": spread(graph.visited),
            "arc_updates_per_event": spread(graph.arc_updates),
        }
        for n, graph in graphs.items()
    }
    small, *_, large = graphs.values()
    slower = [b / a for a, b in zip(small.microseconds, large.microseconds, strict=True)]
    goals = {
        "time per event, largest against smallest": at_most(float(np.median(slower)), SLOWER),
        "rows visited per event, largest against smallest": at_most(
            float(np.median(large.visited) / np.median(small.visited)), MORE
        ),
        "arc updates per event, largest against smallest": at_most(
            float(np.median(large.arc_updates) / np.median(small.arc_updates)), MORE
        ),
    }
    settings = {"features": FEATURES, "accuracy": ACCURACY, "batch": BATCH, "degree": DEGREE}
    return with_goals({**settings, "cases": cases, "times_smallest": spread(slower)}, goals)


def _graph(random: Any, n: int) -> Grown:
    tell(f"{n} nodes")
    edges = rmat_edges(random, n, n * DEGREE // 2)
    weights = random.uniform(0.5, 2, len(edges)).astype(np.float32)
    arrays = solved(loaded(unit_rows(random, n, FEATURES), edges, weights), ACCURACY)
    return Grown(arrays, scratch_for(arrays), edges, [], [], [])


def _round(graph: Grown, random: Any, count: int, *, counted: bool) -> None:
    g = graph.arrays
    events = edge_events(random, len(g.alive), graph.edges, count)
    kind, both, before = kinds(events), ends(events), g.counters.copy()
    begun = time.thread_time()
    stream(g, graph.scratch, kind, both, events.w, BATCH, ALPHA, ALPHA * ACCURACY / 2, ACCURACY / 2)
    spent = time.thread_time() - begun
    if counted:
        done = (g.counters - before) / count
        graph.microseconds.append(1e6 * spent / count)
        graph.visited.append(float(done[VISITED]))
        graph.arc_updates.append(float(done[ARC_UPDATES]))
