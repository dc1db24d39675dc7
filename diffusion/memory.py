"""Arrays that grow where they are: address space is reserved once, memory comes when it is touched.

Where address space is not free (strict accounting of memory, a limit on addresses) nothing is reserved. An array
that grows then moves in pieces, each given back as soon as it is copied: no second copy stands beside the first.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import sys
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

SPACE = 1 << 40  # bytes of addresses for one graph: more than it will have of memory
PIECE = 1 << 24  # bytes moved at a time
HUGE_PAGE = 1 << 21
NO_RESERVE: int = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


def zeros(shape: tuple[int, ...], dtype: DTypeLike, room: int, huge_from: int = HUGE_PAGE) -> NDArray[Any]:
    """Zeros that can grow to `room` rows in place; huge pages from that byte on, so that small graphs stay small."""
    row = np.dtype(dtype).itemsize * int(np.prod(shape[1:]))
    mapping = _map(max(room, shape[0]) * row) if address_space_is_free() else None
    if mapping is None:
        mapping = mmap.mmap(-1, max(1, shape[0] * row), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if len(mapping) > huge_from:
        with contextlib.suppress(OSError, AttributeError):  # a kernel without huge pages
            mapping.madvise(mmap.MADV_HUGEPAGE, huge_from, len(mapping) - huge_from)
    return _seen(np.frombuffer(mapping, np.uint8), shape, dtype)


def in_place(array: NDArray[Any]) -> int:
    """Rows an array of `zeros` can have without moving."""
    return _reserved(array).nbytes // array.strides[0]


def longer(array: NDArray[Any], rows: int, huge_from: int = HUGE_PAGE) -> NDArray[Any]:
    """An array of `zeros` with more rows; the old one is not to be used again."""
    shape = (rows, *array.shape[1:])
    if rows <= in_place(array):
        return _seen(_reserved(array), shape, array.dtype)
    moved = zeros(shape, array.dtype, rows, huge_from)
    step = max(1, PIECE // array.strides[0])
    for start in range(0, len(array), step):
        piece = slice(start, min(start + step, len(array)))
        moved[piece] = array[piece]
        give_back(array, piece.start, piece.stop)
    return moved


def give_back(array: NDArray[Any], start: int, stop: int) -> None:
    """Pages that hold nothing but these rows go back to the system; what stood there is lost."""
    row = array.strides[0]
    first = -(-start * row // mmap.PAGESIZE) * mmap.PAGESIZE
    last = stop * row // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first:
        mapping = cast("mmap.mmap", cast("memoryview", _reserved(array).base).obj)
        mapping.madvise(mmap.MADV_DONTNEED, first, last - first)


@functools.cache
def address_space_is_free() -> bool:
    """Whether far more addresses than memory can be had."""
    mapping = _map(16 * SPACE)
    if mapping is None:
        return False
    mapping.close()
    return True


def _map(size: int) -> mmap.mmap | None:
    try:
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE)
    except (OSError, ValueError):
        return None


def _reserved(array: NDArray[Any]) -> NDArray[np.uint8]:
    """All bytes that an array of `zeros` can have in place: views of views know the first of them."""
    assert isinstance(array.base, np.ndarray)
    return array.base


def _seen(memory: NDArray[np.uint8], shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return memory[:size].view(dtype).reshape(shape)
