"""Push: H_u += d, R_u = 0, R_t += (1−α) P_tu d for every arc t → u, until no |R|∞ is above ε (DESIGN §2.1).

Nearly all of the time goes into waiting for rows of R, so every row is asked for before its turn comes.
"""

from __future__ import annotations

import numpy as np

from .arrays import ARC_UPDATES, PENDING, PUSHES, VISITED, GraphArrays, Index
from .compile import inline, kernel
from .repair import AHEAD, mark_moved, wake
from .vector import add_scaled, largest, prefetch, take

LARGE = 0.25  # of the largest pending residual: these rows are pushed now, the others keep collecting


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
            if largest(g.R, u) > np.float32(epsilon):
                _push_row(g, u, alpha, epsilon)
    return 0


@kernel
def push_row(g: GraphArrays, u: int, alpha: float, epsilon: float) -> None:
    """One push, whatever its size."""
    _push_row(g, u, alpha, epsilon)


@inline
def _choose(g: GraphArrays) -> int:
    """Move the large rows of `pending` to `work`."""
    n = g.sizes[PENDING]
    top = np.float32(0)
    for i in range(n):
        top = max(top, g.norm[g.pending[i]])
    level = LARGE * top
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
def _push_row(g: GraphArrays, u: int, alpha: float, epsilon: float) -> None:
    """d = R_u / (1 − (1−α) P_uu), the same rule for ordinary, self-looped and absorbing rows."""
    own = 1.0 if g.weight_sum[u] == 0 else np.float64(g.self_weight[u]) / g.weight_sum[u]
    take(g.R, g.H, u, g.step, 1 / (1 - (1 - alpha) * own), 1 - alpha)
    mark_moved(g, u)
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


@kernel
def max_pending(g: GraphArrays) -> np.float32:
    """Largest |R|∞ among pending rows: with ε, the largest of all rows."""
    top = np.float32(0)
    for i in range(g.sizes[PENDING]):
        top = max(top, largest(g.R, g.pending[i]))
    return top
