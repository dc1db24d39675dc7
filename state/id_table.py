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
from ..diffusion.compile import kernel

Tags = NDArray[np.uint32]

NOBODY = -1
WORD = 8  # bytes hashed at a time

# places in `counts`
USED, FREE, TEXT, LOST = range(4)


class IdTable(NamedTuple):
    """Ids of up to n rows. Kernels expect room: see `rows_left` and `text_left`."""

    slot: Rows  # [2^k], at most half full: a row, or NOBODY
    tag: Tags  # [2^k]: the hash of the slot's id, and its home
    begin: Ints  # [n]: where the id of a row stands in `text`
    size: Rows  # [n]: its bytes; 0: the row is free
    free: Rows  # [n]: the first counts[FREE] are rows to be used again, the last first
    text: Bytes  # [m]
    counts: Ints  # rows ever used, free ones among them, end of `text`, bytes in it that belong to nobody
    key: NDArray[np.uint64]  # [1]: secret, so that nobody can make ids collide on purpose


def new_table(rows: int, text: int) -> IdTable:
    """An empty table with room for so many rows and bytes."""
    slots = _slots(rows)
    return IdTable(
        slot=np.full(slots, NOBODY, np.int32),
        tag=np.zeros(slots, np.uint32),
        begin=np.zeros(rows, np.int64),
        size=np.zeros(rows, np.int32),
        free=np.zeros(rows, np.int32),
        text=np.zeros(text, np.uint8),
        counts=np.zeros(4, np.int64),
        key=np.array([secrets.randbits(64) | 1], np.uint64),
    )


def grown_rows(table: IdTable, rows: int) -> IdTable:
    """The same ids with room for `rows` rows."""
    larger = new_table(rows, 0)._replace(text=table.text, counts=table.counts, key=table.key)
    for name in ("begin", "size", "free"):
        getattr(larger, name)[: len(table.begin)] = getattr(table, name)
    _rehash(larger, table.slot, table.tag)
    return larger


def grown_text(table: IdTable, needed: int) -> IdTable:
    """The same ids with room for `needed` more bytes; what belonged to nobody is given up."""
    alive = int(table.counts[TEXT] - table.counts[LOST])
    text = np.empty(2 * (alive + needed), np.uint8)
    _compact(table, text)
    return table._replace(text=text)


def add_ids(table: IdTable, names: list[str], rows: Rows) -> IdTable:
    """Enter ids on rows of their own, as loaded. Raises ValueError for an id or a row that is there already."""
    encoded = [name.encode() for name in names]
    text = np.frombuffer(b"".join(encoded), np.uint8)
    ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
    if len(rows) and rows.min() < 0:
        raise ValueError(f"row {rows.min()} is none")
    if len(rows) and (top := int(rows.max())) >= len(table.begin):
        table = grown_rows(table, max(top + 1, 2 * len(table.begin)))
    if text_left(table) < len(text):
        table = grown_text(table, len(text))
    bad = _enter_all(table, text, ends, rows)
    if bad >= 0:
        raise ValueError(f"{names[bad]!r} or its row {rows[bad]} is there twice")
    return table


def ids_of(table: IdTable, rows: Rows) -> list[str]:
    """The ids of these rows."""
    text, ends = _gather(table, rows)
    raw, stops = text.tobytes(), ends.tolist()
    return (
        [raw[start:stop].decode() for start, stop in zip([0, *stops[:-1]], stops, strict=True)]
        if stops
        else []
    )


def rows_of(table: IdTable, names: Sequence[str]) -> Rows:
    """The rows of ids, NOBODY for those that are not there."""
    encoded = [name.encode() for name in names]
    text = np.frombuffer(b"".join(encoded), np.uint8)
    ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
    return _find_all(table, text, ends)


def find_id(table: IdTable, name: str) -> int:
    """The row of an id, or NOBODY."""
    text = np.frombuffer(name.encode(), np.uint8)
    return find_row(table, text, 0, len(text)) if len(text) else NOBODY


def rows_left(table: IdTable) -> int:
    """How many ids there is room for."""
    return len(table.begin) - int(table.counts[USED] - table.counts[FREE])


def text_left(table: IdTable) -> int:
    """How many bytes of ids there is room for."""
    return len(table.text) - int(table.counts[TEXT])


def _slots(rows: int) -> int:
    return 1 << max(4, (2 * rows - 1).bit_length())


@kernel
def hash_of(table: IdTable, text: Bytes, begin: int, size: int) -> np.uint32:
    """Multiply and fold, a word at a time, by a secret odd factor."""
    factor = table.key[0]
    h = np.uint64(size)
    for start in range(begin, begin + size, WORD):
        word = np.uint64(0)
        for k in range(start, min(start + WORD, begin + size)):
            word = (word << np.uint64(8)) | np.uint64(text[k])
        h = (h ^ word) * factor
        h ^= h >> np.uint64(31)
    return np.uint32((h * factor) >> np.uint64(32))


@kernel
def find_row(table: IdTable, text: Bytes, begin: int, size: int) -> int:
    """The row of the id text[begin : begin + size], or NOBODY."""
    return table.slot[_place(table, hash_of(table, text, begin, size), text, begin, size)]


@kernel
def take_row(table: IdTable, text: Bytes, begin: int, size: int) -> int:
    """A row for a new id: a freed one, or the next."""
    if table.counts[FREE] > 0:
        table.counts[FREE] -= 1
        row = int(table.free[table.counts[FREE]])
    else:
        row = table.counts[USED]
        table.counts[USED] += 1
    _enter(table, text, begin, size, row)
    return row


@kernel
def give_row(table: IdTable, row: int) -> None:
    """The id of the row is gone, and the row free."""
    mask = len(table.slot) - 1
    begin, size = table.begin[row], table.size[row]
    hole = _place(table, hash_of(table, table.text, begin, size), table.text, begin, size)
    at = hole
    while True:  # move back what would no longer be found behind the hole
        at = (at + 1) & mask
        if table.slot[at] == NOBODY:
            break
        home = int(table.tag[at]) & mask
        if ((at - home) & mask) >= ((at - hole) & mask):
            table.slot[hole], table.tag[hole] = table.slot[at], table.tag[at]
            hole = at
    table.slot[hole] = NOBODY
    table.counts[LOST] += size
    table.size[row] = 0
    table.free[table.counts[FREE]] = row
    table.counts[FREE] += 1


@kernel
def same_text(a: Bytes, at: int, b: Bytes, begin: int, size: int) -> bool:
    """Whether `size` bytes are equal."""
    for k in range(size):
        if a[at + k] != b[begin + k]:
            return False
    return True


@kernel
def _place(table: IdTable, tag: np.uint32, text: Bytes, begin: int, size: int) -> int:
    """The slot of an id, or the empty one where it belongs."""
    mask = len(table.slot) - 1
    at = int(tag) & mask
    while True:
        row = table.slot[at]
        if row == NOBODY:
            return at
        if (
            table.tag[at] == tag
            and table.size[row] == size
            and same_text(table.text, table.begin[row], text, begin, size)
        ):
            return at
        at = (at + 1) & mask


@kernel
def _enter(table: IdTable, text: Bytes, begin: int, size: int, row: int) -> None:
    tag = hash_of(table, text, begin, size)
    at = _place(table, tag, text, begin, size)
    table.slot[at], table.tag[at] = row, tag
    end = table.counts[TEXT]
    table.text[end : end + size] = text[begin : begin + size]
    table.begin[row], table.size[row] = end, size
    table.counts[TEXT] += size


@kernel
def _enter_all(table: IdTable, text: Bytes, ends: Ints, rows: Rows) -> int:
    """Returns the first that is there already, or −1."""
    begin = 0
    for i in range(len(rows)):
        size = ends[i] - begin
        if table.size[rows[i]] > 0 or find_row(table, text, begin, size) != NOBODY:
            return i
        _enter(table, text, begin, size, rows[i])
        table.counts[USED] = max(table.counts[USED], rows[i] + 1)
        begin = ends[i]
    return -1


@kernel
def _find_all(table: IdTable, text: Bytes, ends: Ints) -> Rows:
    rows = np.empty(len(ends), np.int32)
    begin = 0
    for i in range(len(ends)):
        rows[i] = find_row(table, text, begin, ends[i] - begin)
        begin = ends[i]
    return rows


@kernel
def free_gaps(table: IdTable) -> None:
    """After loading: rows below the highest that nobody has are free; the lowest is used first."""
    table.counts[FREE] = 0
    for row in range(table.counts[USED] - 1, -1, -1):
        if table.size[row] == 0:
            table.free[table.counts[FREE]] = row
            table.counts[FREE] += 1


@kernel
def _gather(table: IdTable, rows: Rows) -> tuple[Bytes, Ints]:
    ends = np.empty(len(rows), np.int64)
    end = 0
    for i in range(len(rows)):
        end += table.size[rows[i]]
        ends[i] = end
    text = np.empty(end, np.uint8)
    for i in range(len(rows)):
        size = table.size[rows[i]]
        begin = table.begin[rows[i]]
        text[ends[i] - size : ends[i]] = table.text[begin : begin + size]
    return text, ends


@kernel
def _rehash(table: IdTable, slot: Rows, tag: Tags) -> None:
    mask = len(table.slot) - 1
    for old in range(len(slot)):
        if slot[old] == NOBODY:
            continue
        at = int(tag[old]) & mask
        while table.slot[at] != NOBODY:
            at = (at + 1) & mask
        table.slot[at], table.tag[at] = slot[old], tag[old]


@kernel
def _compact(table: IdTable, text: Bytes) -> None:
    """Copy the ids of all rows in use to `text`."""
    end = 0
    for row in range(table.counts[USED]):
        size, begin = table.size[row], table.begin[row]
        text[end : end + size] = table.text[begin : begin + size]
        table.begin[row] = end
        end += size
    table.counts[TEXT], table.counts[LOST] = end, 0
