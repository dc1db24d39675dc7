"""Compaction of the pools of arcs, one small step with each batch."""

from __future__ import annotations

from .adjacency import free, move
from .arrays import SLAB_BITS, SMALLEST, TIDIED, Adjacency, GraphArrays
from .compile import kernel
from .memory import give_back
from .pool import close_sparse, emptied, is_closed, is_wasteful, size_class

CALM, BRISK = 256, 8192  # lists looked at in a step, and when much of the pool is unused
MOVED_AT_ONCE = 1 << 14  # arcs


def compact(g: GraphArrays, used: int) -> None:
    """One step on each side; at most one slab of each goes back to the system."""
    for side in (g.rows,) if g.columns is g.rows else (g.rows, g.columns):
        tidy(side, used)
        slab = emptied(side)
        if slab >= 0:
            give_back(side.words, slab << (SLAB_BITS + 1), (slab + 1) << (SLAB_BITS + 1))


@kernel
def tidy(a: Adjacency, used: int) -> None:
    """Some lists in turn: a region four times too large becomes a smaller one, a closed slab is left."""
    u, moved = a.pool[TIDIED], 0
    for _ in range(min(used, BRISK if is_wasteful(a) else CALM)):
        u = u + 1 if u + 1 < used else 0
        if u == 0:
            close_sparse(a)
        capacity = a.capacity[u]
        if capacity == 0:
            continue
        if a.length[u] == 0:
            free(a, u)
            continue
        fitting = max(SMALLEST, 1 << size_class(a.length[u] + 1))
        if 2 * fitting >= capacity:  # what was four times too large would soon grow again
            fitting = capacity
        if (fitting < capacity or is_closed(a, a.offset[u])) and move(a, u, fitting):
            moved += fitting
            if moved > MOVED_AT_ONCE:
                break
    a.pool[TIDIED] = u
