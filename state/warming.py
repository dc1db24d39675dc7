"""Every kernel once, so that no event waits for a compiler."""

from __future__ import annotations

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
from .collecting import collect
from .graph import GraphState
from .redis_resp import joined, spans_of, write_pairs
from .rules import Rules
from .store import Meta


def warm_up(directed: bool) -> None:
    """Compile the kernels an event and a checkpoint meet, or load them from the cache."""
    graph = GraphState(Rules(2, np.ones(2), np.zeros(2), directed), 0.15)
    x = np.ones(2, np.float32)
    events: list[GraphEvent] = [AddNode("a", x), AddEdge("a", "b"), AddEdge("a", "a", 2.0, "add")]
    events += [SetFeatures("a", 5 * x), RemoveEdge("a", "a"), RemoveNode("b")]
    graph.apply([encode_event(event) for event in events])
    nobody, nothing = np.empty(0, np.int32), np.empty((0, 2), np.float32)
    take_over(graph.arrays, nobody, nothing, nobody, nothing, 1.0)
    graph.acknowledge(graph.gather(1))
    graph.weight("a", "b")
    graph.mark_unknown(["a"])
    collect(graph, Meta(2, directed, "in", 1, 0.15, [1.0] * 2, [0.0] * 2))
    write_pairs(np.zeros(1, np.int64), joined([b"a"]), spans_of(x))
