"""Every kernel once, so that no event waits for a compiler."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ..diffusion.blocks import take_over
from ..schemas.events import (
    AddEdge,
    AddNode,
    GraphEvent,
    RemoveEdge,
    RemoveNode,
    SetFeatures,
    encode_event,
)
from .applying import change_features
from .collecting import collect
from .graph import FIRST_ROWS, GraphState
from .loading import restore
from .redis_resp import joined, spans_of, write_pairs
from .rules import Rules
from .sqlite_store import SqliteStore
from .store import Meta

LONG = "%200d"  # an id


def warm_up(directed: bool) -> None:
    """Compile the kernels that events, a checkpoint and a recovery meet, or load them from the cache."""
    rules, meta = (
        Rules(2, np.ones(2), np.zeros(2), directed),
        Meta(2, directed, "in", 1, 0.15, [1.0] * 2, [0.0] * 2),
    )
    graph = GraphState(rules, 0.15)
    x = np.ones(2, np.float32)
    events: list[GraphEvent] = [AddNode("a", x), AddEdge("a", "b"), AddEdge("a", "a", 2.0, "add")]
    events += [SetFeatures("a", 5 * x), RemoveEdge("a", "a"), RemoveNode("b")]
    events += [AddNode(LONG % number, x) for number in range(FIRST_ROWS)]  # rows and room for ids must grow
    graph.apply([encode_event(event) for event in events])
    nobody, nothing = np.empty(0, np.int32), np.empty((0, 2), np.float32)
    take_over(graph.arrays, nobody, nothing, nobody, nothing, 1.0)
    change_features(graph.arrays, nobody, nothing, graph.peak, graph.alpha, graph.epsilon)
    graph.acknowledge(graph.gather(1))
    graph.weight("a", "b")
    graph.mark_unknown(["a"])
    with TemporaryDirectory() as folder, closing(SqliteStore(Path(folder) / "warm", "warm")) as store:
        owner = store.take("warm", None)
        changes = collect(graph, meta)
        store.commit(owner._replace(sequence=1), changes)
        restore(GraphState(rules, 0.15), store, changes.meta)
    write_pairs(np.zeros(1, np.int64), joined([b"a"]), spans_of(x))
