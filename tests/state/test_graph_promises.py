"""The bound says what is so: drift, the float32 floor, and rows that were given to another node meanwhile."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from graphtools import Table, arcs_of, feed, graph_of, some_stream
from hypothesis import given
from hypothesis import strategies as st

from dgdm.schemas.events import AddEdge, AddNode, GraphEvent, RemoveNode, SetFeatures, encode_event
from dgdm.state.graph import RECENT, SCRUBBED_ROWS, GraphState


def off_by(graph: GraphState) -> float:
    """How far the maintained residuals are from their definition R = αX + (1−α)PH − H, in float64."""
    g, arcs, worst = graph.arrays, arcs_of(graph), 0.0
    h = g.H.astype(np.float64)
    for row in np.flatnonzero(g.alive).tolist():
        own = arcs.get(row, {row: 1.0})
        mean = sum(w * h[target] for target, w in own.items()) / sum(own.values())
        exact = graph.alpha * g.X[row] + (1 - graph.alpha) * mean - h[row]
        worst = max(worst, float(np.abs(exact - g.R[row]).max()))
    return worst


def batches(graph: GraphState, count: int) -> None:
    """Batches that change nothing."""
    event = SetFeatures("0", graph.rules.raw(graph.arrays.X[:1])[0])
    for _ in range(count):
        feed(graph, [event])


def test_drift_is_found_healed_and_part_of_the_bound_until_it_is_old() -> None:
    graph, table = graph_of(features=2), Table()
    feed(graph, [AddNode("0", np.zeros(2, np.float32))])
    feed(
        graph, [e for e in some_stream(np.random.default_rng(1), 600, 2, 60) if not isinstance(e, RemoveNode)]
    )
    table.deliver(graph)
    calm = max(graph.bound())
    assert calm <= 0.01
    assert off_by(graph) < 1e-5
    graph.arrays.R[7, 1] += np.float32(0.004)
    batches(graph, len(graph.arrays.alive) // SCRUBBED_ROWS + 1)
    assert graph.drift == pytest.approx(0.004, rel=0.01)
    assert off_by(graph) < 1e-5
    table.deliver(graph)
    assert max(graph.bound()) == pytest.approx(calm + 0.004 / graph.alpha, rel=0.02)
    batches(graph, 2 * RECENT)
    assert max(graph.bound()) == pytest.approx(calm, rel=0.01)


@pytest.mark.timeout(60)  # below the floor pushing would not end
def test_below_the_float32_floor_the_bound_says_what_is_kept() -> None:
    """Features of 1e6 with an accuracy of 0.01: float32 has no such digits."""
    graph, table, truth = graph_of(features=1, allow_floor=True), Table(), oracle.Oracle(1)
    random = np.random.default_rng(2)
    stream: list[GraphEvent] = [
        AddNode(str(i), (1e6 * random.normal(size=1)).astype(np.float32)) for i in range(200)
    ]
    stream += [AddEdge(str(a), str(b)) for a, b in random.integers(0, 200, (600, 2)).tolist()]
    for event in stream:
        feed(graph, [event])
        truth.apply(encode_event(event))
    table.deliver(graph)
    error = oracle.largest_error(truth.exact(), table.held)
    assert graph.floor_active
    assert 0.01 < error <= max(graph.bound()) < 1e6 * 2.5e-5 * 2


def test_an_acknowledgement_is_for_the_node_that_was_sent_not_for_its_row() -> None:
    """
    sent:         a on row 0
    meanwhile:    a goes, b comes onto row 0 with nearly the same vector
    acknowledged: a's vector; nobody holds one of b
    """
    graph, table = graph_of(), Table()
    feed(graph, [AddNode("a", np.array([1.0], np.float32))])
    table.send(graph)
    feed(graph, [RemoveNode("a"), AddNode("b", np.array([1.001], np.float32))])
    table.acknowledge(graph)
    table.deliver(graph)
    assert table.held == {"b": np.float32(1.001)}


@given(seed=st.integers(0, 2**32 - 1), limit=st.integers(1, 5))
def test_a_publication_in_portions_promises_no_more_than_consumers_hold(seed: int, limit: int) -> None:
    """As of every portion; also of a node that went and came back while consumers held its former vector."""
    random = np.random.default_rng(seed)
    graph, table, truth = graph_of(features=1), Table(), oracle.Oracle(1)
    for event in some_stream(random, 60, 1, 6):
        feed(graph, [event], push=bool(random.integers(2)))
        truth.apply(encode_event(event))
        if random.random() < 0.3:
            bound = max(table.send(graph, limit).bound)
            table.acknowledge(graph)
            exact = truth.exact()
            assert table.held.keys() <= exact.keys()
            assert all(abs(x[0] - exact[node][0]) <= bound for node, x in table.held.items()), table.held


def test_what_moves_between_sending_and_acknowledgement_is_sent_again() -> None:
    graph, table = graph_of(), Table()
    feed(graph, [AddNode("a", np.array([1.0], np.float32))])
    table.send(graph)
    feed(graph, [SetFeatures("a", np.array([2.0], np.float32))])
    table.acknowledge(graph)
    table.deliver(graph)
    assert table.held["a"][0] == pytest.approx(2.0, abs=0.01)
