"""What a graph takes of memory, by structure, and what the process gives back of the rest."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from ..diffusion.arrays import (
    BESIDE,
    DIRTY,
    FRESH,
    MOVED,
    PENDING,
    RECORD,
    SLABS,
    TOUCHED,
    VECTORS,
    Adjacency,
)
from .graph import GraphState

ARC_BYTES = 8  # target and weight


def memory_of(graph: GraphState) -> dict[str, int]:
    """Bytes that have been touched and not been given back; what is only reserved is not counted."""
    g, ids, used = graph.arrays, graph.ids, graph.used
    sides = [g.rows] if g.rows is g.columns else [g.rows, g.columns]
    raw = {} if graph.raw is None else {"raw": used * graph.raw.row_bytes}
    return {
        **raw,
        "vectors": len(VECTORS) * used * g.X.strides[0],
        "rows": used * (RECORD.itemsize + BESIDE.itemsize + g.stored_chunks.itemsize)
        + g.pending.itemsize * int(g.sizes[[PENDING, MOVED, DIRTY]].sum()),
        "arcs": sum(map(_arcs, sides)),
        "ids": sum(part.nbytes for part in (ids.slot, ids.place, ids.free, ids.text)),
    }


def _arcs(a: Adjacency) -> int:
    in_use = a.slabs[: a.pool[SLABS]]
    return ARC_BYTES * int(in_use[in_use[:, TOUCHED] == 1, FRESH].sum())


def _trimmer() -> Callable[[int], int] | None:
    """The C library's, where it has one: glibc, of which the free parts stay with the process otherwise."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return trim


_TRIM = _trimmer()


def return_free_memory() -> None:
    """To the system, what a burst of records or the last write has left: a millisecond, without the interpreter's lock.

    Nothing where the C library is not glibc.
    """
    if _TRIM is not None:
        _TRIM(0)
