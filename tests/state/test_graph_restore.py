"""A graph read back from its store goes on as if it had never stopped, under new settings too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import oracle
import pytest
from graphtools import SHAPES, Replica, Table, feed, graph_of, named_arcs, rows_by_id, some_stream
from hypothesis import given
from hypothesis import strategies as st

from dgdm.schemas.events import AddEdge, AddNode, RemoveNode, encode_event
from dgdm.state import collecting
from dgdm.state.graph import NO_PROMISE, GraphState
from dgdm.state.loading import restore
from dgdm.state.recovery import StoredGraphMismatchError
from dgdm.state.rules import Rules
from dgdm.state.store import StoreFormatError


def restored(replica: Replica, rules: Rules, alpha: float = 0.15) -> GraphState:
    graph = GraphState(rules, alpha)
    restore(graph, replica, replica.meta)  # type: ignore[arg-type]
    return graph


@pytest.mark.parametrize(("directed", "aggregate"), SHAPES)
@given(data=st.data())
def test_restarts_anywhere_change_nothing_that_consumers_or_the_store_see(
    data: Any, directed: bool, aggregate: Any
) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    width = data.draw(st.sampled_from([1, 4]))
    graph = graph_of(width, directed=directed, aggregate=aggregate)
    truth = oracle.Oracle(width, directed=directed, aggregate=aggregate)
    replica, table = Replica(graph), Table()
    stream = some_stream(random, data.draw(st.integers(1, 120)), width, data.draw(st.integers(1, 12)))
    for event in stream:
        truth.apply(encode_event(event))
    while stream:
        size = int(random.integers(1, 20))
        feed(graph, stream[:size], push=bool(random.integers(2)))
        del stream[:size]
        if random.integers(2):
            table.deliver(graph, limit=4)
        replica.checkpoint(graph)
        if random.integers(3) == 0:
            graph = restored(replica, graph.rules)
            replica.must_equal(graph)
    graph.push()
    last = table.deliver(graph)
    assert graph.sequence == truth.sequence
    assert oracle.largest_error(truth.exact(), table.held) <= min(0.01, *last.bound)
    assert graph.arcs == len(named_arcs(graph))
    replica.checkpoint(graph)
    replica.must_equal(graph)


def test_alpha_accuracy_and_offset_may_change_between_runs() -> None:
    random = np.random.default_rng(3)
    graph = graph_of(3, accuracy=0.1)
    truth = oracle.Oracle(3, alpha=0.4)
    stream = some_stream(random, 400, 3, 30)
    for event in stream:
        truth.apply(encode_event(event))
    feed(graph, stream)
    table, replica = Table(), Replica(graph)
    table.deliver(graph)
    replica.checkpoint(graph)
    accuracy = np.array([0.01, 0.003, 0.05])
    graph = restored(replica, Rules(3, accuracy, np.array([0.5, -2.0, 0.0])), alpha=0.4)
    graph.push()
    last = table.deliver(graph)
    exact = truth.exact()
    assert table.held.keys() == exact.keys()
    error = np.max([np.abs(table.held[node] - exact[node]) for node in exact], axis=0)
    assert (error <= accuracy).all()
    assert (error <= last.bound).all()
    assert (np.array(last.bound) <= accuracy).all()


def test_a_vector_that_consumers_hold_is_not_sent_again() -> None:
    graph = graph_of()
    feed(graph, [AddNode("a", np.ones(1, np.float32)), AddEdge("a", "b")])
    table, replica = Table(), Replica(graph)
    table.deliver(graph)
    feed(graph, [AddNode("c")])
    replica.checkpoint(graph)
    graph = restored(replica, graph.rules)
    assert graph.push()
    assert table.send(graph).ids == ["c"], "no vector of c was stored"


def test_owed_tombstones_survive_and_freed_rows_are_used_again() -> None:
    graph = graph_of()
    feed(graph, [AddNode("a"), AddNode("b"), AddNode("c"), RemoveNode("b"), RemoveNode("stranger")])
    replica = Replica(graph)
    replica.checkpoint(graph)
    graph = restored(replica, graph.rules)
    assert graph.gather(10).tombstones == ["b", "stranger"]
    feed(graph, [AddNode("d")])
    assert rows_by_id(graph) == {"a": 0, "c": 2, "d": 1}


def test_an_unknown_vector_is_published_again_and_until_then_nothing_is_promised() -> None:
    graph = graph_of()
    feed(graph, [AddNode("a", np.ones(1, np.float32)), AddNode("b"), AddNode("c")])
    table = Table()
    table.deliver(graph)
    assert graph.mark_unknown(["c", "gone", "a"]) == ["gone"]
    first = table.send(graph, limit=1)
    table.acknowledge(graph)
    assert (first.ids, first.tombstones, first.complete) == (["c"], ["gone"], False)
    assert first.bound == [NO_PROMISE]
    second = table.send(graph, limit=1)
    table.acknowledge(graph)
    assert (second.ids, second.tombstones, second.complete) == (["a"], [], True)
    assert second.bound[0] <= 0.01
    assert table.send(graph).ids == [], "once is enough"


def test_an_unknown_id_that_comes_back_gets_a_vector_and_no_tombstone() -> None:
    graph = graph_of()
    graph.mark_unknown(["x"])
    feed(graph, [AddNode("x")])
    publication = graph.gather(10)
    assert (publication.ids, publication.tombstones) == (["x"], [])


def test_consumers_that_lost_everything_get_everything() -> None:
    graph = graph_of()
    feed(graph, [AddNode(str(i)) for i in range(9)])
    Table().deliver(graph)
    graph.forget_published()
    table = Table()
    table.deliver(graph, limit=4)
    assert table.held.keys() == set(map(str, range(9)))


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        (Rules(3, np.ones(3), np.zeros(3), True), "features = 3, but the stored graph has 2"),
        (Rules(2, np.ones(2), np.zeros(2)), "directed = False, but the stored graph has True"),
        (Rules(2, np.ones(2), np.zeros(2), True, "out"), "aggregate = 'out', but the stored graph has 'in'"),
    ],
)
def test_what_is_frozen_is_refused_with_both_values(rules: Rules, sentence: str) -> None:
    graph = graph_of(2, directed=True)
    feed(graph, [AddEdge("a", "b")])
    replica = Replica(graph)
    replica.checkpoint(graph)
    with pytest.raises(StoredGraphMismatchError, match=sentence):
        restored(replica, rules)


def test_a_rewrite_in_parts_is_the_graph_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "REWRITE_ROWS", 7)
    graph = graph_of(2)
    feed(graph, some_stream(np.random.default_rng(1), 300, 2, 40))
    Table().deliver(graph)
    replica = Replica(graph)
    replica.rewrite(graph)
    replica.must_equal(graph)
    replica.must_equal(restored(replica, graph.rules))


def broken(replica: Replica, how: str) -> None:
    if how == "an id is missing":
        replica.rows.pop("a")
    elif how == "two ids on one row":
        replica.rows["a"] = replica.rows["b"]
    elif how == "an arc to nowhere":
        ((key, (targets, weights)),) = [item for item in replica.chunk.items() if item[0][0] == 0]
        replica.chunk[key] = np.full_like(targets, 1_000_000), weights
    elif how == "arcs of nobody":
        replica.chunk[-1, 0] = next(iter(replica.chunk.values()))
    elif how == "an arc is missing":
        replica.chunk.pop((0, 0))
    elif how == "a weight of zero":
        targets, weights = replica.chunk[0, 0]
        replica.chunk[0, 0] = targets, np.zeros_like(weights)
    elif how == "features are missing":
        replica.x.pop(0)
    elif how == "features of nobody":
        replica.x[77] = np.ones(1, np.float32)
    elif how == "a vector of nobody":
        replica.vector[77] = np.ones(1, np.float32)
    else:
        replica.meta = replace(replica.meta, nodes=9)


@pytest.mark.parametrize(
    "how",
    [
        "an id is missing",
        "two ids on one row",
        "an arc to nowhere",
        "arcs of nobody",
        "an arc is missing",
        "a weight of zero",
        "features are missing",
        "features of nobody",
        "a vector of nobody",
        "another count",
    ],
)
def test_a_store_that_does_not_fit_together_is_refused(how: str) -> None:
    graph = graph_of()
    feed(graph, [AddEdge("a", "b"), AddEdge("b", "c")])
    replica = Replica(graph)
    replica.checkpoint(graph)
    broken(replica, how)
    with pytest.raises(StoreFormatError, match="does not fit together"):
        restored(replica, graph.rules)


def test_stored_features_that_overflow_under_new_accuracies_are_refused() -> None:
    graph = graph_of(2, accuracy=1e30)
    feed(graph, [AddNode("a", np.array([1.0, 1e30], np.float32))])
    replica = Replica(graph)
    replica.checkpoint(graph)
    with pytest.raises(StoreFormatError, match="overflow float32"):
        restored(replica, Rules(2, np.array([1.0, 1e-10]), np.zeros(2), allow_floor=True))
