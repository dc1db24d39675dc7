"""The graph as plain arrays: everything a kernel needs, nothing else.

Rows are nodes. X, H, R and P are features, vectors, residuals and published vectors [n, F'] float32; F' is F filled
up with zero columns to whole vectors of the machine. The arcs u → v of row u with weight w are the row of the
stochastic matrix P_uv = w / weight_sum[u]; `columns` holds the same arcs by their target. In an undirected graph
the two are one and the same list.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .memory import SPACE, in_place, longer, zeros

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Rows = NDArray[np.int32]
Index = int | np.unsignedinteger[Any]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

LANES = 8  # float32 numbers of one vector of the machine
SMALLEST = 4  # arcs of the smallest region
CHUNK_BITS = 8
CHUNK = 1 << CHUNK_BITS  # arcs of a stored chunk; a list with room for so many has marks for its chunks
HUB = 1 << 12  # a list with room for so many arcs has an index: to search through it would take microseconds
SLAB_BITS = 18  # arcs of a slab: regions of one size each, 2 MiB
CLASSES = 40  # region sizes are powers of two
FIRST_SLABS = 16  # where a pool cannot be had with room for everything

# places in `pool`: slabs ever used, slabs in use, slabs to give back, arcs in lists, list that was tidied last; from
# OPEN on the first slab of each size that has a region to give, or −1
SLABS, FILLED, EMPTIED, HELD, TIDIED, OPEN = range(6)
# columns of `slabs`
SIZE, LIVE, FREE, FRESH, NEXT, PREVIOUS, CLOSED, TOUCHED = range(8)
SLAB_FIELDS = 8

# places in `sizes`
PENDING, MOVED, DIRTY, ARCS, EDGES = range(5)
# places in `counters`
VISITED, PUSHES, ARC_UPDATES, LOST_ADDS, NOTHING_DONE, SCRUBBED = range(6)
COUNTERS = ("visited", "pushes", "arc_updates", "lost_adds", "no_ops", "scrubbed")
# bits of `dirty`
FEATURES_CHANGED, ARCS_CHANGED, VECTOR_CHANGED, ID_CHANGED = 1, 2, 4, 8

RECORD = np.dtype(
    [
        ("row_offset", np.int64),
        ("row_length", np.int32),
        ("row_capacity", np.int32),
        ("column_offset", np.int64),
        ("column_length", np.int32),
        ("column_capacity", np.int32),
        ("weight_sum", np.float64),
        ("weight_ref", np.float32),
        ("leeway", np.float32),
        ("self_weight", np.float32),
        ("generation", np.int32),
        ("alive", np.uint8),
        ("announced", np.uint8),
        ("unknown", np.uint8),
        ("dirty", np.uint8),
        ("moved_mark", np.uint8),
        ("unused", np.uint8, 3),
    ],
    align=True,
)
"""What is known of one row, beside its vectors: one line of the cache."""

POOL_ROOM = 1 << 36  # arcs
HUGE_FROM = 1 << 26  # bytes of a pool: before that, sizes that are hardly used would take a huge page each


class Adjacency(NamedTuple):
    """Lists with slack in regions of one pool (pool.py); one that outgrows its region moves to one twice as large.

    `words` is the pool: target and weight of arc k are words 2k and 2k + 1, and `target` and `weight` views of
    them. The list of a hub is followed by its index (hubs.py).
    """

    offset: Ints  # [n]
    length: Rows  # [n]
    capacity: Rows  # [n], 0 or a power of two
    words: Rows  # [2m]
    target: Rows  # [m]
    weight: Floats  # [m]
    stale: Bytes  # [m / CHUNK]: changed since the last checkpoint, for lists with room for a chunk and more
    slabs: Ints  # [m / 2^18, 8]
    pool: Ints  # [OPEN + CLASSES]


class GraphArrays(NamedTuple):
    """One graph. Invariant: every row with |R|∞ > ε is in the first sizes[PENDING] of `pending`."""

    X: Floats
    H: Floats
    R: Floats
    P: Floats
    record: Bytes  # [n, 64]: what follows up to `moved_mark`, and the lists' three, are views of it
    weight_sum: Doubles  # [n]
    weight_ref: Floats  # [n]: largest weight_sum since R was last rebuilt from its definition
    leeway: Floats  # [n]: how far H may move until its publish decision is due; 0 or less: it is, or unknown
    self_weight: Floats  # [n]: weight of the arc u → u
    generation: Rows  # how often the row has been freed
    alive: Bytes
    announced: Bytes  # consumers hold P
    unknown: Bytes  # publish in any case: 1, consumers hold something else; 2, P, and it is to be sent again
    dirty: Bytes
    moved_mark: Bytes
    rows: Adjacency
    columns: Adjacency
    beside: Bytes  # [n, 8]: `inverse` and `norm`, what a push asks of a neighbour beside its R
    inverse: Floats  # [n]: 1 / weight_sum where float32 holds it well, else 0
    norm: Floats  # [n]: |R|∞ of a pending row, or what it was when last above ε; 0 for all others
    stored_chunks: Rows  # chunks of arcs the store holds
    pending: Rows
    work: Rows
    moved: Rows  # H may have moved by more than τ since the last publication, or was never announced
    dirty_rows: Rows
    step: Floats  # [F'] scratch: what a push adds, before weights
    exact_row: Doubles  # [F'] scratch
    sizes: Ints
    counters: Ints


OF_A_ROW = (
    "weight_sum",
    "weight_ref",
    "leeway",
    "self_weight",
    "generation",
    "alive",
    "announced",
    "unknown",
    "dirty",
    "moved_mark",
    "inverse",
    "norm",
)
VECTORS = ("X", "H", "R", "P")
BESIDE = np.dtype([("inverse", np.float32), ("norm", np.float32)])
LISTS = ("stored_chunks", "pending", "work", "moved", "dirty_rows")


def allocate(rows: int, features: int, directed: bool) -> GraphArrays:
    """An empty graph with room for `rows` nodes."""
    width = -(-features // LANES) * LANES
    room = min(np.iinfo(np.int32).max, SPACE // (16 * width + 92))
    record = zeros((rows, RECORD.itemsize), np.uint8, room)
    beside = zeros((rows, BESIDE.itemsize), np.uint8, room)
    known = _views(record, beside)
    vectors: dict[str, Any] = {name: zeros((rows, width), np.float32, room) for name in VECTORS}
    lists: dict[str, Any] = {name: zeros((rows,), np.int32, room) for name in LISTS}
    side = _empty_pool(known, "row")
    return GraphArrays(
        **vectors,
        **lists,
        **{name: known[name] for name in OF_A_ROW},
        record=record,
        rows=side,
        columns=_empty_pool(known, "column") if directed else side,
        beside=beside,
        step=zeros((width,), np.float32, width),
        exact_row=np.zeros(width),
        sizes=np.zeros(8, np.int64),
        counters=np.zeros(8, np.int64),
    )


def grow_rows(g: GraphArrays, rows: int) -> GraphArrays:
    """The same graph with room for `rows` nodes; `g` is not to be used again."""
    grown = {name: longer(getattr(g, name), rows) for name in (*VECTORS, *LISTS, "record", "beside")}
    known = _views(grown["record"], grown["beside"])
    side = _with_lists(g.rows, known, "row")
    return g._replace(
        **grown,
        **{name: known[name] for name in OF_A_ROW},
        rows=side,
        columns=side if g.columns is g.rows else _with_lists(g.columns, known, "column"),
    )


def grow_arcs(g: GraphArrays) -> GraphArrays:
    """The same graph with twice the room for arcs; `g` is not to be used again."""
    side = _larger_pool(g.rows)
    return g._replace(rows=side, columns=side if g.columns is g.rows else _larger_pool(g.columns))


def _views(record: Bytes, beside: Bytes) -> dict[str, NDArray[Any]]:
    known, asked = record.view(RECORD)[:, 0], beside.view(BESIDE)[:, 0]
    return {name: known[name] for name in RECORD.names or ()} | {
        name: asked[name] for name in ("inverse", "norm")
    }


def _with_lists(a: Adjacency, known: dict[str, NDArray[Any]], side: str) -> Adjacency:
    return a._replace(
        offset=known[f"{side}_offset"], length=known[f"{side}_length"], capacity=known[f"{side}_capacity"]
    )


def _empty_pool(known: dict[str, NDArray[Any]], side: str) -> Adjacency:
    words = zeros((FIRST_SLABS << (SLAB_BITS + 1),), np.int32, 2 * POOL_ROOM, HUGE_FROM)
    words = longer(words, in_place(words), HUGE_FROM)
    slabs = len(words) >> (SLAB_BITS + 1)
    pool = np.full(OPEN + CLASSES, -1, np.int64)
    pool[:OPEN] = 0
    return Adjacency(
        known[f"{side}_offset"],
        known[f"{side}_length"],
        known[f"{side}_capacity"],
        words,
        words[0::2],
        words.view(np.float32)[1::2],
        zeros((slabs << (SLAB_BITS - CHUNK_BITS),), np.uint8, slabs << (SLAB_BITS - CHUNK_BITS)),
        zeros((slabs, SLAB_FIELDS), np.int64, slabs),
        pool,
    )


def _larger_pool(a: Adjacency) -> Adjacency:
    words = longer(a.words, 2 * len(a.words), HUGE_FROM)
    return a._replace(
        words=words,
        target=words[0::2],
        weight=words.view(np.float32)[1::2],
        stale=longer(a.stale, 2 * len(a.stale)),
        slabs=longer(a.slabs, 2 * len(a.slabs)),
    )
