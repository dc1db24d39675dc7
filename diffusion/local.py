"""Localized diffusion: what an event does to lists and residuals, and the pushes that bring residuals back.

Repairs (DESIGN §2.2), in O(F) and on row u alone: with ρ_v = α(X_u − H_u) + (1−α)(H_v − H_u), R_u is the weighted
mean of ρ_v over the arcs of u; an arc whose weight goes from w0 to w moves it by θ(ρ_v − R_u), θ = (w − w0)/W'.

Push (§2.1): H_u += d, R_u = 0, R_t += (1−α) P_tu d for every arc t → u, until no |R|∞ is above ε. Nearly all of its
time goes into waiting for rows of R, so every row is asked for before its turn comes.
"""

from __future__ import annotations

import numpy as np

from .adjacency import append, ask_for, drop, find, free, reserve, touch
from .arrays import (
    ARC_UPDATES,
    ARCS,
    ARCS_CHANGED,
    EDGES,
    FEATURES_CHANGED,
    ID_CHANGED,
    PENDING,
    PUSHES,
    VISITED,
    Adjacency,
    Floats,
    GraphArrays,
    Index,
    Rows,
)
from .compile import inline, inner, kernel
from .marks import look_at, mark_dirty, mark_moved, move_by, wake
from .vector import add_scaled, largest, move_toward, prefetch, take

AHEAD = 16  # arcs: rows asked for before they are needed
SMALL, LARGE = 2.0**-64, 2.0**64  # between them sums and products with them stay in the middle of float32
COARSE = 0.25  # of the largest pending residual: these rows are pushed now, the others keep collecting

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


@kernel
def push(g: GraphArrays, alpha: float, epsilon: float, arc_budget: int) -> int:
    """Push pending rows, largest first; returns how many are left, more than 0 only when the budget is spent.

    The invariant of `pending` holds at every return.
    """
    stop = g.counters[ARC_UPDATES] + arc_budget
    while g.sizes[PENDING] > 0:
        chosen = _choose(g)
        for i in range(chosen):
            if g.counters[ARC_UPDATES] >= stop:
                for u in g.work[i:chosen]:
                    g.pending[g.sizes[PENDING]] = u
                    g.sizes[PENDING] += 1
                return g.sizes[PENDING]
            _look_ahead(g, i, chosen)
            u = g.work[i]
            g.norm[u] = 0
            g.counters[VISITED] += 1
            norm = largest(g.R, u)
            if norm > np.float32(epsilon):
                _push_row(g, u, norm, alpha, epsilon)
    return 0


@kernel
def push_row(g: GraphArrays, u: int, alpha: float, epsilon: float) -> None:
    """One push, whatever its size."""
    _push_row(g, u, largest(g.R, u), alpha, epsilon)


@inline
def _choose(g: GraphArrays) -> int:
    """Move the large rows of `pending` to `work`."""
    n = g.sizes[PENDING]
    top = np.float32(0)
    for i in range(n):
        top = max(top, g.norm[g.pending[i]])
    level = COARSE * top
    chosen, kept = 0, 0
    for i in range(n):
        u = g.pending[i]
        if g.norm[u] >= level:
            g.work[chosen] = u
            chosen += 1
        else:
            g.pending[kept] = u
            kept += 1
    g.sizes[PENDING] = kept
    return chosen


@inline
def _look_ahead(g: GraphArrays, i: int, chosen: int) -> None:
    """Records of rows twelve turns ahead, vectors and lists six ahead, the first neighbours three ahead."""
    if i == 0:  # of rows at the head of a sweep nothing has been asked for, but their records when they woke
        for turn in range(min(chosen, 6)):
            _ask_for_row(g, g.work[turn])
        for turn in range(min(chosen, 3)):
            _ask_for_neighbours(g, g.work[turn])
    if i + 12 < chosen:
        prefetch(g.record, g.work[i + 12])
    if i + 6 < chosen:
        _ask_for_row(g, g.work[i + 6])
    if i + 3 < chosen:
        _ask_for_neighbours(g, g.work[i + 3])


@inline
def _ask_for_row(g: GraphArrays, u: int) -> None:
    prefetch(g.R, u)
    prefetch(g.H, u)
    prefetch(g.columns.words, 2 * g.columns.offset[u])
    prefetch(g.columns.words, 2 * g.columns.offset[u] + 16)


@inline
def _ask_for_neighbours(g: GraphArrays, u: int) -> None:
    begin = np.uint64(g.columns.offset[u])
    for k in range(begin, begin + np.uint64(min(AHEAD, g.columns.length[u]))):
        _ask_for_neighbour(g, k)


@inline
def _ask_for_neighbour(g: GraphArrays, k: Index) -> None:
    t = np.uint32(g.columns.target[k])
    prefetch(g.R, t)
    prefetch(g.beside, t)


@inline
def _push_row(g: GraphArrays, u: int, norm: np.float32, alpha: float, epsilon: float) -> None:
    """d = R_u / (1 − (1−α) P_uu), the same rule for ordinary, self-looped and absorbing rows; norm = |R_u|∞."""
    own = 1.0 if g.weight_sum[u] == 0 else np.float64(g.self_weight[u]) / g.weight_sum[u]
    scale = np.float32(1 / (1 - (1 - alpha) * own))
    take(g.R, g.H, u, g.step, scale, 1 - alpha)
    move_by(g, u, scale * norm)
    a, limit = g.columns, np.float32(epsilon)
    g.counters[PUSHES] += 1
    g.counters[ARC_UPDATES] += a.length[u]
    g.counters[VISITED] += a.length[u]
    # Unsigned: an index that could be negative would be tested for it.
    begin, ahead = np.uint64(a.offset[u]), np.uint64(AHEAD)
    end = begin + np.uint64(a.length[u])
    for k in range(begin, end):
        if k + ahead < end:
            _ask_for_neighbour(g, k + ahead)
        t = np.uint32(a.target[k])
        if t != u:
            norm = add_scaled(g.R, t, g.step, _share(g, t, a.weight[k]))
            if norm > limit:
                wake(g, t, norm)


@inline
def _share(g: GraphArrays, t: Index, w: np.float32) -> np.float32:
    """P_tu of an arc t → u of weight w."""
    return w * g.inverse[t] if g.inverse[t] > 0 else np.float32(np.float64(w) / g.weight_sum[t])
