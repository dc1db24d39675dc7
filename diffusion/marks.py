"""Rows that something is to be done with: pushed (pending), looked at before a publication (moved), stored (dirty).

Each list has every row once; a number of the row says whether it stands there.
"""

from __future__ import annotations

import numpy as np

from .arrays import DIRTY, MOVED, PENDING, GraphArrays, Index
from .compile import inline
from .vector import prefetch


@inline
def wake(g: GraphArrays, u: Index, norm: np.float32) -> None:
    """Row u, whose |R|∞ is above ε, is pending."""
    if g.norm[u] == 0:
        prefetch(g.record, u)
        g.pending[g.sizes[PENDING]] = u
        g.sizes[PENDING] += 1
    g.norm[u] = norm


@inline
def look_at(g: GraphArrays, u: int, norm: np.float32, epsilon: float) -> None:
    """Keep the invariant of `pending` after R_u became what it is."""
    if norm > np.float32(epsilon):
        wake(g, u, norm)


@inline
def mark_dirty(g: GraphArrays, u: int, what: int) -> None:
    """The store must hear of row u."""
    if g.dirty[u] == 0:
        g.dirty_rows[g.sizes[DIRTY]] = u
        g.sizes[DIRTY] += 1
    g.dirty[u] |= what


@inline
def mark_moved(g: GraphArrays, u: int) -> None:
    """Row u awaits a publish decision."""
    g.leeway[u] = 0
    if g.moved_mark[u] == 0:
        g.moved_mark[u] = 1
        g.moved[g.sizes[MOVED]] = u
        g.sizes[MOVED] += 1


@inline
def move_by(g: GraphArrays, u: int, distance: np.float32) -> None:
    """H_u has moved: that is looked at when it may be too far from P, by the sum of all distances."""
    g.leeway[u] -= distance
    if g.leeway[u] <= 0:
        mark_moved(g, u)
