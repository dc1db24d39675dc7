"""Graphs behind their own door, for the benchmarks that go the way of records; and what is promised of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from dgdm.diffusion.exact import transition
from dgdm.state.graph import GraphState
from dgdm.state.id_table import rows_of
from dgdm.state.rules import Rules

from .kernel_graphs import ALPHA
from .records import name_of

FEATURES, ACCURACY = 32, 0.01
AT_ONCE = 10_000  # vectors of a publication


def new_state() -> GraphState:
    """An empty graph."""
    return GraphState(Rules(FEATURES, np.full(FEATURES, ACCURACY), np.zeros(FEATURES)), ALPHA)


def publish(graph: GraphState) -> None:
    """Everything that moved, a piece at a time."""
    while graph.moved_count:
        graph.acknowledge(graph.gather(AT_ONCE))


def certified_error(graph: GraphState, x: Any, edges: Any, weights: Any) -> float:
    """‖R‖∞/α + ‖H − P‖∞ of what consumers hold, with R from one product in float64 of the graph that was given."""
    rows = rows_of(graph.ids, [name_of(node) for node in range(len(x))])
    width = x.shape[1]
    h = graph.arrays.H[rows, :width].astype(np.float64)
    gap = float(np.abs(h - graph.arrays.P[rows, :width]).max())
    ends = np.concatenate([edges, edges[:, ::-1]])
    p = transition(ends[:, 0], ends[:, 1], np.concatenate([weights, weights]), len(x))
    following = (1 - ALPHA) * (p @ h)
    following += ALPHA * x
    following -= h
    return float(np.abs(following).max()) / ALPHA + gap
