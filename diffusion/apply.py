"""Operations of a batch, in their order, on lists and residuals; pushing comes after."""

from __future__ import annotations

import numpy as np

from .adjacency import append, ask_for, drop, find, free, reserve, touch
from .arrays import (
    ARCS,
    ARCS_CHANGED,
    EDGES,
    FEATURES_CHANGED,
    LOST_ADDS,
    NOTHING_DONE,
    VISITED,
    Adjacency,
    Bytes,
    Floats,
    GraphArrays,
    Rows,
)
from .compile import inline, kernel
from .repair import look_at, mark_dirty, mark_moved, repair_arc, set_weight_sum
from .vector import largest, prefetch

# kinds of operation
ADD_ROW, SET_FEATURES, REMOVE_ROW, SET_ARC, ADD_ARC, REMOVE_ARC = range(6)
# outcomes of one; FULL: nothing was changed, grow the pools and repeat
APPLIED, NOTHING, LOST, OVERFLOW, FULL = range(5)


@inline
def apply(
    g: GraphArrays,
    undirected: bool,
    kind: Bytes,
    u: Rows,
    v: Rows,
    w: Floats,
    f: Rows,
    features: Floats,
    outcome: Bytes,
    start: int,
    stop: int,
    alpha: float,
    epsilon: float,
) -> int:
    """Apply operations from `start` to `stop`; returns the first one not applied, for want of room in the pools.

    Columns have one entry per operation; f is a row of `features` [k, F], or −1 for zeros. (u, v) of an arc
    is u → v; the kernel does both sides of an undirected edge.
    """
    for i in range(start, stop):
        _look_ahead(g, u, v, i)
        if kind[i] == ADD_ROW:
            add_row(g, u[i], f[i], features)
            outcome[i] = APPLIED
        elif kind[i] == SET_FEATURES:
            outcome[i] = set_features(g, u[i], features[f[i]], alpha, epsilon)
        elif kind[i] == REMOVE_ROW:
            remove_row(g, undirected, u[i], alpha, epsilon)
            outcome[i] = APPLIED
        else:
            outcome[i] = change_arc(g, undirected, kind[i], u[i], v[i], w[i], alpha, epsilon)
            if outcome[i] == FULL:
                return i
            if outcome[i] == LOST:
                g.counters[LOST_ADDS] += 1
        if outcome[i] == NOTHING:
            g.counters[NOTHING_DONE] += 1
    return stop


@inline
def _look_ahead(g: GraphArrays, u: Rows, v: Rows, i: int) -> None:
    """Records of rows eight operations ahead, vectors and lists four ahead."""
    if i + 8 < len(u):
        prefetch(g.record, u[i + 8])
        prefetch(g.record, v[i + 8])
    if i + 4 < len(u):
        near, far = u[i + 4], v[i + 4]
        for row in (near, far):
            prefetch(g.X, row)
            prefetch(g.H, row)
            prefetch(g.R, row)
            prefetch(g.beside, row)
        ask_for(g.rows, near, far)
        ask_for(g.columns, far, near)


@inline
def add_row(g: GraphArrays, u: int, f: int, features: Floats) -> None:
    """A new node on a free row: absorbing, so H = X and R = 0."""
    g.counters[VISITED] += 1
    for c in range(g.X.shape[1]):
        x = features[f, c] if f >= 0 and c < features.shape[1] else np.float32(0)
        g.X[u, c] = x
        g.H[u, c] = x
        g.R[u, c] = 0
        g.P[u, c] = 0
    set_weight_sum(g, u, 0.0)
    g.weight_ref[u] = 0
    g.self_weight[u] = 0
    g.alive[u] = 1
    g.announced[u] = 0
    g.unknown[u] = 0
    mark_moved(g, u)
    mark_dirty(g, u, FEATURES_CHANGED)


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


@kernel
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
