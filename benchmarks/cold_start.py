"""A graph from its events: records are repaired without pushing, then one solve, a publication and a certificate.

Records are made a piece at a time and their making is not counted: a log would hold them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dgdm.state.graph import GraphState

from .figures import at_least, at_most, spread, tell, with_goals
from .kernel_graphs import rmat_edges, unit_rows
from .records import edge_records, node_records
from .states import ACCURACY, FEATURES, certified_error, new_state, publish

NODES, EDGES = 1_000_000, 5_000_000
QUICK = (2_000, 10_000)
ROUNDS = 5
EVENTS_PER_SECOND = 150_000  # the solve included


def measure(*, quick: bool) -> dict[str, Any]:
    """Events per second to certified vectors, and what the seconds go into."""
    n, count = QUICK if quick else (NODES, EDGES)
    random = np.random.default_rng(1)
    edges, x = rmat_edges(random, n, count), unit_rows(random, n, FEATURES)
    weights = random.uniform(0.5, 2, count).astype(np.float32)
    _load(new_state(), x[:100], edges[:0], weights[:0])  # loads the kernels
    parts: dict[str, list[float]] = {"nodes": [], "edges": [], "solve": [], "publish": []}
    errors: list[float] = []
    for _ in range(1 if quick else ROUNDS):
        graph = new_state()
        for name, seconds in _load(graph, x, edges, weights).items():
            parts[name].append(seconds)
        errors.append(certified_error(graph, x, edges, weights))
        tell(", ".join(f"{name} {seconds[-1]:.2f} s" for name, seconds in parts.items()))
    rates = [(n + count) / sum(seconds) for seconds in zip(*parts.values(), strict=True)]
    figures = {
        "nodes": n,
        "arcs": 2 * count,
        "features": FEATURES,
        "accuracy": ACCURACY,
        "events_per_s": spread(rates),
        "seconds": {name: spread(seconds) for name, seconds in parts.items()},
        "certified_error": spread(errors),
    }
    goals = {
        "events per second, solve included": at_least(float(np.median(rates)), EVENTS_PER_SECOND),
        "certified error": at_most(max(errors), ACCURACY),
    }
    return with_goals(figures, goals)


def _load(graph: GraphState, x: Any, edges: Any, weights: Any) -> dict[str, float]:
    """Seconds of each part."""
    parts = {
        "nodes": _apply(graph, node_records(x)),
        "edges": _apply(graph, edge_records(edges, weights)),
    }
    begun = time.perf_counter()
    graph.push()
    solved = time.perf_counter()
    publish(graph)
    return {**parts, "solve": solved - begun, "publish": time.perf_counter() - solved}


def _apply(graph: GraphState, pieces: Iterable[Sequence[bytes]]) -> float:
    spent = 0.0
    for records in pieces:
        begun = time.perf_counter()
        graph.apply(records, push=False)
        spent += time.perf_counter() - begun
    return spent
