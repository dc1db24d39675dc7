"""Redis' wire format for many pairs at once, written by a kernel: no Python object per field, no interpreter lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..diffusion.arrays import Bytes, Ints
from ..diffusion.compile import inline, kernel
from ..diffusion.vector import copy_bytes

DOLLAR, RETURN, NEWLINE, ZERO = b"$\r\n0"


class Spans(NamedTuple):
    """Byte strings end to end."""

    text: Bytes
    ends: Ints  # [k]


def spans_of(array: NDArray[Any]) -> Spans:
    """Each row of an array [k, …] as bytes."""
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    width = array.nbytes // max(1, len(array))
    return Spans(raw, np.arange(1, len(array) + 1, dtype=np.int64) * width)


def joined(names: Sequence[bytes]) -> Spans:
    """These byte strings."""
    ends = np.cumsum(np.fromiter(map(len, names), np.int64, len(names)))
    return Spans(np.frombuffer(b"".join(names), np.uint8), ends)


def write_pairs(order: Ints, fields: Spans, values: Spans) -> Spans:
    """Field and value of each of `order`, each as $LENGTH\\r\\nBYTES\\r\\n."""
    ends = np.empty(len(order), np.int64)
    text = np.empty(_measure(order, fields, values, ends), np.uint8)
    _write_all(order, fields, values, text)
    return Spans(text, ends)


@kernel
def _measure(order: Ints, fields: Spans, values: Spans, ends: Ints) -> int:
    size = 0
    for i in range(len(order)):
        size += _length(fields, order[i]) + _length(values, order[i])
        ends[i] = size
    return size


@kernel
def _write_all(order: Ints, fields: Spans, values: Spans, out: Bytes) -> None:
    at = 0
    for i in range(len(order)):
        at = _write(out, at, fields, order[i])
        at = _write(out, at, values, order[i])


@inline
def _begin(spans: Spans, i: int) -> int:
    return spans.ends[i - 1] if i > 0 else 0


@inline
def _length(spans: Spans, i: int) -> int:
    size = spans.ends[i] - _begin(spans, i)
    digits, limit = 1, 10
    while limit <= size:
        digits += 1
        limit *= 10
    return 1 + digits + 2 + size + 2


@inline
def _write(out: Bytes, at: int, spans: Spans, i: int) -> int:
    begin = _begin(spans, i)
    size = spans.ends[i] - begin
    end = at + _length(spans, i)
    out[at] = DOLLAR
    head = end - size - 4  # where the digits end
    rest = size
    for k in range(head - 1, at, -1):
        out[k] = ZERO + rest % 10
        rest //= 10
    out[head], out[head + 1] = RETURN, NEWLINE
    copy_bytes(out, head + 2, spans.text, begin, size)
    out[end - 2], out[end - 1] = RETURN, NEWLINE
    return end
