"""What consumers hold is sent once more when it is asked for, and what is promised does not suffer."""

from __future__ import annotations

import numpy as np
from graphtools import Table, feed, graph_of

from dgdm.schemas.events import AddNode, RemoveNode
from dgdm.state.graph import AGAIN_ROWS, GraphState

ONE = np.ones(1, np.float32)


def held(count: int) -> tuple[GraphState, Table]:
    graph, table = graph_of(1), Table()
    feed(graph, [AddNode(str(i), ONE) for i in range(count)])
    table.deliver(graph)
    return graph, table


def test_all_is_sent_once_in_portions_beside_what_moves() -> None:
    graph, table = held(AGAIN_ROWS + 5)
    graph.send_again()
    sent: list[str] = []
    while graph.news:
        if len(sent) == AGAIN_ROWS:
            feed(graph, [AddNode("new", ONE), RemoveNode(str(AGAIN_ROWS + 1))])
        sent += table.deliver(graph).ids
        assert max(graph.bound()) <= 0.01
    assert len(sent) == len(set(sent))
    assert set(sent) == {str(i) for i in range(AGAIN_ROWS + 5)} - {str(AGAIN_ROWS + 1)} | {"new"}
    assert not graph.gather(10).ids


def test_an_acknowledgement_of_before_is_not_that_of_the_second_one() -> None:
    graph, table = held(3)
    feed(graph, [AddNode("1", 9 * ONE)])
    assert table.send(graph).ids == ["1"]
    graph.send_again()
    table.acknowledge(graph)
    assert sorted(table.send(graph).ids) == ["0", "1", "2"]


def test_a_publication_that_was_lost_is_sent_by_the_next_session() -> None:
    graph, table = held(3)
    graph.send_again()
    assert len(table.send(graph).ids) == 3
    graph.reconsider()  # as after a failure of the log
    assert sorted(graph.gather(10).ids) == ["0", "1", "2"]
