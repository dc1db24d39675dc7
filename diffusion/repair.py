"""Repairs: what an event does to the residuals, in O(F) and on row u alone (DESIGN §2.2).

With ρ_v = α(X_u − H_u) + (1−α)(H_v − H_u), R_u is the weighted mean of ρ_v over the arcs of u. An arc whose
weight goes from w0 to w moves that mean by θ(ρ_v − R_u), θ = (w − w0)/W'.
"""

from __future__ import annotations

import numpy as np

from .arrays import ARCS_CHANGED, DIRTY, MOVED, PENDING, VISITED, GraphArrays, Index
from .compile import inline, inner
from .vector import largest, move_toward, prefetch

AHEAD = 16  # arcs: rows asked for before they are needed
SMALL, LARGE = 2.0**-64, 2.0**64


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
    if g.moved_mark[u] == 0:
        g.moved_mark[u] = 1
        g.moved[g.sizes[MOVED]] = u
        g.sizes[MOVED] += 1


@inline
def set_weight_sum(g: GraphArrays, u: int, total: float) -> None:
    """W_u, and its inverse where neither it nor a product with it leaves the middle of float32."""
    g.weight_sum[u] = total
    g.inverse[u] = 1 / total if SMALL < total < LARGE else 0.0


@inner
def rebuild_row(g: GraphArrays, u: int, alpha: float) -> np.float32:
    """R_u from its definition, in float64: O(degree·F). Returns how far the maintained one was off."""
    exact = g.exact_row
    a = g.rows
    begin, end = a.offset[u], a.offset[u] + a.length[u]
    g.counters[VISITED] += 1 + end - begin
    total = 0.0
    exact[:] = 0.0
    for k in range(begin, end):
        if k + AHEAD < end:
            prefetch(g.H, a.target[k + AHEAD])
        w, v = np.float64(a.weight[k]), a.target[k]
        total += w
        for f in range(len(exact)):
            exact[f] += w * g.H[v, f]
    set_weight_sum(g, u, total)
    g.weight_ref[u] = total
    drift = np.float32(0)
    for f in range(len(exact)):
        mean = exact[f] / total if end > begin else np.float64(g.H[u, f])
        r = np.float32(alpha * g.X[u, f] + (1 - alpha) * mean - g.H[u, f])
        drift = max(drift, abs(r - g.R[u, f]))
        g.R[u, f] = r
    return drift


@inline
def repair_arc(
    g: GraphArrays, u: int, v: int, before: np.float32, after: np.float32, alpha: float, epsilon: float
) -> None:
    """R_u after the arc u → v went from one weight to another; the list is already changed."""
    mark_dirty(g, u, ARCS_CHANGED)
    if u == v:
        g.self_weight[u] = after
    change = np.float64(after) - np.float64(before)
    total = g.weight_sum[u] + change
    # One arc is too few, and half the largest sum too little, for the mean to be trusted: ask the definition.
    if g.rows.length[u] <= 1 or total < g.weight_ref[u] / 2:
        rebuild_row(g, u, alpha)
        look_at(g, u, largest(g.R, u), epsilon)
        return
    g.counters[VISITED] += 2
    set_weight_sum(g, u, total)
    g.weight_ref[u] = max(g.weight_ref[u], total)
    look_at(g, u, move_toward(g.X, g.H, g.R, u, v, alpha, change / total), epsilon)
