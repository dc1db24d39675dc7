"""Copying out what a checkpoint writes: changed rows, their vectors, and changed arcs in chunks of 256.

Nothing is pushed meanwhile, and what is copied lies anywhere: every row is asked for before its turn comes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .arrays import (
    ARCS_CHANGED,
    CHUNK,
    CHUNK_BITS,
    DIRTY,
    FEATURES_CHANGED,
    ID_CHANGED,
    VECTOR_CHANGED,
    Floats,
    GraphArrays,
    Ints,
    Rows,
)
from .compile import inline, kernel
from .vector import prefetch

AHEAD = 16  # rows


class Changed(NamedTuple):
    """Rows, ascending, by what the store must hear of them."""

    features: Rows
    vectors: Rows
    arcs: Rows
    born: Rows  # their ids
    freed: Rows  # what was stored of them goes; of a row that is used again, what it held before


def changed_rows(g: GraphArrays) -> Changed:
    """All that are dirty."""
    dirty = np.sort(g.dirty_rows[: g.sizes[DIRTY]])
    parts = np.empty((len(Changed._fields), len(dirty)), np.int32)
    counts = np.zeros(len(parts), np.int64)
    _sift(g, dirty, parts, counts)
    return Changed(*(part[:count] for part, count in zip(parts, counts.tolist(), strict=True)))


@kernel
def _sift(g: GraphArrays, dirty: Rows, parts: Rows, counts: Ints) -> None:
    for i in range(len(dirty)):
        if i + 2 * AHEAD < len(dirty):
            prefetch(g.record, dirty[i + 2 * AHEAD])
        u = dirty[i]
        what, alive = g.dirty[u], g.alive[u] == 1
        born = alive and what & ID_CHANGED > 0
        wanted = (
            alive and what & FEATURES_CHANGED > 0,
            alive and what & VECTOR_CHANGED > 0 and g.announced[u] == 1,
            what & ARCS_CHANGED > 0,
            born,
            born or not alive,
        )
        for part in range(len(wanted)):
            if wanted[part]:
                parts[part, counts[part]] = u
                counts[part] += 1


def copied(vectors: Floats, rows: Rows) -> Floats:
    """These rows of an array of the graph."""
    out = np.empty((len(rows), vectors.shape[1]), np.float32)
    _copy_rows(vectors, rows, out)
    return out


@kernel
def _copy_rows(vectors: Floats, rows: Rows, out: Floats) -> None:
    for i in range(len(rows)):
        if i + 2 * AHEAD < len(rows):
            prefetch(vectors, rows[i + 2 * AHEAD])
        for c in range(out.shape[1]):
            out[i, c] = vectors[rows[i], c]


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
    for r in range(len(rows)):
        _ask_for(g, rows, r)
        u = rows[r]
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
        _ask_for(g, rows, r)
        if r + AHEAD < len(rows):
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
def _ask_for(g: GraphArrays, rows: Rows, r: int) -> None:
    if r + 2 * AHEAD < len(rows):
        prefetch(g.record, rows[r + 2 * AHEAD])
        prefetch(g.stored_chunks, rows[r + 2 * AHEAD])


@inline
def _chunks(length: int) -> int:
    return (length + CHUNK - 1) >> CHUNK_BITS


@inline
def _wanted(g: GraphArrays, u: int, c: int) -> bool:
    return g.rows.capacity[u] < CHUNK or g.rows.stale[(g.rows.offset[u] >> CHUNK_BITS) + c] == 1
