"""Events of a batch, in their order, on ids, arcs and residuals; pushing comes after."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..diffusion.arrays import EDGES, LOST_ADDS, NOTHING_DONE, Bytes, Doubles, Floats, GraphArrays, Ints, Rows
from ..diffusion.compile import inline, inner, kernel
from ..diffusion.local import (
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
    look_ahead,
    remove_row,
    set_features,
)
from .columns import ACCUMULATE_EDGE, REMOVE_EDGE, REMOVE_NODE, SET_EDGE, SET_FEATURES, UNREAD, Columns
from .id_table import (
    AHEAD,
    FREE,
    NOBODY,
    TEXT,
    USED,
    IdTable,
    ask_for,
    find_row,
    find_tagged,
    give_row,
    hash_of,
    same_text,
    take_row,
)

# outcomes of an event, beside those of an operation
NOT_READ, WRONG_LENGTH, TOO_FAR, UNKNOWN_NODE, TOO_MANY_NODES, TOO_MANY_EDGES = range(10, 16)
REFUSED = np.zeros(16, np.bool_)  # by outcome
REFUSED[[OVERFLOW, WRONG_LENGTH, TOO_FAR, UNKNOWN_NODE, TOO_MANY_NODES, TOO_MANY_EDGES]] = True
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


class Batch(NamedTuple):
    """What becomes of the events [k] of some columns, and scratch."""

    outcome: Bytes
    born: Bytes
    tags: Ints  # [k, 2]
    rows: Rows  # [k, 2]: of the ends, as far as they were known before the batch
    x: Floats  # [F]
    peak: Floats  # [1]: largest |X| ever


def new_batch(events: int, features: int, peak: Floats) -> Batch:
    """Room for so many events."""
    return Batch(
        outcome=np.empty(events, np.uint8),
        born=np.zeros(events, np.uint8),
        tags=np.empty((events, 2), np.int64),
        rows=np.empty((events, 2), np.int32),
        x=np.empty(features, np.float32),
        peak=peak,
    )


@kernel
def find_rows(ids: IdTable, c: Columns, b: Batch) -> None:
    """Rows of all ends, asked for in time; of one event the second is NOBODY when it has none."""
    for i in range(len(c.kind) + AHEAD):
        if i < len(c.kind) and c.kind[i] != UNREAD:
            b.tags[i, 0] = hash_of(ids, c.text, c.first[i], c.first_size[i])
            ask_for(ids, b.tags[i, 0])
            if c.kind[i] >= SET_EDGE:
                b.tags[i, 1] = hash_of(ids, c.text, c.second[i], c.second_size[i])
                ask_for(ids, b.tags[i, 1])
        j = i - AHEAD
        if j >= 0:
            b.rows[j, 0], b.rows[j, 1] = NOBODY, NOBODY
            if c.kind[j] != UNREAD:
                b.rows[j, 0] = find_tagged(ids, b.tags[j, 0], c.text, c.first[j], c.first_size[j])
                if c.kind[j] >= SET_EDGE:
                    b.rows[j, 1] = find_tagged(ids, b.tags[j, 1], c.text, c.second[j], c.second_size[j])


@kernel
def apply_events(
    g: GraphArrays, ids: IdTable, c: Columns, b: Batch, terms: Terms, start: int, sure: bool
) -> tuple[int, int, bool]:
    """Apply events from `start` on; returns the first one not applied, what it wants, and `sure` for the next call.

    Called again, with more room, it goes on there. Rows found before the batch are `sure` until a node goes.
    """
    for i in range(start, len(c.kind)):
        look_ahead(g, b.rows, i, terms.turned)
        kind = c.kind[i]
        outcome = NOT_READ
        if kind == REMOVE_NODE:
            outcome = _remove_node(g, ids, c, i, terms)
            sure = False
        elif kind <= SET_FEATURES:
            outcome = _describe_node(g, ids, c, b, i, terms, sure)
        elif kind != UNREAD:
            outcome = _change_edge(g, ids, c, b, i, terms, sure)
        if outcome == FULL:
            return i, WANT_ARCS, sure
        if outcome == FULL_ROWS:
            return i, WANT_ROWS, sure
        if outcome == FULL_TEXT:
            return i, WANT_TEXT, sure
        if outcome == NOTHING:
            g.counters[NOTHING_DONE] += 1
        elif outcome == LOST:
            g.counters[LOST_ADDS] += 1
        b.outcome[i] = outcome
    return len(c.kind), NO_WANT, sure


@kernel
def change_features(
    g: GraphArrays, rows: Rows, x: Floats, peak: Floats, alpha: float, epsilon: float
) -> None:
    """X of `rows` [k] becomes x [k, F], as the arrays hold it."""
    for i in range(len(rows)):
        _raise_peak(peak, x[i])
        set_features(g, rows[i], x[i], alpha, epsilon)


@inline
def _first(ids: IdTable, c: Columns, b: Batch, i: int, sure: bool) -> int:
    if sure and b.rows[i, 0] != NOBODY:
        return b.rows[i, 0]
    return find_row(ids, c.text, c.first[i], c.first_size[i])


@inline
def _second(ids: IdTable, c: Columns, b: Batch, i: int, sure: bool) -> int:
    if sure and b.rows[i, 1] != NOBODY:
        return b.rows[i, 1]
    return find_row(ids, c.text, c.second[i], c.second_size[i])


@inline
def _change_edge(g: GraphArrays, ids: IdTable, c: Columns, b: Batch, i: int, terms: Terms, sure: bool) -> int:
    s, t = _first(ids, c, b, i, sure), _second(ids, c, b, i, sure)
    unknown = s == NOBODY or t == NOBODY
    kind, op = c.kind[i], SET_ARC
    if kind == REMOVE_EDGE:
        if unknown:
            return NOTHING
        op = REMOVE_ARC
    else:
        op = ADD_ARC if kind == ACCUMULATE_EDGE else SET_ARC
        if g.sizes[EDGES] >= terms.max_edges:
            u, v = (t, s) if terms.turned else (s, t)
            if unknown or find_arc(g, u, v) < 0:
                return TOO_MANY_EDGES
        if unknown:
            refused, s, t = _create_ends(g, ids, c, b, i, terms, s, t)
            if refused != APPLIED:
                return refused
    u, v = (t, s) if terms.turned else (s, t)
    return change_arc(g, terms.undirected, op, u, v, c.weight[i], terms.alpha, terms.epsilon)


@inner
def _create_ends(
    g: GraphArrays, ids: IdTable, c: Columns, b: Batch, i: int, terms: Terms, s: int, t: int
) -> tuple[int, int, int]:
    """Why not, or APPLIED; the rows of both ends."""
    loop = s == t and c.first_size[i] == c.second_size[i]
    loop = loop and same_text(c.text, c.first[i], c.text, c.second[i], c.first_size[i])
    missing = (1 if s == NOBODY else 0) + (1 if t == NOBODY and not loop else 0)
    refused = APPLIED if terms.create else UNKNOWN_NODE
    if refused == APPLIED:
        refused = _refusal(ids, terms, missing, c.first_size[i] + c.second_size[i], False)
    if refused != APPLIED:
        return refused, s, t
    if s == NOBODY:
        s = _create(g, ids, c.text, c.first[i], c.first_size[i], terms.zeros, b.peak)
        b.born[i] |= FIRST_BORN
    if loop:
        t = s
    elif t == NOBODY:
        t = _create(g, ids, c.text, c.second[i], c.second_size[i], terms.zeros, b.peak)
        b.born[i] |= SECOND_BORN
    return APPLIED, s, t


@inner
def _describe_node(
    g: GraphArrays, ids: IdTable, c: Columns, b: Batch, i: int, terms: Terms, sure: bool
) -> int:
    """AddNode and SetFeatures: the same but for a node that is not there."""
    given = c.features[i] >= 0
    if given:
        if c.width[i] != len(b.x):
            return WRONG_LENGTH
        if not _read_features(c.text, c.features[i], terms, b.x):
            return TOO_FAR
    row = _first(ids, c, b, i, sure)
    if row == NOBODY:
        if c.kind[i] == SET_FEATURES and not terms.create:
            return UNKNOWN_NODE
        refused = _refusal(ids, terms, 1, c.first_size[i], given)
        if refused == APPLIED:
            _create(g, ids, c.text, c.first[i], c.first_size[i], b.x if given else terms.zeros, b.peak)
            b.born[i] |= FIRST_BORN
        return refused
    if not given:
        return NOTHING
    _raise_peak(b.peak, b.x)
    return set_features(g, row, b.x, terms.alpha, terms.epsilon)


@inline
def _remove_node(g: GraphArrays, ids: IdTable, c: Columns, i: int, terms: Terms) -> int:
    row = find_row(ids, c.text, c.first[i], c.first_size[i])
    if row == NOBODY:
        return NOTHING
    remove_row(g, terms.undirected, row, terms.alpha, terms.epsilon)
    give_row(ids, row)
    return APPLIED


@inline
def _refusal(ids: IdTable, terms: Terms, missing: int, text: int, given: bool) -> int:
    """Why `missing` nodes may not be made, their features being given or absent."""
    nodes = ids.counts[USED] - ids.counts[FREE]
    if nodes + missing > terms.max_nodes:
        return TOO_MANY_NODES
    if not (given or terms.zeros_fit):
        return TOO_FAR
    if nodes + missing > len(ids.place):
        return FULL_ROWS
    return FULL_TEXT if ids.counts[TEXT] + text > len(ids.text) else APPLIED


@inline
def _create(g: GraphArrays, ids: IdTable, text: Bytes, begin: int, size: int, x: Floats, peak: Floats) -> int:
    row = take_row(ids, text, begin, size)
    add_row(g, row, x)
    _raise_peak(peak, x)
    return row


@inline
def _raise_peak(peak: Floats, x: Floats) -> None:
    for f in range(len(x)):
        peak[0] = max(peak[0], abs(x[f]))


@inline
def _read_features(text: Bytes, begin: int, terms: Terms, x: Floats) -> bool:
    """float32 little-endian as the arrays hold them; False when one is out of reach."""
    for f in range(len(x)):
        bits = np.uint32(0)
        for k in range(3, -1, -1):
            bits = (bits << np.uint32(8)) | np.uint32(text[begin + 4 * f + k])
        raw = np.float64(np.uint32(bits).view(np.float32))
        if abs(raw - terms.offset[f]) > terms.reach[f]:
            return False
        x[f] = np.float32((raw - terms.offset[f]) * terms.scale[f])
    return True
