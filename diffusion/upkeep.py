"""Scrubbing and rebuilding residuals; choosing what to publish."""

from __future__ import annotations

import numpy as np

from .adjacency import append, reserve
from .arrays import (
    DIRTY,
    MOVED,
    PENDING,
    SCRUBBED,
    VECTOR_CHANGED,
    Adjacency,
    Floats,
    GraphArrays,
    Rows,
)
from .compile import kernel
from .local import AHEAD, rebuild_row
from .marks import look_at, mark_dirty, mark_moved
from .vector import largest, largest_difference, prefetch

UNROUNDED = 0.875  # ε is at least eight times what H is rounded by: a push moves it by an eighth more at most


@kernel
def scrub(
    g: GraphArrays, start: int, used: int, rows: int, alpha: float, epsilon: float
) -> tuple[int, np.float32]:
    """Recompute R of the next few rows, write it back; the next row and the largest drift found."""
    drift = np.float32(0)
    u = start
    for _ in range(min(rows, used)):
        u = u + 1 if u + 1 < used else 0
        if g.alive[u] == 1:
            drift = max(drift, rebuild_row(g, u, alpha))
            look_at(g, u, largest(g.R, u), epsilon)
            g.counters[SCRUBBED] += 1
    return u, drift


@kernel
def rebuild(g: GraphArrays, used: int, alpha: float, epsilon: float) -> None:
    """R of every row from its definition: one sparse product."""
    for u in range(used):
        if g.alive[u] == 1:
            rebuild_row(g, u, alpha)
            look_at(g, u, largest(g.R, u), epsilon)


@kernel
def wake_all(g: GraphArrays, used: int, epsilon: float) -> None:
    """Put every row above ε in `pending`."""
    for u in range(used):
        if g.alive[u] == 1:
            look_at(g, u, largest(g.R, u), epsilon)


@kernel
def select_moved(g: GraphArrays, tau: float, limit: int, chosen: Rows) -> int:
    """Rows to publish: moved by more than τ, never announced, unknown or asked for; the rest leave the list.

    Rows beyond `limit` stay in it; one that leaves comes back when it may have moved by more than τ. Not while a
    publication is in flight: its acknowledgement moves P.
    """
    count, kept = 0, 0
    for i in range(g.sizes[MOVED]):
        if i + AHEAD < g.sizes[MOVED]:
            ahead = g.moved[i + AHEAD]
            prefetch(g.record, ahead)
            prefetch(g.H, ahead)
            prefetch(g.P, ahead)
        u = g.moved[i]
        gap = largest_difference(g.H, g.P, u)
        wanted = g.alive[u] == 1 and (g.announced[u] == 0 or g.unknown[u] != 0 or gap > tau)
        if wanted and count == limit:
            g.moved[kept] = u
            kept += 1
            continue
        g.moved_mark[u] = 0
        if wanted:
            chosen[count] = u
            count += 1
        else:
            g.leeway[u] = UNROUNDED * (tau - gap)
    g.sizes[MOVED] = kept
    return count


@kernel
def move_all(g: GraphArrays, rows: Rows) -> None:
    """These rows await their publish decision."""
    for u in rows:
        mark_moved(g, u)


@kernel
def max_pending(g: GraphArrays) -> np.float32:
    """Largest |R|∞ among pending rows: with ε, the largest of all rows."""
    top = np.float32(0)
    for i in range(g.sizes[PENDING]):
        top = max(top, largest(g.R, g.pending[i]))
    return top


@kernel
def largest_gap(g: GraphArrays) -> np.float32:
    """Largest |H − P|∞ among announced rows that still await their decision; of the others none is above τ."""
    m = np.float32(0)
    for i in range(g.sizes[MOVED]):
        u = g.moved[i]
        if g.alive[u] == 1 and g.announced[u] == 1:
            m = max(m, largest_difference(g.H, g.P, u))
    return m


@kernel
def acknowledge(g: GraphArrays, rows: Rows, generations: Rows, vectors: Floats) -> None:
    """P := what consumers now hold, where the row still belongs to the same node."""
    for i in range(len(rows)):
        u = rows[i]
        if g.alive[u] == 1 and g.generation[u] == generations[i]:
            for f in range(vectors.shape[1]):
                g.P[u, f] = vectors[i, f]
            g.announced[u] = 1
            g.unknown[u] = 0
            mark_dirty(g, u, VECTOR_CHANGED)


@kernel
def clean(g: GraphArrays) -> None:
    """Forget the dirty rows: they have been gathered."""
    for i in range(g.sizes[DIRTY]):
        g.dirty[g.dirty_rows[i]] = 0
    g.sizes[DIRTY] = 0


@kernel
def load_arcs(a: Adjacency, u: Rows, v: Rows, w: Floats, start: int) -> int:
    """Append arcs as loaded; returns the first one that found no room."""
    for i in range(start, len(u)):
        if not reserve(a, u[i]):
            return i
        append(a, u[i], v[i], w[i])
    return len(u)


@kernel
def count_loops(g: GraphArrays, used: int) -> int:
    """Set self_weight from the lists; returns the number of self loops."""
    loops = 0
    for u in range(used):
        for k in range(g.rows.offset[u], g.rows.offset[u] + g.rows.length[u]):
            if g.rows.target[k] == u:
                g.self_weight[u] = g.rows.weight[k]
                loops += 1
    return loops
