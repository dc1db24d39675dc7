"""Events as columns, read straight from the bytes of their records.

A kernel reads the plain ones: MessagePack maps with known fields only. What it does not take (JSON, unknown
fields, numbers as lists, anything that may be wrong) `decode_event` judges, and what is good of it comes back as
plain MessagePack. So the kernel may give up on any message, but what it takes must be right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..diffusion.arrays import Bytes, Floats, Ints, Rows
from ..diffusion.compile import inline, kernel
from ..schemas.events import decode_event, encode_event
from ..schemas.ids import MAX_ID_BYTES
from ..schemas.reasons import InvalidEvent

# kinds; UNREAD is none
ADD_NODE, SET_FEATURES, REMOVE_NODE, SET_EDGE, ACCUMULATE_EDGE, REMOVE_EDGE, UNREAD = range(7)
NAMES = ("AddNode", "SetFeatures", "RemoveNode", "AddEdge", "RemoveEdge")
KIND_OF_NAME = np.array([ADD_NODE, SET_FEATURES, REMOVE_NODE, SET_EDGE, REMOVE_EDGE], np.uint8)

FIELDS = ("type", "id", "source", "target", "features", "weight", "op", "ts")
TYPE, ID, SOURCE, TARGET, FEATURES, WEIGHT, OP, TS = range(len(FIELDS))
ADD = 1  # place in OPS
OPS = ("set", "add")

# shapes of a MessagePack value, as far as an event has them; LARGEST of its numbers is an int64's
OTHER, TEXT, BINARY, POSITIVE, NEGATIVE, SIGNED, SINGLE, DOUBLE = range(8)
LARGEST = np.uint64(2**63 - 1)
DIGITS = 20  # of an integer of 64 bits


def _bits(*fields: int) -> int:
    return sum(1 << field for field in fields)


_NODE, _EDGE = _bits(TYPE, ID), _bits(TYPE, SOURCE, TARGET)
NEEDED = np.array([_NODE, _NODE | _bits(FEATURES), _NODE, _EDGE, _EDGE], np.int64)  # by place in NAMES
ALLOWED = NEEDED | np.array(
    [_bits(FEATURES, TS), _bits(TS), _bits(TS), _bits(WEIGHT, OP, TS), _bits(TS)], np.int64
)


def _codes(*ranges: tuple[int, int, int]) -> tuple[Bytes, Bytes]:
    """By first byte: the shape, and how many bytes of length or number follow: 1, 2, 4, … from `code` on."""
    shape, head = np.zeros(256, np.uint8), np.zeros(256, np.uint8)
    for code, count, what in ranges:
        shape[code : code + count] = what
        head[code : code + count] = 1 << np.arange(count)
    shape[[0xCA, 0xCB]], head[[0xCA, 0xCB]] = (SINGLE, DOUBLE), (4, 8)
    return shape, head


SHAPE, HEAD = _codes((0xD9, 3, TEXT), (0xC4, 3, BINARY), (0xCC, 4, POSITIVE), (0xD0, 4, SIGNED))


class Columns(NamedTuple):
    """One entry per event [k]; spans are places in `text`."""

    text: Bytes
    kind: Bytes
    first: Ints  # where the id, or the source's, begins
    first_size: Rows  # bytes
    second: Ints  # the target's
    second_size: Rows
    weight: Floats
    features: Ints  # where float32 little-endian begin, or −1
    width: Rows  # how many


def columns_of(values: Sequence[bytes | None]) -> tuple[Columns, list[tuple[int, InvalidEvent]]]:
    """The events of records, and which are none; those are UNREAD in the columns."""
    columns = _read(values, trusted=False)
    unread = np.flatnonzero(columns.kind == UNREAD).tolist()
    if not unread:
        return columns, []
    plain, invalid = list(values), []
    for i in unread:
        try:
            plain[i] = encode_event(decode_event(values[i]))
        except InvalidEvent as error:
            plain[i] = None
            invalid.append((i, error))
    return _read(plain, trusted=True), invalid


def text_of(c: Columns, begin: int, size: int) -> str:
    """An id."""
    return c.text[begin : begin + size].tobytes().decode()


def _read(values: Sequence[bytes | None], *, trusted: bool) -> Columns:
    count = len(values)
    whole = [value or b"" for value in values]
    raw = b"".join(whole)
    text = np.empty(len(raw) + 2 * DIGITS * count, np.uint8)  # integers become text behind the records
    text[: len(raw)] = np.frombuffer(raw, np.uint8)
    columns = Columns(
        text,
        np.empty(count, np.uint8),
        np.empty(count, np.int64),
        np.empty(count, np.int32),
        np.empty(count, np.int64),
        np.empty(count, np.int32),
        np.empty(count, np.float32),
        np.empty(count, np.int64),
        np.empty(count, np.int32),
    )
    read_all(columns, np.cumsum(np.fromiter(map(len, whole), np.int64, count)), len(raw), trusted)
    return columns


def _words(names: Sequence[str]) -> tuple[Bytes, Ints]:
    joined = "".join(names).encode()
    return np.frombuffer(joined, np.uint8), np.cumsum([len(name) for name in names])


_FIELDS, _FIELD_ENDS = _words(FIELDS)
_NAMES, _NAME_ENDS = _words(NAMES)
_OPS, _OP_ENDS = _words(OPS)


@kernel
def read_all(c: Columns, ends: Ints, digits: int, trusted: bool) -> None:
    """Read the records that end at `ends`; integers become text from `digits` on. `trusted`: all is good UTF-8."""
    begin = 0
    for i in range(len(ends)):
        c.kind[i] = _read_one(c, i, begin, ends[i], digits + 2 * DIGITS * i, trusted)
        begin = ends[i]


@inline
def _read_one(c: Columns, i: int, at: int, end: int, digits: int, trusted: bool) -> int:
    """Its kind, or UNREAD. Arrays are written once, at the end: this is a tenth of a microsecond."""
    text = c.text
    if at >= end or text[at] & 0xF0 != 0x80:  # a map of up to 15 pairs
        return UNREAD
    pairs, at, seen, kind, op, weight = text[at] & 0x0F, at + 1, 0, 0, 0, np.float32(1)
    first, first_size, second, second_size, features, width = 0, 0, 0, 0, -1, 0
    for _ in range(pairs):
        shape, begin, size, _number, at = _value(text, at, end)
        field = _word(text, shape, begin, size, _FIELDS, _FIELD_ENDS)
        if field < 0 or seen & (1 << field):
            return UNREAD
        seen |= 1 << field
        shape, begin, size, number, at = _value(text, at, end)
        good = True
        if field == TYPE:
            kind = _word(text, shape, begin, size, _NAMES, _NAME_ENDS)
            good = kind >= 0
        elif field == TARGET:
            second, second_size = _id(text, shape, begin, size, number, digits + DIGITS, trusted)
            good = second_size > 0
        elif field in (ID, SOURCE):
            first, first_size = _id(text, shape, begin, size, number, digits, trusted)
            good = first_size > 0
        elif field == WEIGHT:
            weight = np.float32(_double(shape, number))
            good = bool(weight > 0 and np.isfinite(weight))
        elif field == OP:
            op = _word(text, shape, begin, size, _OPS, _OP_ENDS)
            good = op >= 0
        elif field == FEATURES:
            features, width = begin, size // 4
            good = shape == BINARY and size % 4 == 0 and _all_finite(text, begin, size)
        else:  # the time is of no use here, but must be one
            good = shape in (POSITIVE, NEGATIVE)
        if not good:
            return UNREAD
    if at != end or seen & NEEDED[kind] != NEEDED[kind] or seen & ~ALLOWED[kind]:
        return UNREAD
    c.first[i], c.first_size[i], c.second[i], c.second_size[i] = first, first_size, second, second_size
    c.weight[i], c.features[i], c.width[i] = weight, features, width
    return ACCUMULATE_EDGE if op == ADD else KIND_OF_NAME[kind]


@inline
def _value(text: Bytes, at: int, end: int) -> tuple[int, int, int, np.uint64, int]:
    """One value: its shape, begin and size of TEXT or BINARY, magnitude or bits of a number, where the next begins."""
    if at >= end:
        return OTHER, at, 0, np.uint64(0), end
    code = int(text[at])
    if code < 0x80:
        return POSITIVE, at, 0, np.uint64(code), at + 1
    if code >= 0xE0:
        return NEGATIVE, at, 0, np.uint64(256 - code), at + 1
    if code & 0xE0 == 0xA0:
        return _span(TEXT, at + 1, code & 0x1F, end)
    head = at + 1 + HEAD[code]  # behind the code and what has a fixed length
    shape = SHAPE[code]
    if shape == OTHER or head > end:
        return OTHER, at, 0, np.uint64(0), end
    number = np.uint64(0)
    for k in range(at + 1, head):
        number = (number << np.uint64(8)) | np.uint64(text[k])
    if shape in (TEXT, BINARY):
        return _span(shape, head, int(number), end)
    if shape == SIGNED:
        sign = np.uint64(1) << np.uint64(8 * HEAD[code] - 1)
        negative = number & sign != 0
        return NEGATIVE if negative else POSITIVE, at, 0, sign - (number ^ sign) if negative else number, head
    if shape == POSITIVE and number > LARGEST:
        return OTHER, at, 0, np.uint64(0), end
    return shape, at, 0, number, head


@inline
def _span(shape: int, begin: int, size: int, end: int) -> tuple[int, int, int, np.uint64, int]:
    if begin + size > end:
        return OTHER, begin, 0, np.uint64(0), end
    return shape, begin, size, np.uint64(0), begin + size


@inline
def _word(text: Bytes, shape: int, begin: int, size: int, words: Bytes, ends: Ints) -> int:
    """The number of a word, or −1."""
    first = 0
    for w in range(len(ends) if shape == TEXT else 0):
        if ends[w] - first == size:
            k = 0
            while k < size and text[begin + k] == words[first + k]:
                k += 1
            if k == size:
                return w
        first = ends[w]
    return -1


@inline
def _id(
    text: Bytes, shape: int, begin: int, size: int, number: np.uint64, digits: int, trusted: bool
) -> tuple[int, int]:
    """The text of an id: begin, size; size 0 when it is none. An integer's is written from `digits` on."""
    if shape == TEXT:
        good = size <= MAX_ID_BYTES and (trusted or _is_ascii(text, begin, size))
        return begin, size if good else 0
    if shape not in (POSITIVE, NEGATIVE):
        return begin, 0
    begin = digits + DIGITS
    while True:
        begin -= 1
        text[begin] = 48 + number % np.uint64(10)
        number //= np.uint64(10)
        if number == 0:
            break
    if shape == NEGATIVE:
        begin -= 1
        text[begin] = 45
    return begin, digits + DIGITS - begin


@inline
def _double(shape: int, number: np.uint64) -> float:
    if shape == DOUBLE:
        return np.uint64(number).view(np.float64)
    if shape == SINGLE:
        return np.float64(np.uint32(number).view(np.float32))
    value = np.float64(number)
    return value if shape == POSITIVE else -value if shape == NEGATIVE else np.nan


@inline
def _is_ascii(text: Bytes, begin: int, size: int) -> bool:
    for k in range(begin, begin + size):
        if text[k] > 0x7F:
            return False
    return True


@inline
def _all_finite(text: Bytes, begin: int, size: int) -> bool:
    for k in range(begin, begin + size, 4):
        if text[k + 3] & 0x7F == 0x7F and text[k + 2] & 0x80:
            return False
    return True
