"""A star: upserts of the edges of its centre, as records, through the graph's own door."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from dgdm.state.graph import GraphState

from .figures import at_least, spread, tell, with_goals
from .kernel_graphs import unit_rows
from .records import edge_records, node_records
from .states import ACCURACY, FEATURES, new_state, publish

LEAVES, QUICK = 1_000_000, 2_000
BATCH, ROUNDS, EVENTS = 1_000, 7, 50_000
UPSERTS = 50_000  # per second


def measure(*, quick: bool) -> dict[str, Any]:
    """Upserts per second; the first round is not counted."""
    leaves, count = (QUICK, 2_000) if quick else (LEAVES, EVENTS)
    graph, random = _star(leaves), np.random.default_rng(2)
    rates: list[float] = []
    before = graph.counters
    for turn in range((2 if quick else ROUNDS) + 1):
        if turn == 1:
            before = graph.counters
        rate = _round(graph, random, leaves, count)
        if turn > 0:
            rates.append(rate)
    events = count * len(rates)
    figures = {
        "leaves": leaves,
        "features": FEATURES,
        "accuracy": ACCURACY,
        "batch": BATCH,
        "upserts_per_s": spread(rates),
        "per_event": {
            name: round((graph.counters[name] - before[name]) / events, 2)
            for name in ("visited", "pushes", "arc_updates", "published")
        },
    }
    return with_goals(figures, {"upserts per second": at_least(float(np.median(rates)), UPSERTS)})


def _star(leaves: int) -> GraphState:
    """Row 0 is the centre; the leaves have an edge to it and nothing else."""
    graph, random = new_state(), np.random.default_rng(1)
    for records in node_records(unit_rows(random, leaves + 1, FEATURES)):
        graph.apply(records, push=False)
    for records in edge_records(*_events(np.arange(1, leaves + 1), random)):
        graph.apply(records, push=False)
    tell(f"a star of {graph.arcs // 2} edges")
    graph.push()
    publish(graph)
    return graph


def _events(leaves: Any, random: Any) -> tuple[Any, Any]:
    edges = np.stack([np.zeros_like(leaves), leaves], axis=1)
    return edges, random.uniform(0.5, 2, len(leaves)).astype(np.float32)


def _round(graph: GraphState, random: Any, leaves: int, count: int) -> float:
    batches = list(edge_records(*_events(random.integers(1, leaves + 1, count), random), BATCH))
    begun = time.perf_counter()
    for records in batches:
        graph.apply(records)
        publish(graph)
    return count / (time.perf_counter() - begun)
