"""Push: H_u += d, R_u = 0, R_t += (1−α) P_tu d for every arc t → u, until no |R|∞ is above ε (DESIGN §2.1)."""

from __future__ import annotations

import numpy as np

from .arrays import ARC_UPDATES, PENDING, PUSHES, VISITED, Floats, GraphArrays
from .compile import kernel, sweep
from .repair import largest, mark_moved

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
            u = g.work[i]
            g.pending_mark[u] = 0
            g.counters[VISITED] += 1
            if largest(g.R[u]) > epsilon:
                push_row(g, u, alpha, epsilon)
            g.norm[u] = 0 if g.pending_mark[u] == 0 else g.norm[u]
    return 0


@kernel
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


@kernel
def push_row(g: GraphArrays, u: int, alpha: float, epsilon: float) -> None:
    """One push: d = R_u / (1 − (1−α) P_uu), the same rule for ordinary, self-looped and absorbing rows."""
    own = 1.0 if g.weight_sum[u] == 0 else np.float64(g.self_weight[u]) / g.weight_sum[u]
    d = g.push_vector
    _take(g.R[u], g.H[u], d, np.float32(1 / (1 - (1 - alpha) * own)))
    mark_moved(g, u)
    a = g.columns
    begin, end = a.offset[u], a.offset[u] + a.length[u]
    g.counters[PUSHES] += 1
    g.counters[ARC_UPDATES] += end - begin
    g.counters[VISITED] += end - begin
    for k in range(begin, end):
        t = a.target[k]
        if t == u:
            continue
        c = np.float32((1 - alpha) * np.float64(a.weight[k]) / g.weight_sum[t])
        if _add(g.R[t], d, c, np.float32(epsilon)):
            g.norm[t] = largest(g.R[t])
            if g.pending_mark[t] == 0:
                g.pending_mark[t] = 1
                g.pending[g.sizes[PENDING]] = t
                g.sizes[PENDING] += 1


@sweep
def _take(r: Floats, h: Floats, d: Floats, scale: np.float32) -> None:
    for f in range(len(d)):
        d[f] = scale * r[f]
        h[f] += d[f]
        r[f] = 0


@sweep
def _add(r: Floats, d: Floats, c: np.float32, epsilon: np.float32) -> bool:
    """R_t += c·d; whether some |R_t| is above ε. The sum of excesses vectorises, a running maximum does not."""
    excess = np.float32(0)
    for f in range(len(d)):
        x = r[f] + c * d[f]
        r[f] = x
        excess += max(abs(x) - epsilon, np.float32(0))
    return bool(excess > 0)


@kernel
def max_pending(g: GraphArrays) -> np.float32:
    """Largest |R|∞ among pending rows: with ε, the largest of all rows."""
    top = np.float32(0)
    for i in range(g.sizes[PENDING]):
        top = max(top, largest(g.R[g.pending[i]]))
    return top
