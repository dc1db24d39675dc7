"""Limits are exact, whatever the batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphtools import SHAPES, feed, graph_of, named_arcs, rows_by_id, some_stream
from hypothesis import given
from hypothesis import strategies as st

from dgdm.schemas.events import (
    AddEdge,
    AddNode,
    GraphEvent,
    RemoveEdge,
    RemoveNode,
    SetFeatures,
    encode_event,
)


class Limited:
    """The same rules on a dict, one event at a time."""

    def __init__(self, directed: bool, max_nodes: int | None, max_edges: int | None, unknown: str) -> None:
        self.directed, self.max_nodes, self.max_edges, self.unknown = directed, max_nodes, max_edges, unknown
        self.nodes: set[str] = set()
        self.weights: dict[tuple[str, str], np.float32] = {}
        self.sequence = 0

    def reason(self, event: GraphEvent) -> str | None:
        """Why it is refused; None: it is applied."""
        ends = {event.source, event.target} if isinstance(event, AddEdge) else set()
        if isinstance(event, AddEdge):
            full = self.max_edges is not None and len(self.weights) >= self.max_edges
            if full and self.edge(event.source, event.target) not in self.weights:
                return "max-edges"
        elif isinstance(event, AddNode | SetFeatures):
            ends = {event.id}
        wanted = ends - self.nodes
        if wanted and self.unknown == "reject" and not isinstance(event, AddNode):
            return "unknown-node"
        if wanted and self.max_nodes is not None and len(self.nodes) + len(wanted) > self.max_nodes:
            return "max-nodes"
        self.nodes |= wanted
        self.sequence += 1
        if isinstance(event, AddEdge):
            edge = self.edge(event.source, event.target)
            before = self.weights.get(edge, np.float32(0)) if event.op == "add" else np.float32(0)
            self.weights[edge] = np.float32(before + np.float32(event.weight))
        elif isinstance(event, RemoveEdge):
            self.weights.pop(self.edge(event.source, event.target), None)
        elif isinstance(event, RemoveNode):
            self.nodes.discard(event.id)
            self.weights = {e: w for e, w in self.weights.items() if event.id not in e}
        return None

    def edge(self, source: str, target: str) -> tuple[str, str]:
        return (source, target) if self.directed or source <= target else (target, source)


@pytest.mark.parametrize(("directed", "aggregate"), SHAPES)
@given(data=st.data())
def test_limits_decide_event_by_event_whatever_the_batches(data: Any, directed: bool, aggregate: Any) -> None:
    limits = [None, 0, 1, 2, 3, 5, 9]
    max_nodes, max_edges = data.draw(st.sampled_from(limits)), data.draw(st.sampled_from(limits))
    unknown = data.draw(st.sampled_from(["create", "create", "reject"]))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    stream = some_stream(random, data.draw(st.integers(1, 100)), 1, data.draw(st.integers(1, 8)))
    rules = {
        "directed": directed,
        "aggregate": aggregate,
        "max_nodes": max_nodes,
        "max_edges": max_edges,
        "unknown_nodes": unknown,
    }
    twin = Limited(directed, max_nodes, max_edges, unknown)
    expected = [(i, reason) for i, event in enumerate(stream) if (reason := twin.reason(event))]
    graph = graph_of(**rules)
    size = data.draw(st.sampled_from([1, 7, 100]))
    refused = [
        (start + i, reason)
        for start in range(0, len(stream), size)
        for i, reason in feed(graph, stream[start : start + size], push=False)
    ]
    assert refused == expected
    assert set(rows_by_id(graph)) == twin.nodes
    assert graph.sequence == twin.sequence
    assert {edge: graph.weight(*edge) for edge in twin.weights} == twin.weights
    assert len(named_arcs(graph)) == graph.arcs
    g = graph.arrays
    assert int(g.alive.sum()) == graph.nodes == len(twin.nodes)


def test_a_full_graph_still_takes_weights_and_refuses_in_one_batch() -> None:
    graph = graph_of(max_edges=3)
    feed(graph, [AddEdge("a", "b"), AddEdge("b", "c"), AddEdge("c", "d")])
    events: list[GraphEvent] = [AddEdge("a", "b", 2.0), AddEdge("b", "c", 3.0, "add"), AddEdge("a", "new")]
    events += [AddEdge("c", "d", 5.0)]
    ((index, why),) = graph.apply([encode_event(event) for event in events]).refused
    assert index == 2
    assert "max_edges = 3" in str(why)
    assert [graph.weight(*e) for e in ("ab", "bc", "cd")] == [2.0, 4.0, 5.0]
    assert graph.row_of("new") is None, "a refused edge makes no node"


def test_the_last_free_place_goes_to_the_first_who_asks() -> None:
    graph = graph_of(max_edges=1, max_nodes=3)
    refused = feed(graph, [AddEdge("a", "b"), AddEdge("b", "a"), AddEdge("a", "c"), RemoveEdge("a", "b")])
    assert refused == [(2, "max-edges")]
    assert feed(graph, [AddEdge("a", "c"), AddNode("d"), RemoveNode("b"), AddNode("d")]) == [(1, "max-nodes")]
    assert set(rows_by_id(graph)) == {"a", "c", "d"}


def test_an_accumulated_weight_that_overflows_is_refused_and_changes_nothing() -> None:
    graph = graph_of()
    heavy = float(np.float32(3e38))
    assert feed(graph, [AddEdge("a", "b", heavy), AddEdge("a", "b", heavy, "add"), AddNode("c")]) == [
        (1, "weight-overflow")
    ]
    assert graph.weight("a", "b") == heavy
    assert graph.sequence == 2


def test_what_is_not_there_is_a_counted_no_op() -> None:
    graph = graph_of()
    feed(graph, [AddNode("a"), AddNode("b")])
    nothing: list[GraphEvent] = [RemoveEdge("a", "b"), RemoveEdge("a", "x"), RemoveNode("y"), AddNode("a")]
    nothing += [SetFeatures("a", np.zeros(1, np.float32))]
    feed(graph, nothing)
    assert graph.counters["no_ops"] == len(nothing)
    assert graph.sequence == graph.counters["events"] == 2 + len(nothing)
    assert graph.owed_tombstones == {"y": None}, "a removal is told, known or not"


def test_an_add_that_changes_nothing_is_counted() -> None:
    graph = graph_of()
    feed(graph, [AddEdge("a", "b", 1e8), AddEdge("a", "b", 1.0, "add")])
    assert graph.weight("a", "b") == 1e8
    assert graph.counters["lost_adds"] == 1


@pytest.mark.parametrize(("directed", "aggregate"), SHAPES)
@pytest.mark.parametrize("seed", range(5))
def test_the_split_into_batches_changes_no_arc_no_weight_and_no_count(
    seed: int, directed: bool, aggregate: Any
) -> None:
    random = np.random.default_rng(seed)
    stream = some_stream(random, 400, 2, 12)
    seen = []
    for size in (1, 7, 400):
        graph = graph_of(2, directed=directed, aggregate=aggregate)
        for start in range(0, len(stream), size):
            feed(graph, stream[start : start + size], push=bool(random.integers(2)))
        seen.append((named_arcs(graph), graph.sequence, rows_by_id(graph), list(graph.owed_tombstones)))
    assert seen[0] == seen[1] == seen[2]
