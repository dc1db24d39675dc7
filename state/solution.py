"""The exact answer for the graph in the arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..diffusion.exact import fixed_point, transition
from .id_table import ids_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .graph import GraphState


def solve(graph: GraphState) -> dict[str, NDArray[np.float64]]:
    """The exact answer for a graph's arcs and features, by id, in feature units."""
    g = graph.arrays
    rows = graph.rows()
    place = np.full(len(g.alive), -1, np.int64)
    place[rows] = np.arange(len(rows))
    length = g.rows.length[rows]
    at = (
        np.repeat(g.rows.offset[rows] - np.concatenate(([0], np.cumsum(length)[:-1])), length)
        if len(rows)
        else rows
    )
    at = at + np.arange(len(at))
    p = transition(
        np.repeat(np.arange(len(rows)), length), place[g.rows.target[at]], g.rows.weight[at], len(rows)
    )
    x = graph.rules.raw(g.X[rows]).astype(np.float64)
    h = fixed_point(p, x, graph.alpha)
    return dict(zip(ids_of(graph.ids, rows), h, strict=True))
