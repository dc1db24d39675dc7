"""Random mixed streams, any batch split: what consumers hold is within the accuracy of an exact, foreign solution."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from graphtools import feed
from hypothesis import given
from hypothesis import strategies as st

from dgdm.schemas.events import (
    AddEdge,
    AddNode,
    GraphEvent,
    RemoveEdge,
    RemoveNode,
    SetFeatures,
    as_weight,
    encode_event,
)
from dgdm.state.graph import GraphState
from dgdm.state.rules import Rules

WIDTHS = [1, 2, 3, 8, 32, 64]


def some_events(random: np.random.Generator, count: int, features: int, nodes: int) -> list[GraphEvent]:
    """A mixed stream. From a seed, not event by event: short streams seldom remove what was announced."""
    kinds = ["edge"] * 5 + ["unedge"] * 2 + ["set", "add", "remove"]
    stream: list[GraphEvent] = []
    for kind in random.choice(kinds, count).tolist():
        a, b = map(str, random.integers(0, nodes, 2))
        x = random.normal(size=features).astype(np.float32)
        stream.append(
            {
                "edge": AddEdge(
                    a, b, as_weight(10 ** float(random.uniform(-5, 5))), str(random.choice(["set", "add"]))
                ),
                "unedge": RemoveEdge(a, b),
                "remove": RemoveNode(a),
                "set": SetFeatures(a, x),
                "add": AddNode(a, x),
            }[kind]
        )
    return stream


@pytest.mark.parametrize(("directed", "aggregate"), [(False, "in"), (True, "in"), (True, "out")])
@given(data=st.data())
def test_consumers_hold_the_exact_answer_within_the_accuracy(
    data: Any, directed: bool, aggregate: Any
) -> None:
    width = data.draw(st.sampled_from(WIDTHS))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    stream = some_events(random, data.draw(st.integers(1, 150)), width, data.draw(st.integers(1, 20)))
    accuracy = 0.01
    graph = GraphState(Rules(width, np.full(width, accuracy), np.zeros(width), directed, aggregate), 0.15)
    truth = oracle.Oracle(width, directed=directed, aggregate=aggregate)
    held: dict[str, np.ndarray] = {}
    at = 0
    while at < len(stream):
        size = int(random.integers(1, 20))
        feed(graph, stream[at : at + size], push=bool(random.integers(2)))
        at += size
        if random.integers(2):
            deliver(graph, held)
    graph.push()
    deliver(graph, held)
    for event in stream:
        truth.apply(encode_event(event))
    assert graph.sequence == truth.sequence
    assert oracle.largest_error(truth.exact(), held) <= accuracy
    assert {edge: graph.weight(*edge) for edge in truth.w} == {e: float(w) for e, w in truth.w.items()}
    assert graph.arcs == sum(1 if directed or s == t else 2 for s, t in truth.w)


def deliver(graph: GraphState, held: dict[str, np.ndarray]) -> None:
    """Publish until nothing is left, as the worker would."""
    while True:
        publication = graph.gather(5)
        for node in publication.tombstones:
            held.pop(node, None)
        held.update(zip(publication.ids, publication.vectors, strict=True))
        graph.acknowledge(publication)
        if publication.complete:
            return


def test_a_heavy_edge_that_comes_and_goes_leaves_no_error() -> None:
    """At a row far from those that the scrubber looks at first: it would heal what the repair does wrong."""
    graph = GraphState(Rules(1, np.array([0.01]), np.zeros(1)), 0.15)
    truth = oracle.Oracle(1)
    stream: list[GraphEvent] = [AddNode(str(i), np.array([i / 7], np.float32)) for i in range(60)]
    stream += [AddEdge("50", str(i), 1.0) for i in range(1, 6)]
    stream += [AddEdge("50", "5", 1e8), RemoveEdge("50", "5")]
    feed(graph, stream, push=False)
    for event in stream:
        truth.apply(encode_event(event))
    graph.push()
    held: dict[str, np.ndarray] = {}
    deliver(graph, held)
    assert oracle.largest_error(truth.exact(), held) <= 0.01


def test_a_node_smaller_than_the_threshold_is_announced() -> None:
    graph = GraphState(Rules(2, np.full(2, 0.01), np.zeros(2)), 0.15)
    feed(graph, [AddNode("small", np.full(2, 1e-4, np.float32))])
    assert graph.gather(10).ids == ["small"]


def test_a_hub_of_many_neighbours_is_removed_and_its_row_reused() -> None:
    graph = GraphState(Rules(1, np.array([0.01]), np.zeros(1)), 0.15)
    leaves = 5_000
    feed(graph, [AddEdge("hub", str(i), 1.0) for i in range(leaves)])
    assert graph.arcs == 2 * leaves
    feed(graph, [RemoveNode("hub"), AddNode("new", np.ones(1, np.float32))])
    held: dict[str, np.ndarray] = {}
    deliver(graph, held)
    assert graph.arcs == 0
    assert len(held) == leaves + 1
    assert held["new"] == pytest.approx([1.0])
    assert graph.row_of("new") == 0, "the row was free"


def visits_per_event(n: int) -> float:
    """Rows visited by one new weight of a random edge, the graph having lived for a while."""
    random = np.random.default_rng(1)
    graph = GraphState(Rules(4, np.full(4, 0.03), np.zeros(4)), 0.15)
    x = random.normal(size=(n, 4)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    feed(graph, [AddNode(str(i), x[i]) for i in range(n)])
    pairs = [(str(a), str(b)) for a, b in random.integers(0, n, (4 * n, 2)).tolist()]
    feed(graph, [AddEdge(a, b, 1.0) for a, b in pairs])

    def change(count: int, batch: int) -> None:
        chosen = [pairs[i] for i in random.integers(0, len(pairs), count).tolist()]
        edges = [
            AddEdge(a, b, float(w)) for (a, b), w in zip(chosen, random.uniform(0.5, 2, count), strict=True)
        ]
        for start in range(0, count, batch):
            feed(graph, edges[start : start + batch])

    change(5 * n, 100)
    before = graph.counters["visited"]
    change(1_000, 1)
    return (graph.counters["visited"] - before) / 1_000


def test_work_per_event_does_not_grow_with_the_graph() -> None:
    small, large = visits_per_event(400), visits_per_event(40_000)
    assert large <= 1.5 * small, (small, large)
