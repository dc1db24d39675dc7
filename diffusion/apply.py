"""Operations on lists and residuals; pushing comes after."""

from __future__ import annotations

import numpy as np

from .adjacency import append, ask_for, drop, find, free, reserve, touch
from .arrays import (
    ARCS,
    ARCS_CHANGED,
    EDGES,
    FEATURES_CHANGED,
    ID_CHANGED,
    VISITED,
    Adjacency,
    Floats,
    GraphArrays,
    Rows,
)
from .compile import inline, inner, kernel
from .repair import look_at, mark_dirty, mark_moved, repair_arc, set_weight_sum
from .vector import largest, prefetch

# what may be done to an arc
SET_ARC, ADD_ARC, REMOVE_ARC = range(3)
# outcomes of one; FULL: nothing was changed, grow the pools and repeat
APPLIED, NOTHING, LOST, OVERFLOW, FULL = range(5)


@inline
def look_ahead(g: GraphArrays, ends: Rows, i: int, turned: bool) -> None:
    """Records of rows eight operations ahead, vectors and lists four ahead; a row below 0 is not known yet."""
    for j in range(2):
        if i + 8 < len(ends) and ends[i + 8, j] >= 0:
            prefetch(g.record, ends[i + 8, j])
        if i + 4 < len(ends) and ends[i + 4, j] >= 0:
            row = ends[i + 4, j]
            prefetch(g.X, row)
            prefetch(g.H, row)
            prefetch(g.R, row)
            prefetch(g.beside, row)
    if i + 4 < len(ends) and ends[i + 4, 0] >= 0 and ends[i + 4, 1] >= 0:
        u, v = (ends[i + 4, 1], ends[i + 4, 0]) if turned else (ends[i + 4, 0], ends[i + 4, 1])
        ask_for(g.rows, u, v)
        ask_for(g.columns, v, u)


@inline
def add_row(g: GraphArrays, u: int, x: Floats) -> None:
    """A new node on a free row: absorbing, so H = X [F] and R = 0."""
    g.counters[VISITED] += 1
    for c in range(g.X.shape[1]):
        value = x[c] if c < len(x) else np.float32(0)
        g.X[u, c] = value
        g.H[u, c] = value
        g.R[u, c] = 0
        g.P[u, c] = 0
    set_weight_sum(g, u, 0.0)
    g.weight_ref[u] = 0
    g.self_weight[u] = 0
    g.alive[u] = 1
    g.announced[u] = 0
    g.unknown[u] = 0
    mark_moved(g, u)
    mark_dirty(g, u, ID_CHANGED | FEATURES_CHANGED)


@inline
def set_features(g: GraphArrays, u: int, x: Floats, alpha: float, epsilon: float) -> int:
    """R_u += α(x' − x)"""
    g.counters[VISITED] += 1
    changed = False
    for c in range(len(x)):
        if x[c] != g.X[u, c]:
            changed = True
            g.R[u, c] += np.float32(alpha * (np.float64(x[c]) - np.float64(g.X[u, c])))
            g.X[u, c] = x[c]
    if not changed:
        return NOTHING
    mark_dirty(g, u, FEATURES_CHANGED)
    look_at(g, u, largest(g.R, u), epsilon)
    return APPLIED


@inline
def change_arc(
    g: GraphArrays, undirected: bool, kind: int, u: int, v: int, w: np.float32, alpha: float, epsilon: float
) -> int:
    """The weight of u → v becomes w, grows by w, or the arc goes."""
    out, back = _positions(g, u, v)
    before = g.rows.weight[out] if out >= 0 else np.float32(0)
    after = np.float32(0)
    if kind == SET_ARC:
        after = w
    elif kind == ADD_ARC:
        after = np.float32(before + w)
    if not np.isfinite(after):
        return OVERFLOW
    if after == before:
        return LOST if kind == ADD_ARC else NOTHING
    if out < 0 and not (reserve(g.rows, u) and reserve(g.columns, v)):
        return FULL
    once = undirected and u == v
    _write(g.rows, u, v, out, after)
    if not once:
        _write(g.columns, v, u, back, after)
    step = 0 if out >= 0 and after > 0 else (1 if after > 0 else -1)
    g.sizes[EDGES] += step
    g.sizes[ARCS] += step if not undirected or u == v else 2 * step
    repair_arc(g, u, v, before, after, alpha, epsilon)
    if undirected and u != v:
        repair_arc(g, v, u, before, after, alpha, epsilon)
    return APPLIED


@kernel
def find_arc(g: GraphArrays, u: int, v: int) -> int:
    """Position of v in the row of u, or −1."""
    return _positions(g, u, v)[0]


@inline
def _positions(g: GraphArrays, u: int, v: int) -> tuple[int, int]:
    """Of v in the row of u and of u in the column of v, or −1; the shorter list is asked first."""
    if g.rows.length[u] <= g.columns.length[v]:
        out = find(g.rows, u, v)
        return out, (find(g.columns, v, u) if out >= 0 else -1)
    back = find(g.columns, v, u)
    return (find(g.rows, u, v) if back >= 0 else -1), back


@inline
def _write(a: Adjacency, u: int, v: int, k: int, w: np.float32) -> None:
    if k < 0:
        append(a, u, v, w)
    elif w > 0:
        a.weight[k] = w
        touch(a, u, k)
    else:
        drop(a, u, k)


@inner
def remove_row(g: GraphArrays, undirected: bool, v: int, alpha: float, epsilon: float) -> None:
    """Remove the arcs that point at v, drop v's own from the lists of their targets, free the row."""
    incoming = g.columns.length[v]
    for k in range(g.columns.offset[v], g.columns.offset[v] + incoming):
        t = g.columns.target[k]
        if t != v:
            before = g.columns.weight[k]
            drop(g.rows, t, find(g.rows, t, v))
            repair_arc(g, t, v, before, np.float32(0), alpha, epsilon)
    g.counters[VISITED] += 1 + incoming
    loop = 1 if g.self_weight[v] > 0 else 0
    if undirected:
        g.sizes[EDGES] -= incoming
        g.sizes[ARCS] -= 2 * incoming - loop
    else:
        outgoing = g.rows.length[v]
        for k in range(g.rows.offset[v], g.rows.offset[v] + outgoing):
            z = g.rows.target[k]
            if z != v:
                drop(g.columns, z, find(g.columns, z, v))
        g.counters[VISITED] += outgoing
        g.sizes[EDGES] -= incoming + outgoing - loop
        g.sizes[ARCS] -= incoming + outgoing - loop
        free(g.columns, v)
    free(g.rows, v)
    mark_dirty(g, v, ARCS_CHANGED | FEATURES_CHANGED)
    g.X[v] = 0
    g.H[v] = 0
    g.R[v] = 0
    set_weight_sum(g, v, 0.0)
    g.self_weight[v] = 0
    g.alive[v] = 0
    g.generation[v] += 1
