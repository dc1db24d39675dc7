"""Regions of a pool of arcs: slabs of 2^18 arcs hold regions of one size each, larger ones take slabs in a row.

A region is a power of two of arcs. A slab that has a region to give stands in the list of its size; one without
lists in it is emptied, serves any size again, and its memory can go back to the system. Compaction closes slabs
that are hardly used: they give nothing more, and are emptied by moving their lists (`adjacency.tidy`).
"""

from __future__ import annotations

from .arrays import (
    CLOSED,
    EMPTIED,
    FILLED,
    FREE,
    FRESH,
    HELD,
    LIVE,
    NEXT,
    OPEN,
    PREVIOUS,
    SIZE,
    SLAB_BITS,
    SLABS,
    TOUCHED,
    Adjacency,
)
from .compile import inner, kernel

SLAB = 1 << SLAB_BITS
NO_SIZE = -1  # of an emptied slab


@inner
def size_class(arcs: int) -> int:
    """log2 of the smallest power of two that holds them."""
    size = 0
    while 1 << size < arcs:
        size += 1
    return size


@inner
def take(a: Adjacency, size: int) -> int:
    """Offset of a region of 2^size arcs, or −1 when the pool is full."""
    if size >= SLAB_BITS:
        s = _take_slabs(a, size, 1 << (size - SLAB_BITS))
        return s << SLAB_BITS if s >= 0 else -1
    s = a.pool[OPEN + size]
    if s < 0:
        s = _take_slabs(a, size, 1)
        if s < 0:
            return -1
        _link(a, s)
    place = a.slabs[s, FREE]
    if place >= 0:
        a.slabs[s, FREE] = a.words[2 * ((s << SLAB_BITS) + place)]
    else:
        place = a.slabs[s, FRESH]
        a.slabs[s, FRESH] += 1 << size
    a.slabs[s, LIVE] += 1
    if _is_full(a, s):
        _unlink(a, s)
    return (s << SLAB_BITS) + place


@inner
def give(a: Adjacency, offset: int, size: int) -> None:
    """A region of 2^size arcs is free."""
    s = offset >> SLAB_BITS
    if size >= SLAB_BITS:
        for following in range(s, s + (1 << (size - SLAB_BITS))):
            _empty(a, following)
        return
    if _is_full(a, s) and a.slabs[s, CLOSED] == 0:
        _link(a, s)
    a.words[2 * offset] = a.slabs[s, FREE]
    a.slabs[s, FREE] = offset - (s << SLAB_BITS)
    a.slabs[s, LIVE] -= 1
    if a.slabs[s, LIVE] == 0:
        if a.slabs[s, CLOSED] == 0:
            _unlink(a, s)
        _empty(a, s)


@inner
def close_sparse(a: Adjacency) -> None:
    """Close slabs that are less than half used, but for one of each size, which takes their lists in."""
    for size in range(SLAB_BITS):
        s = a.pool[OPEN + size]
        if s < 0:
            continue
        s = a.slabs[s, NEXT]
        while s >= 0:
            following = a.slabs[s, NEXT]
            if 2 * a.slabs[s, LIVE] << size < SLAB:
                _unlink(a, s)
                a.slabs[s, CLOSED] = 1
            s = following


@inner
def is_closed(a: Adjacency, offset: int) -> bool:
    """Whether the region there is to be moved."""
    return a.slabs[offset >> SLAB_BITS, CLOSED] == 1


@inner
def is_wasteful(a: Adjacency) -> bool:
    """Whether slabs hold more room than lists that grew to their length would, beyond a slab of each size."""
    return (a.pool[FILLED] - SLAB_BITS) << SLAB_BITS > 5 * a.pool[HELD]


@kernel
def emptied(a: Adjacency) -> int:
    """A slab whose memory can go back to the system, or −1; it counts as given back."""
    if a.pool[EMPTIED] == 0:
        return -1
    for s in range(a.pool[SLABS]):
        if a.slabs[s, SIZE] == NO_SIZE and a.slabs[s, TOUCHED] == 1:
            a.slabs[s, TOUCHED] = 0
            a.pool[EMPTIED] -= 1
            return s
    return -1


@inner
def _take_slabs(a: Adjacency, size: int, count: int) -> int:
    """The first of `count` emptied slabs in a row, or of new ones; −1 when there is no room."""
    first, found = 0, 0
    for s in range(a.pool[SLABS]):
        found = found + 1 if a.slabs[s, SIZE] == NO_SIZE else 0
        first = s + 1 - found
        if found == count:
            break
    if found == 0:
        first = a.pool[SLABS]
    if first + count > len(a.slabs):
        return -1
    for s in range(first, first + count):
        if s < a.pool[SLABS] and a.slabs[s, TOUCHED] == 1:
            a.pool[EMPTIED] -= 1
        a.slabs[s, SIZE] = size
        a.slabs[s, LIVE] = 0
        a.slabs[s, FREE] = -1
        a.slabs[s, FRESH] = 0
        a.slabs[s, TOUCHED] = 1
    a.pool[SLABS] = max(a.pool[SLABS], first + count)
    a.pool[FILLED] += count
    return first


@inner
def _empty(a: Adjacency, s: int) -> None:
    a.slabs[s, SIZE] = NO_SIZE
    a.slabs[s, CLOSED] = 0
    a.pool[FILLED] -= 1
    a.pool[EMPTIED] += 1


@inner
def _is_full(a: Adjacency, s: int) -> bool:
    return a.slabs[s, FREE] < 0 and a.slabs[s, FRESH] == SLAB


@inner
def _link(a: Adjacency, s: int) -> None:
    """Slab s has a region to give."""
    head = OPEN + a.slabs[s, SIZE]
    a.slabs[s, PREVIOUS] = -1
    a.slabs[s, NEXT] = a.pool[head]
    if a.pool[head] >= 0:
        a.slabs[a.pool[head], PREVIOUS] = s
    a.pool[head] = s


@inner
def _unlink(a: Adjacency, s: int) -> None:
    before, after = a.slabs[s, PREVIOUS], a.slabs[s, NEXT]
    if before >= 0:
        a.slabs[before, NEXT] = after
    else:
        a.pool[OPEN + a.slabs[s, SIZE]] = after
    if after >= 0:
        a.slabs[after, PREVIOUS] = before
