"""Why the graph refuses an event, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..diffusion.local import OVERFLOW
from ..schemas.events import AddEdge, AddNode, GraphEvent, RemoveEdge, SetFeatures
from ..schemas.reasons import InvalidEvent, Reason, shortened
from .applying import TOO_FAR, TOO_MANY_EDGES, TOO_MANY_NODES, UNKNOWN_NODE, WRONG_LENGTH

if TYPE_CHECKING:
    from .rules import Rules


def refusal(outcome: int, event: GraphEvent, rules: Rules) -> InvalidEvent:
    """What `applying` found, said of the event."""
    if outcome in (WRONG_LENGTH, TOO_FAR):
        return _of_features(outcome, event, rules)
    if outcome == UNKNOWN_NODE:
        ends = [event.source, event.target] if isinstance(event, AddEdge | RemoveEdge) else [event.id]
        who = " or ".join(map(shortened, ends))
        return InvalidEvent(Reason.UNKNOWN_NODE, f"the node {who} is unknown: add it first")
    if outcome == TOO_MANY_NODES:
        return InvalidEvent(Reason.MAX_NODES, f"the graph has max_nodes = {rules.max_nodes} nodes already")
    if outcome == TOO_MANY_EDGES:
        return InvalidEvent(Reason.MAX_EDGES, f"the graph has max_edges = {rules.max_edges} edges already")
    assert outcome == OVERFLOW
    return InvalidEvent(Reason.OVERFLOW, "the accumulated weight is not finite in float32")


def _of_features(outcome: int, event: GraphEvent, rules: Rules) -> InvalidEvent:
    given = event.features if isinstance(event, AddNode | SetFeatures) else None
    x = np.zeros(rules.features, np.float32) if given is None else given
    if outcome == TOO_FAR:
        return rules.out_of_reach(x)
    return InvalidEvent(
        Reason.WRONG_LENGTH, f"{len(x)} features where this graph has {rules.features}: {shortened(x)}"
    )
