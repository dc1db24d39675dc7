"""The index of a long list: open addressing, so that no event scans it.

It stands behind the list, in the same region: 2·capacity words, each the place of an arc in the list, or −1. The
place is looked for from a word that the target's number scatters to, one after another.
"""

from __future__ import annotations

import numpy as np

from .arrays import Adjacency
from .compile import inline, inner

SCATTER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio: multiples of it lie far apart
UPPER = np.uint64(32)


@inline
def first_word(a: Adjacency, u: int) -> int:
    """Where the index of u begins in `words`."""
    return int(2 * (a.offset[u] + a.capacity[u]))


@inline
def last_word(a: Adjacency, u: int) -> int:
    """Words of the index of u, less one: a mask."""
    return int(2 * a.capacity[u] - 1)


@inline
def home(v: int, mask: int) -> int:
    """The word at which the search for target v starts."""
    return int(np.int64((np.uint64(v) * SCATTER) >> UPPER) & mask)


@inline
def look_up(a: Adjacency, u: int, v: int) -> int:
    """The word that knows v, or the empty one where it would stand."""
    begin, mask, list_begin = first_word(a, u), last_word(a, u), a.offset[u]
    at = home(v, mask)
    while True:
        place = a.words[begin + at]
        if place < 0 or a.target[list_begin + place] == v:
            return at
        at = (at + 1) & mask


@inner
def make_index(a: Adjacency, u: int) -> None:
    """Of the whole list."""
    begin, mask = first_word(a, u), last_word(a, u)
    a.words[begin : begin + mask + 1] = -1
    for place in range(a.length[u]):
        at = home(a.target[a.offset[u] + place], mask)
        while a.words[begin + at] >= 0:
            at = (at + 1) & mask
        a.words[begin + at] = place


@inner
def forget(a: Adjacency, u: int, v: int) -> None:
    """Take v out; those behind it move up, so that no search ends before its target."""
    begin, mask, list_begin = first_word(a, u), last_word(a, u), a.offset[u]
    gap = look_up(a, u, v)
    at = gap
    while True:
        at = (at + 1) & mask
        place = a.words[begin + at]
        if place < 0:
            break
        if (at - home(a.target[list_begin + place], mask)) & mask >= (at - gap) & mask:
            a.words[begin + gap] = place
            gap = at
    a.words[begin + gap] = -1
