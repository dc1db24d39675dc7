"""Events of a batch, in their order, on ids, arcs and residuals; pushing comes after."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..diffusion.apply import (
    ADD_ARC,
    APPLIED,
    FULL,
    LOST,
    NOTHING,
    OVERFLOW,
    REMOVE_ARC,
    SET_ARC,
    add_row,
    change_arc,
    find_arc,
    remove_row,
    set_features,
)
from ..diffusion.arrays import EDGES, LOST_ADDS, NOTHING_DONE, Bytes, Doubles, Floats, GraphArrays
from ..diffusion.compile import kernel
from ..diffusion.repair import largest
from .columns import ACCUMULATE_EDGE, REMOVE_EDGE, REMOVE_NODE, SET_FEATURES, UNREAD, Columns
from .id_table import FREE, NOBODY, TEXT, USED, IdTable, find_row, give_row, same_text, take_row

# outcomes of an event, beside those of an operation; the last ones refuse it
NOT_READ, WRONG_LENGTH, TOO_FAR, UNKNOWN_NODE, TOO_MANY_NODES, TOO_MANY_EDGES = range(10, 16)
REFUSED = (OVERFLOW, WRONG_LENGTH, TOO_FAR, UNKNOWN_NODE, TOO_MANY_NODES, TOO_MANY_EDGES)
# what an event wants before it can be applied; nothing but its new nodes was changed
NO_WANT, WANT_ROWS, WANT_TEXT, WANT_ARCS = range(4)
FULL_ROWS, FULL_TEXT = 20, 21
# bits of `born`
FIRST_BORN, SECOND_BORN = 1, 2


class Terms(NamedTuple):
    """What events are checked against, and how features become columns of the arrays."""

    undirected: bool
    turned: bool  # an edge source → target is the arc target → source
    create: bool  # nodes that were never added
    max_nodes: int
    max_edges: int
    alpha: float
    epsilon: float
    offset: Doubles  # [F]
    scale: Doubles  # [F]
    reach: Doubles  # [F]: how far from the offset a feature may lie
    zeros: Floats  # [F]: absent features as the arrays hold them
    zeros_fit: bool


@kernel
def apply_events(
    g: GraphArrays,
    ids: IdTable,
    c: Columns,
    terms: Terms,
    outcome: Bytes,
    born: Bytes,
    peak: Floats,
    start: int,
) -> tuple[int, int]:
    """Apply events from `start` on; returns the first one not applied and what it wants.

    Called again, with more room, it goes on there. peak[0] is raised to the largest |X|.
    """
    x = np.empty(g.X.shape[1], np.float32)
    bits = np.empty(1, np.uint32)
    for i in range(start, len(c.kind)):
        kind = c.kind[i]
        if kind == UNREAD:
            outcome[i] = NOT_READ
        elif kind == REMOVE_NODE:
            outcome[i] = _remove_node(g, ids, c, i, terms)
        elif kind <= SET_FEATURES:
            outcome[i] = _describe_node(g, ids, c, i, terms, born, peak, x, bits)
        else:
            outcome[i] = _change_edge(g, ids, c, i, terms, born, peak)
        if outcome[i] == FULL:
            return i, WANT_ARCS
        if outcome[i] == FULL_ROWS:
            return i, WANT_ROWS
        if outcome[i] == FULL_TEXT:
            return i, WANT_TEXT
        if outcome[i] == NOTHING:
            g.counters[NOTHING_DONE] += 1
        elif outcome[i] == LOST:
            g.counters[LOST_ADDS] += 1
    return len(c.kind), NO_WANT


@kernel
def _change_edge(
    g: GraphArrays, ids: IdTable, c: Columns, i: int, terms: Terms, born: Bytes, peak: Floats
) -> int:
    s = find_row(ids, c.text, c.first[i], c.first_size[i])
    t = find_row(ids, c.text, c.second[i], c.second_size[i])
    if c.kind[i] == REMOVE_EDGE:
        if s == NOBODY or t == NOBODY:
            return NOTHING
        u, v = (t, s) if terms.turned else (s, t)
        return change_arc(g, terms.undirected, REMOVE_ARC, u, v, np.float32(0), terms.alpha, terms.epsilon)
    if g.sizes[EDGES] >= terms.max_edges:
        u, v = (t, s) if terms.turned else (s, t)
        if s == NOBODY or t == NOBODY or find_arc(g, u, v) < 0:
            return TOO_MANY_EDGES
    if s == NOBODY or t == NOBODY:
        loop = s == t and c.first_size[i] == c.second_size[i]
        loop = loop and same_text(c.text, c.first[i], c.text, c.second[i], c.first_size[i])
        missing = (1 if s == NOBODY else 0) + (1 if t == NOBODY and not loop else 0)
        refused = _refusal(ids, terms, missing, c.first_size[i] + c.second_size[i])
        if refused != APPLIED:
            return refused
        if s == NOBODY:
            s = _create(g, ids, c.text, c.first[i], c.first_size[i], terms.zeros, peak)
            born[i] |= FIRST_BORN
        if loop:
            t = s
        elif t == NOBODY:
            t = _create(g, ids, c.text, c.second[i], c.second_size[i], terms.zeros, peak)
            born[i] |= SECOND_BORN
    u, v = (t, s) if terms.turned else (s, t)
    op = ADD_ARC if c.kind[i] == ACCUMULATE_EDGE else SET_ARC
    return change_arc(g, terms.undirected, op, u, v, c.weight[i], terms.alpha, terms.epsilon)


@kernel
def _describe_node(
    g: GraphArrays,
    ids: IdTable,
    c: Columns,
    i: int,
    terms: Terms,
    born: Bytes,
    peak: Floats,
    x: Floats,
    bits: np.ndarray,
) -> int:
    """AddNode and SetFeatures: the same but for a node that is not there."""
    given = c.features[i] >= 0
    if given:
        if c.width[i] != len(x):
            return WRONG_LENGTH
        if not _read_features(c.text, c.features[i], terms, x, bits):
            return TOO_FAR
    row = find_row(ids, c.text, c.first[i], c.first_size[i])
    if row == NOBODY:
        if c.kind[i] == SET_FEATURES and not terms.create:
            return UNKNOWN_NODE
        refused = _refusal_of_room(ids, terms, 1, c.first_size[i])
        if refused != APPLIED:
            return refused
        if not given and not terms.zeros_fit:
            return TOO_FAR
        _create(g, ids, c.text, c.first[i], c.first_size[i], x if given else terms.zeros, peak)
        born[i] |= FIRST_BORN
        return APPLIED
    if not given:
        return NOTHING
    peak[0] = max(peak[0], largest(x))
    return set_features(g, row, x, terms.alpha, terms.epsilon)


@kernel
def _remove_node(g: GraphArrays, ids: IdTable, c: Columns, i: int, terms: Terms) -> int:
    row = find_row(ids, c.text, c.first[i], c.first_size[i])
    if row == NOBODY:
        return NOTHING
    remove_row(g, terms.undirected, row, terms.alpha, terms.epsilon)
    give_row(ids, row)
    return APPLIED


@kernel
def _refusal(ids: IdTable, terms: Terms, missing: int, text: int) -> int:
    """Why an edge may not make its `missing` nodes."""
    if not terms.create:
        return UNKNOWN_NODE
    refused = _refusal_of_room(ids, terms, missing, text)
    if refused != APPLIED:
        return refused
    return APPLIED if terms.zeros_fit else TOO_FAR


@kernel
def _refusal_of_room(ids: IdTable, terms: Terms, missing: int, text: int) -> int:
    nodes = ids.counts[USED] - ids.counts[FREE]
    if nodes + missing > terms.max_nodes:
        return TOO_MANY_NODES
    if nodes + missing > len(ids.begin):
        return FULL_ROWS
    return FULL_TEXT if ids.counts[TEXT] + text > len(ids.text) else APPLIED


@kernel
def _create(g: GraphArrays, ids: IdTable, text: Bytes, begin: int, size: int, x: Floats, peak: Floats) -> int:
    row = take_row(ids, text, begin, size)
    add_row(g, row, x)
    peak[0] = max(peak[0], largest(x))
    return row


@kernel
def _read_features(text: Bytes, begin: int, terms: Terms, x: Floats, bits: np.ndarray) -> bool:
    """float32 little-endian as the arrays hold them; False when one is out of reach."""
    single = bits.view(np.float32)
    for f in range(len(x)):
        at = begin + 4 * f
        bits[0] = (
            np.uint32(text[at])
            | np.uint32(text[at + 1]) << np.uint32(8)
            | np.uint32(text[at + 2]) << np.uint32(16)
            | np.uint32(text[at + 3]) << np.uint32(24)
        )
        raw = np.float64(single[0])
        if abs(raw - terms.offset[f]) > terms.reach[f]:
            return False
        x[f] = np.float32((raw - terms.offset[f]) * terms.scale[f])
    return True
