"""Kernels on slack lists: find, reserve, append, drop, free."""

from __future__ import annotations

import numpy as np

from .arrays import CHUNK_BITS, SMALLEST, Adjacency
from .compile import kernel


@kernel
def find(a: Adjacency, u: int, v: int) -> int:
    """Position in the pool of v in the list of u, or −1."""
    for k in range(a.offset[u], a.offset[u] + a.length[u]):
        if a.target[k] == v:
            return k
    return -1


@kernel
def reserve(a: Adjacency, u: int) -> bool:
    """Make room for one more arc of u; False, with nothing changed, when the pool is full."""
    if a.length[u] < a.capacity[u]:
        return True
    capacity = max(SMALLEST, 2 * a.capacity[u])
    offset = _take_region(a, capacity)
    if offset < 0:
        return False
    old, length = a.offset[u], a.length[u]
    a.target[offset : offset + length] = a.target[old : old + length]
    a.weight[offset : offset + length] = a.weight[old : old + length]
    for chunk in range(offset >> CHUNK_BITS, ((offset + capacity - 1) >> CHUNK_BITS) + 1):
        # A list of one region below a chunk is rewritten as a whole; its former marks are not kept.
        a.stale[chunk] = 1 if a.capacity[u] < 1 << CHUNK_BITS else 0
    for chunk in range((length + (1 << CHUNK_BITS) - 1) >> CHUNK_BITS):
        if a.capacity[u] >= 1 << CHUNK_BITS:
            a.stale[(offset >> CHUNK_BITS) + chunk] = a.stale[(old >> CHUNK_BITS) + chunk]
    _give_region(a, old, a.capacity[u])
    a.offset[u], a.capacity[u] = offset, capacity
    return True


@kernel
def append(a: Adjacency, u: int, v: int, w: np.float32) -> None:
    """Add the arc to v at the end of the list of u, which has room."""
    k = a.offset[u] + a.length[u]
    a.target[k] = v
    a.weight[k] = w
    a.length[u] += 1
    touch(a, u, k)


@kernel
def drop(a: Adjacency, u: int, k: int) -> None:
    """Remove the arc at position k from the list of u; the last one takes its place."""
    last = a.offset[u] + a.length[u] - 1
    a.target[k] = a.target[last]
    a.weight[k] = a.weight[last]
    a.length[u] -= 1
    touch(a, u, k)
    touch(a, u, last)


@kernel
def touch(a: Adjacency, u: int, k: int) -> None:
    """Mark the checkpoint chunk of position k in the list of u."""
    if a.capacity[u] >= 1 << CHUNK_BITS:
        a.stale[k >> CHUNK_BITS] = 1


@kernel
def free(a: Adjacency, u: int) -> None:
    """Give the whole list of u back."""
    _give_region(a, a.offset[u], a.capacity[u])
    a.offset[u] = 0
    a.length[u] = 0
    a.capacity[u] = 0


@kernel
def _size_class(capacity: int) -> int:
    size = 0
    while 1 << size < capacity:
        size += 1
    return size


@kernel
def _take_region(a: Adjacency, capacity: int) -> int:
    size = _size_class(capacity)
    offset = a.pool[1 + size]
    if offset >= 0:
        a.pool[1 + size] = np.int64(a.target[offset]) * SMALLEST
        if a.target[offset] < 0:
            a.pool[1 + size] = -1
        return offset
    offset = a.pool[0]
    if capacity >= 1 << CHUNK_BITS:  # such regions start at a chunk, so that marks are theirs alone
        offset = ((offset + (1 << CHUNK_BITS) - 1) >> CHUNK_BITS) << CHUNK_BITS
    if offset + capacity > len(a.target):
        return -1
    a.pool[0] = offset + capacity
    return offset


@kernel
def _give_region(a: Adjacency, offset: int, capacity: int) -> None:
    if capacity == 0:
        return
    size = _size_class(capacity)
    head = a.pool[1 + size]
    a.target[offset] = -1 if head < 0 else head // SMALLEST
    a.pool[1 + size] = offset
