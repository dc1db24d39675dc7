"""Ids and rows: a hash table in plain arrays, so that kernels find rows without touching an object.

Linear probing without tombstones: a removal moves later entries back. Bytes of all ids lie in one pool.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..diffusion.arrays import Bytes, Ints, Rows
from ..diffusion.compile import inline, kernel
from ..diffusion.vector import prefetch

NOBODY = -1
WORD = 8  # bytes hashed at a time
TAG = (1 << 32) - 1  # of a slot: the hash of its id, and its home
SIZE = (1 << 16) - 1  # of a place
AHEAD = 8  # look-ups between asking for a line of the cache and reading it

# places in `counts`
USED, FREE, TEXT, LOST = range(4)


class IdTable(NamedTuple):
    """Ids of up to n rows. Kernels expect room: see `rows_left` and `text_left`."""

    slot: Ints  # [2^k], at most half full: row · 2^32 + tag, or NOBODY
    place: Ints  # [n]: where the id of a row begins in `text` · 2^16 + its bytes; 0: the row is free
    free: Rows  # [n]: the first counts[FREE] are rows to be used again, the last first
    text: Bytes  # [m]
    counts: Ints  # rows ever used, free ones among them, end of `text`, bytes in it that belong to nobody
    key: NDArray[np.uint64]  # [1]: secret, so that nobody can make ids collide on purpose


def new_table(rows: int, text: int) -> IdTable:
    """An empty table with room for so many rows and bytes."""
    return IdTable(
        slot=np.full(1 << max(4, (2 * rows - 1).bit_length()), NOBODY, np.int64),
        place=np.zeros(rows, np.int64),
        free=np.zeros(rows, np.int32),
        text=np.zeros(text, np.uint8),
        counts=np.zeros(4, np.int64),
        key=np.array([secrets.randbits(64) | 1], np.uint64),
    )


def grown_rows(table: IdTable, rows: int) -> IdTable:
    """The same ids with room for `rows` rows."""
    larger = new_table(rows, 0)._replace(text=table.text, counts=table.counts, key=table.key)
    larger.place[: len(table.place)] = table.place
    held = int(table.counts[FREE])
    larger.free[:held] = table.free[:held]
    _rehash(larger, table.slot)
    return larger


def grown_text(table: IdTable, needed: int) -> IdTable:
    """The same ids with room for `needed` more bytes; what belonged to nobody is given up."""
    alive = int(table.counts[TEXT] - table.counts[LOST])
    text = np.empty(2 * (alive + needed), np.uint8)
    _compact(table, text)
    return table._replace(text=text)


def add_ids(table: IdTable, names: Sequence[str], rows: Rows) -> IdTable:
    """Enter ids on rows of their own, as loaded. Raises ValueError for an id or a row that is there already."""
    text, ends = _joined(names)
    if len(rows) and rows.min() < 0:
        raise ValueError(f"row {rows.min()} is none")
    if len(rows) and (top := int(rows.max())) >= len(table.place):
        table = grown_rows(table, max(top + 1, 2 * len(table.place)))
    if text_left(table) < len(text):
        table = grown_text(table, len(text))
    bad = _enter_all(table, text, ends, rows)
    if bad >= 0:
        raise ValueError(f"{names[bad]!r} or its row {rows[bad]} is there twice")
    return table


def ids_of(table: IdTable, rows: Rows) -> list[str]:
    """The ids of these rows."""
    ends = np.cumsum(table.place[rows] & SIZE)
    text = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    _gather(table, rows, ends, text)
    raw, stops = text.tobytes(), ends.tolist()
    return [raw[start:stop].decode() for start, stop in zip([0, *stops[:-1]], stops, strict=False)]


def rows_of(table: IdTable, names: Sequence[str]) -> Rows:
    """The rows of ids, NOBODY for those that are not there."""
    text, ends = _joined(names)
    rows = np.empty(len(names), np.int32)
    _find_all(table, text, ends, rows)
    return rows


def find_id(table: IdTable, name: str) -> int:
    """The row of an id, or NOBODY."""
    return int(rows_of(table, [name])[0]) if name else NOBODY


def rows_left(table: IdTable) -> int:
    """How many ids there is room for."""
    return len(table.place) - int(table.counts[USED] - table.counts[FREE])


def text_left(table: IdTable) -> int:
    """How many bytes of ids there is room for."""
    return len(table.text) - int(table.counts[TEXT])


def _joined(names: Sequence[str]) -> tuple[Bytes, Ints]:
    encoded = [name.encode() for name in names]
    ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
    return np.frombuffer(b"".join(encoded), np.uint8), ends


@inline
def hash_of(table: IdTable, text: Bytes, begin: int, size: int) -> int:
    """Multiply and fold, a word at a time, by a secret odd factor: 32 bits."""
    factor = table.key[0]
    h = np.uint64(size)
    for start in range(begin, begin + size, WORD):
        word = np.uint64(0)
        for k in range(start, min(start + WORD, begin + size)):
            word = (word << np.uint64(8)) | np.uint64(text[k])
        h = (h ^ word) * factor
        h ^= h >> np.uint64(31)
    return np.int64((h * factor) >> np.uint64(32))  # type: ignore[return-value]  # an int to Numba


@inline
def ask_for(table: IdTable, tag: int) -> None:
    """A look-up with this tag is near."""
    prefetch(table.slot, tag & (len(table.slot) - 1))


@inline
def find_row(table: IdTable, text: Bytes, begin: int, size: int) -> int:
    """The row of the id text[begin : begin + size], or NOBODY."""
    return find_tagged(table, hash_of(table, text, begin, size), text, begin, size)


@inline
def find_tagged(table: IdTable, tag: int, text: Bytes, begin: int, size: int) -> int:
    """The same, when its hash is known."""
    slot = table.slot[_slot(table, tag, text, begin, size)]
    return NOBODY if slot == NOBODY else slot >> 32


@inline
def take_row(table: IdTable, text: Bytes, begin: int, size: int) -> int:
    """A row for a new id: a freed one, or the next."""
    row = table.counts[USED]
    if table.counts[FREE] > 0:
        table.counts[FREE] -= 1
        row = int(table.free[table.counts[FREE]])
    else:
        table.counts[USED] += 1
    _enter(table, text, begin, size, row)
    return row


@kernel
def enter_new(table: IdTable, text: Bytes, begin: int, size: int) -> int:
    """`take_row` for callers outside kernels."""
    return take_row(table, text, begin, size)


@kernel
def give_row(table: IdTable, row: int) -> None:
    """The id of the row is gone, and the row free."""
    mask = len(table.slot) - 1
    begin, size = table.place[row] >> 16, table.place[row] & SIZE
    hole = _slot(table, hash_of(table, table.text, begin, size), table.text, begin, size)
    at = hole
    while True:  # move back what would no longer be found behind the hole
        at = (at + 1) & mask
        if table.slot[at] == NOBODY:
            break
        home = table.slot[at] & TAG & mask
        if ((at - home) & mask) >= ((at - hole) & mask):
            table.slot[hole] = table.slot[at]
            hole = at
    table.slot[hole] = NOBODY
    table.counts[LOST] += size
    table.place[row] = 0
    table.free[table.counts[FREE]] = row
    table.counts[FREE] += 1


@inline
def same_text(a: Bytes, at: int, b: Bytes, begin: int, size: int) -> bool:
    """Whether `size` bytes are equal."""
    for k in range(size):
        if a[at + k] != b[begin + k]:
            return False
    return True


@inline
def _slot(table: IdTable, tag: int, text: Bytes, begin: int, size: int) -> int:
    """The slot of an id, or the empty one where it belongs."""
    mask = len(table.slot) - 1
    at = tag & mask
    while True:
        slot = table.slot[at]
        if slot == NOBODY:
            return at
        if slot & TAG == tag:
            place = table.place[slot >> 32]
            if place & SIZE == size and same_text(table.text, place >> 16, text, begin, size):
                return at
        at = (at + 1) & mask


@inline
def _enter(table: IdTable, text: Bytes, begin: int, size: int, row: int) -> None:
    tag = hash_of(table, text, begin, size)
    table.slot[_slot(table, tag, text, begin, size)] = (row << 32) | tag
    end = table.counts[TEXT]
    for k in range(size):
        table.text[end + k] = text[begin + k]
    table.place[row] = (end << 16) | size
    table.counts[TEXT] += size


@kernel
def _enter_all(table: IdTable, text: Bytes, ends: Ints, rows: Rows) -> int:
    """Returns the first that is there already, or −1."""
    begin = 0
    for i in range(len(rows)):
        size = ends[i] - begin
        if table.place[rows[i]] != 0 or find_row(table, text, begin, size) != NOBODY:
            return i
        _enter(table, text, begin, size, int(rows[i]))
        table.counts[USED] = max(table.counts[USED], rows[i] + 1)
        begin = ends[i]
    return -1


@kernel
def _find_all(table: IdTable, text: Bytes, ends: Ints, rows: Rows) -> None:
    begin = 0
    for i in range(len(ends)):
        rows[i] = find_row(table, text, begin, ends[i] - begin)
        begin = ends[i]


@kernel
def free_gaps(table: IdTable) -> None:
    """After loading: rows below the highest that nobody has are free; the lowest is used first."""
    table.counts[FREE] = 0
    for row in range(table.counts[USED] - 1, -1, -1):
        if table.place[row] == 0:
            table.free[table.counts[FREE]] = row
            table.counts[FREE] += 1


@kernel
def _gather(table: IdTable, rows: Rows, ends: Ints, text: Bytes) -> None:
    begin = 0
    for i in range(len(rows)):
        first = table.place[rows[i]] >> 16
        for k in range(ends[i] - begin):
            text[begin + k] = table.text[first + k]
        begin = ends[i]


@kernel
def _rehash(table: IdTable, slot: Ints) -> None:
    mask = len(table.slot) - 1
    for old in slot:
        if old != NOBODY:
            at = old & TAG & mask
            while table.slot[at] != NOBODY:
                at = (at + 1) & mask
            table.slot[at] = old


@kernel
def _compact(table: IdTable, text: Bytes) -> None:
    """Copy the ids of all rows in use to `text`."""
    end = 0
    for row in range(table.counts[USED]):
        begin, size = table.place[row] >> 16, table.place[row] & SIZE
        for k in range(size):
            text[end + k] = table.text[begin + k]
        table.place[row] = (end << 16) | size if size else 0
        end += size
    table.counts[TEXT], table.counts[LOST] = end, 0
