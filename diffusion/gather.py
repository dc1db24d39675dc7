"""Copying changed arcs out as checkpoint chunks of 256."""

from __future__ import annotations

import numpy as np

from .arrays import CHUNK, CHUNK_BITS, Floats, GraphArrays, Ints, Rows
from .compile import inline, kernel
from .vector import prefetch

AHEAD = 8  # rows


def gather_arcs(g: GraphArrays, rows: Rows, everything: bool) -> tuple[Rows, Ints, Rows, Floats, Rows]:
    """Changed chunks of these rows, and the chunks they no longer have.

    Returns (row, chunk) [f, 2], ends [f] in targets and weights, and (row, chunk) [b, 2] to delete. Marks are
    cleared and `stored_chunks` says what the store will hold.
    """
    count, arcs, gone = _count(g, rows, everything)
    chunks, ends = np.empty((count, 2), np.int32), np.empty(count, np.int64)
    targets, weights = np.empty(arcs, np.int32), np.empty(arcs, np.float32)
    freed = np.empty((gone, 2), np.int32)
    _copy(g, rows, everything, chunks, ends, targets, weights, freed)
    return chunks, ends, targets, weights, freed


@kernel
def _count(g: GraphArrays, rows: Rows, everything: bool) -> tuple[int, int, int]:
    a = g.rows
    count, arcs, gone = 0, 0, 0
    for u in rows:
        for c in range(_chunks(a.length[u])):
            if everything or _wanted(g, u, c):
                count += 1
                arcs += min(CHUNK, a.length[u] - c * CHUNK)
        gone += max(0, g.stored_chunks[u] - _chunks(a.length[u]))
    return count, arcs, gone


@kernel
def _copy(
    g: GraphArrays,
    rows: Rows,
    everything: bool,
    chunks: Rows,
    ends: Ints,
    targets: Rows,
    weights: Floats,
    freed: Rows,
) -> None:
    a = g.rows
    i, at, j = 0, 0, 0
    for r in range(len(rows)):
        if r + AHEAD < len(rows):  # lists lie anywhere: most of the time would go into waiting for them
            coming = 2 * a.offset[rows[r + AHEAD]]
            prefetch(a.words, coming)
            prefetch(a.words, coming + 16)
        u = rows[r]
        held = _chunks(a.length[u])
        for c in range(held):
            if everything or _wanted(g, u, c):
                begin = a.offset[u] + c * CHUNK
                size = min(CHUNK, a.length[u] - c * CHUNK)
                for k in range(begin, begin + size):
                    targets[at], weights[at] = a.target[k], a.weight[k]
                    at += 1
                chunks[i, 0], chunks[i, 1] = u, c
                ends[i] = at
                i += 1
        for c in range(held, g.stored_chunks[u]):
            freed[j, 0], freed[j, 1] = u, c
            j += 1
        g.stored_chunks[u] = held
        if a.capacity[u] >= CHUNK:
            first = a.offset[u] >> CHUNK_BITS
            a.stale[first : first + (a.capacity[u] >> CHUNK_BITS)] = 0


@inline
def _chunks(length: int) -> int:
    return (length + CHUNK - 1) >> CHUNK_BITS


@inline
def _wanted(g: GraphArrays, u: int, c: int) -> bool:
    return g.rows.capacity[u] < CHUNK or g.rows.stale[(g.rows.offset[u] >> CHUNK_BITS) + c] == 1
