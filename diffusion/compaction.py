"""Memory that comes back: pools of arcs are compacted in one small step with each batch, lists of rows cut short."""

from __future__ import annotations

from .adjacency import free, move
from .arrays import DIRTY, MOVED, PENDING, SLAB_BITS, SMALLEST, TIDIED, Adjacency, GraphArrays
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


def cut_lists(g: GraphArrays) -> None:
    """Lists of rows were as long as the graph is large when it was loaded: what they do not use goes back."""
    used = ((g.pending, PENDING), (g.moved, MOVED), (g.dirty_rows, DIRTY))
    for rows, size in used:
        give_back(rows, int(g.sizes[size]), len(rows))
    give_back(g.work, 0, len(g.work))  # is used within a push only


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
