"""Kernels on slack lists: find, reserve, append, drop, free; hubs through their index."""

from __future__ import annotations

import numpy as np

from .arrays import CHUNK, CHUNK_BITS, HELD, HUB, SMALLEST, Adjacency
from .compile import inline, inner
from .hubs import first_word, forget, home, last_word, look_up, make_index
from .pool import give, size_class, take
from .vector import place_of, prefetch

ARCS_OF_A_LINE = 8
ASKED = 128  # arcs of a list asked for ahead: what follows them the machine fetches by itself


@inline
def find(a: Adjacency, u: int, v: int) -> int:
    """Position in the pool of v in the list of u, or −1."""
    begin = a.offset[u]
    if a.capacity[u] >= HUB:
        place = a.words[first_word(a, u) + look_up(a, u, v)]
        return begin + place if place >= 0 else -1
    place = place_of(a.words, begin, a.length[u], v)
    return begin + place if place >= 0 else -1


@inline
def ask_for(a: Adjacency, u: int, v: int) -> None:
    """Prefetch what `find` will read."""
    if a.capacity[u] >= HUB:
        prefetch(a.words, first_word(a, u) + home(v, last_word(a, u)))
    else:
        for k in range(a.offset[u], a.offset[u] + min(ASKED, a.length[u]), ARCS_OF_A_LINE):
            prefetch(a.words, 2 * k)


@inline
def reserve(a: Adjacency, u: int) -> bool:
    """Make room for one more arc of u; False, with nothing changed, when the pool is full."""
    if a.length[u] < a.capacity[u]:
        return True
    return move(a, u, max(SMALLEST, 2 * a.capacity[u]))


@inline
def append(a: Adjacency, u: int, v: int, w: np.float32) -> None:
    """Add the arc to v at the end of the list of u, which has room."""
    k = a.offset[u] + a.length[u]
    if a.capacity[u] >= HUB:
        a.words[first_word(a, u) + look_up(a, u, v)] = a.length[u]
    a.target[k] = v
    a.weight[k] = w
    a.length[u] += 1
    a.pool[HELD] += 1
    touch(a, u, k)


@inline
def drop(a: Adjacency, u: int, k: int) -> None:
    """Remove the arc at position k from the list of u; the last one takes its place."""
    last = a.offset[u] + a.length[u] - 1
    if a.capacity[u] >= HUB:
        forget(a, u, a.target[k])
        if k != last:
            a.words[first_word(a, u) + look_up(a, u, a.target[last])] = k - a.offset[u]
    a.target[k] = a.target[last]
    a.weight[k] = a.weight[last]
    a.length[u] -= 1
    a.pool[HELD] -= 1
    touch(a, u, k)
    touch(a, u, last)


@inline
def touch(a: Adjacency, u: int, k: int) -> None:
    """Mark the checkpoint chunk of position k in the list of u."""
    if a.capacity[u] >= CHUNK:
        a.stale[k >> CHUNK_BITS] = 1


@inline
def free(a: Adjacency, u: int) -> None:
    """Give the whole list of u back."""
    if a.capacity[u] > 0:
        give(a, a.offset[u], region_size(a.capacity[u]))
    a.pool[HELD] -= a.length[u]
    a.offset[u] = 0
    a.length[u] = 0
    a.capacity[u] = 0


@inline
def region_size(capacity: int) -> int:
    """Size of the region of a list: that of a hub holds its index too."""
    return size_class(capacity) + (1 if capacity >= HUB else 0)


@inner
def move(a: Adjacency, u: int, capacity: int) -> bool:
    """Into a region for `capacity` arcs; False, with nothing changed, when the pool is full."""
    offset = take(a, region_size(capacity))
    if offset < 0:
        return False
    old, held, length = a.offset[u], a.capacity[u], a.length[u]
    for word in range(2 * length):
        a.words[2 * offset + word] = a.words[2 * old + word]
    for chunk in range(capacity >> CHUNK_BITS):
        # A list of a region below a chunk is rewritten as a whole; its former marks are not kept.
        kept = chunk < held >> CHUNK_BITS
        a.stale[(offset >> CHUNK_BITS) + chunk] = a.stale[(old >> CHUNK_BITS) + chunk] if kept else not kept
    if held > 0:
        give(a, old, region_size(held))
    a.offset[u], a.capacity[u] = offset, capacity
    if capacity >= HUB:
        make_index(a, u)
    return True
