"""What a checkpoint writes is exactly what changed: a dict that applies it is the graph, at every step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphtools import SHAPES, Replica, Table, feed, graph_of, rows_by_id, some_stream
from hypothesis import given
from hypothesis import strategies as st

from dgdm.schemas.events import AddEdge, AddNode, GraphEvent, RemoveEdge, RemoveNode


@pytest.mark.parametrize(("directed", "aggregate"), SHAPES)
@given(data=st.data())
def test_a_dict_that_applies_every_checkpoint_is_the_graph(data: Any, directed: bool, aggregate: str) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    width = data.draw(st.sampled_from([1, 3, 16]))
    graph = graph_of(width, directed=directed, aggregate=aggregate)
    replica, table = Replica(graph), Table()
    stream = some_stream(random, data.draw(st.integers(1, 150)), width, data.draw(st.integers(1, 15)))
    while stream:
        size = int(random.integers(1, 25))
        feed(graph, stream[:size], push=bool(random.integers(2)))
        del stream[:size]
        if table.on_its_way:
            table.acknowledge(graph)
        elif random.integers(2):
            table.send(graph, limit=5)
        what = random.integers(6)
        if what == 0:
            replica.rewrite(graph)
        if what < 4:
            replica.checkpoint(graph)
            replica.must_equal(graph)
    table.deliver(graph)
    replica.checkpoint(graph)
    replica.must_equal(graph)
    nothing = replica.checkpoint(graph)
    assert nothing.nbytes == sum(map(len, graph.owed_tombstones)), "the second time nothing has changed"


@pytest.mark.parametrize(("directed", "aggregate"), SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_hubs_that_grow_shrink_go_and_come_back(seed: int, directed: bool, aggregate: Any) -> None:
    random = np.random.default_rng(seed)
    graph = graph_of(directed=directed, aggregate=aggregate)
    replica = Replica(graph)
    hubs, leaves = ["h0", "h1"], [str(i) for i in range(6_000)]
    for _ in range(40):
        events: list[GraphEvent] = []
        hub = hubs[random.integers(2)]
        some = random.choice(leaves, int(10 ** random.uniform(0, 3.6)), replace=False).tolist()
        what = random.integers(5)
        for leaf in some:
            a, b = (hub, leaf) if random.integers(2) else (leaf, hub)
            events.append(AddEdge(a, b, float(random.integers(1, 9))) if what < 3 else RemoveEdge(a, b))
        if random.integers(8) == 0:
            events.insert(int(random.integers(len(events))), RemoveNode(hub))
        if random.integers(4) == 0:
            events.append(RemoveNode(str(random.choice(leaves))))
        feed(graph, events, push=False)
        if random.integers(3):
            replica.checkpoint(graph)
            replica.must_equal(graph)
    replica.checkpoint(graph)
    replica.must_equal(graph)


def test_one_more_edge_of_a_hub_writes_one_chunk() -> None:
    graph = graph_of(directed=True, aggregate="out")
    replica = Replica(graph)
    feed(graph, [AddEdge("hub", str(i)) for i in range(2_000)])
    replica.checkpoint(graph)
    feed(graph, [AddEdge("hub", "7", 3.0)])
    changes = replica.checkpoint(graph)
    assert changes.chunks.tolist() == [[rows_by_id(graph)["hub"], 0]]
    feed(graph, [AddEdge("hub", "new")])
    changes = replica.checkpoint(graph)
    assert changes.chunks.tolist() == [[rows_by_id(graph)["hub"], 2_000 // 256]]
    assert changes.feature_rows.tolist() == [rows_by_id(graph)["new"]]
    replica.must_equal(graph)


def test_a_row_that_shrinks_or_goes_frees_its_chunks() -> None:
    graph = graph_of(directed=True, aggregate="out")
    replica = Replica(graph)
    feed(graph, [AddEdge("hub", str(i)) for i in range(600)])
    replica.checkpoint(graph)
    hub = rows_by_id(graph)["hub"]
    feed(graph, [RemoveEdge("hub", str(i)) for i in range(599, 255, -1)])
    assert replica.checkpoint(graph).freed_chunks.tolist() == [[hub, 1], [hub, 2]]
    feed(graph, [RemoveNode("hub")])
    assert replica.checkpoint(graph).freed_chunks.tolist() == [[hub, 0]]
    replica.must_equal(graph)


def test_an_id_that_comes_back_on_its_row_leaves_no_old_vector_in_the_store() -> None:
    graph = graph_of()
    replica, table = Replica(graph), Table()
    feed(graph, [AddNode("a", np.ones(1, np.float32))])
    table.deliver(graph)
    replica.checkpoint(graph)
    assert replica.vector
    feed(graph, [RemoveNode("a"), AddNode("a")])
    replica.checkpoint(graph)
    assert not replica.vector
    replica.must_equal(graph)


def test_a_rewrite_carries_what_a_checkpoint_would_and_leaves_nothing_dirty() -> None:
    random = np.random.default_rng(5)
    graph = graph_of(4)
    feed(graph, some_stream(random, 500, 4, 40))
    Table().deliver(graph)
    replica = Replica(graph)
    replica.rewrite(graph)
    replica.must_equal(graph)
    assert graph.dirty_count == 0
    feed(graph, some_stream(random, 500, 4, 40))
    replica.checkpoint(graph)
    replica.must_equal(graph)
