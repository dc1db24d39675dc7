"""Many rows settled at once by somebody else: what he needs to know, and taking over what he found.

With D added to the vectors of some rows, R' = R + C D, where C holds (1−α) P_tv for every arc t → v into the rows,
less the identity. Who finds D, and how, is none of the kernels' business; push finishes what he leaves.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from .arrays import Doubles, Floats, GraphArrays, Ints, Rows
from .compile import kernel
from .marks import look_at, mark_moved
from .vector import largest


class Settler(Protocol):
    """Makes the residuals of many pending rows small, in the kernel thread."""

    def settle(self, g: GraphArrays, used: int, epsilon: float) -> None:
        """Before push; any residual may be left above ε."""

    def close(self) -> None:
        """Give everything back; may be called twice."""


class Inward(NamedTuple):
    """All arcs into some rows [k], absorbing rows as arcs to themselves; places count in `rows`."""

    source: Ints  # rows t of the graph
    place: Ints
    share: Doubles  # P_tv


def arcs_into(g: GraphArrays, rows: Ints) -> Inward:
    """Arcs t → v for every v of `rows`; rows that are no nodes any more have none."""
    alive = g.alive[rows] == 1
    length = np.where(alive, g.columns.length[rows], 0).astype(np.int64)
    place = np.repeat(np.arange(len(rows)), length)
    begin = np.cumsum(length) - length
    at = np.repeat(g.columns.offset[rows] - begin, length) + np.arange(len(place))
    source = g.columns.target[at].astype(np.int64)
    share = g.columns.weight[at] / g.weight_sum[source]
    absorbing = np.flatnonzero(alive & (g.weight_sum[rows] == 0))
    return Inward(
        np.concatenate([source, rows[absorbing]]),
        np.concatenate([place, absorbing]),
        np.concatenate([share, np.ones(len(absorbing))]),
    )


@kernel
def take_over(
    g: GraphArrays, rows: Rows, delta: Floats, touched: Rows, residual: Floats, epsilon: float
) -> None:
    """H_u += D_u for `rows`, and the new residuals of all rows that it touches."""
    for i in range(len(rows)):
        for f in range(delta.shape[1]):
            g.H[rows[i], f] += delta[i, f]
        mark_moved(g, rows[i])
    for i in range(len(touched)):
        u = touched[i]
        for f in range(residual.shape[1]):
            g.R[u, f] = residual[i, f]
        look_at(g, u, largest(g.R, u), epsilon)
