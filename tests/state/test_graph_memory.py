"""Memory by structure: no less than what must be there, and given back when nodes go."""

from __future__ import annotations

import numpy as np
from graphtools import feed

from dgdm.schemas.events import AddEdge, AddNode, GraphEvent, RemoveNode
from dgdm.state.graph import GraphState
from dgdm.state.memory import memory_of
from dgdm.state.rules import Rules

NODES, DEGREE, FEATURES = 3_000, 10, 5
PADDED = 8  # columns a row of five features has


def test_structures_hold_what_the_graph_has_and_give_it_back() -> None:
    graph = GraphState(Rules(FEATURES, np.full(FEATURES, 0.01), np.zeros(FEATURES)), 0.15)
    random = np.random.default_rng(1)
    assert memory_of(graph)["vectors"] == memory_of(graph)["arcs"] == 0
    events: list[GraphEvent] = [AddNode(f"node-{i}", np.ones(FEATURES, np.float32)) for i in range(NODES)]
    pairs = random.integers(0, NODES, (NODES * DEGREE // 2, 2)).tolist()
    events += [AddEdge(f"node-{a}", f"node-{b}") for a, b in pairs]
    assert not feed(graph, events)
    full = memory_of(graph)
    assert full["vectors"] == 4 * NODES * PADDED * 4  # X, H, R, P
    assert 80 * NODES <= full["rows"] <= 120 * NODES
    assert 8 * graph.arcs <= full["arcs"] <= 4 * 8 * graph.arcs + 16 * 2**21
    assert full["ids"] >= sum(len(f"node-{i}") + 16 for i in range(NODES))
    feed(graph, [RemoveNode(f"node-{i}") for i in range(NODES)])
    for _ in range(200):  # compaction is done in small steps, with batches
        feed(graph, [AddNode("last", None)])
    assert memory_of(graph)["arcs"] == 0
