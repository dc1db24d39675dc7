"""The graph as plain arrays: everything a kernel needs, nothing else.

Rows are nodes. X, H, R and P are features, vectors, residuals and published vectors [n, F] float32. The arcs
u → v of row u with weight w are the row of the stochastic matrix P_uv = w / weight_sum[u]; `columns` holds the
same arcs by their target. In an undirected graph the two are one and the same list.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Rows = NDArray[np.int32]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

SMALLEST = 4  # arcs of the smallest region
CHUNK_BITS = 8  # a stored chunk has 256 arcs
CLASSES = 40  # region sizes are powers of two

# places in `sizes`
PENDING, MOVED, DIRTY, ARCS, EDGES = range(5)
# places in `counters`
VISITED, PUSHES, ARC_UPDATES, LOST_ADDS, NOTHING_DONE, SCRUBBED = range(6)
COUNTERS = ("visited", "pushes", "arc_updates", "lost_adds", "no_ops", "scrubbed")
# bits of `dirty`
FEATURES_CHANGED, ARCS_CHANGED, VECTOR_CHANGED, ID_CHANGED = 1, 2, 4, 8


class Adjacency(NamedTuple):
    """Lists in one pool with slack behind each; a list that outgrows its region moves to one twice as large."""

    offset: Ints  # [n]
    length: Ints  # [n]
    capacity: Ints  # [n], 0 or a power of two
    target: Rows  # [m]
    weight: Floats  # [m]
    stale: Bytes  # [m / 256 + 1]: changed since the last checkpoint, for lists of 256 arcs and more
    pool: Ints  # [0]: end of the used part; [1 + c]: first free region of 2^c arcs, or −1


class GraphArrays(NamedTuple):
    """One graph. Invariant: every row with |R|∞ > ε is in the first sizes[PENDING] of `pending`."""

    X: Floats
    H: Floats
    R: Floats
    P: Floats
    weight_sum: Doubles  # [n]
    weight_ref: Doubles  # [n]: largest weight_sum since R was last rebuilt from its definition
    self_weight: Floats  # [n]: weight of the arc u → u
    rows: Adjacency
    columns: Adjacency
    alive: Bytes
    announced: Bytes  # consumers hold P
    unknown: Bytes  # consumers hold something else: publish in any case
    generation: Ints  # how often the row has been freed
    stored_chunks: Rows  # chunks of arcs the store holds
    dirty: Bytes
    pending_mark: Bytes
    moved_mark: Bytes
    norm: Floats  # |R|∞ of a pending row
    pending: Rows
    work: Rows
    moved: Rows  # H changed since the last publish decision, or never announced
    dirty_rows: Rows
    push_vector: Floats  # [F] scratch
    exact_row: Doubles  # [F] scratch
    sizes: Ints
    counters: Ints


def allocate(rows: int, features: int, directed: bool) -> GraphArrays:
    """An empty graph with room for `rows` nodes."""
    side = _adjacency(rows)
    return GraphArrays(
        X=np.zeros((rows, features), np.float32),
        H=np.zeros((rows, features), np.float32),
        R=np.zeros((rows, features), np.float32),
        P=np.zeros((rows, features), np.float32),
        weight_sum=np.zeros(rows),
        weight_ref=np.zeros(rows),
        self_weight=np.zeros(rows, np.float32),
        rows=side,
        columns=_adjacency(rows) if directed else side,
        alive=np.zeros(rows, np.uint8),
        announced=np.zeros(rows, np.uint8),
        unknown=np.zeros(rows, np.uint8),
        generation=np.zeros(rows, np.int64),
        stored_chunks=np.zeros(rows, np.int32),
        dirty=np.zeros(rows, np.uint8),
        pending_mark=np.zeros(rows, np.uint8),
        moved_mark=np.zeros(rows, np.uint8),
        norm=np.zeros(rows, np.float32),
        pending=np.zeros(rows, np.int32),
        work=np.zeros(rows, np.int32),
        moved=np.zeros(rows, np.int32),
        dirty_rows=np.zeros(rows, np.int32),
        push_vector=np.zeros(features, np.float32),
        exact_row=np.zeros(features),
        sizes=np.zeros(8, np.int64),
        counters=np.zeros(8, np.int64),
    )


def grow_rows(g: GraphArrays, rows: int) -> GraphArrays:
    """The same graph with room for `rows` nodes."""
    shared = {"push_vector", "exact_row", "sizes", "counters", "rows", "columns"}
    grown: dict[str, Any] = {
        name: value if name in shared else _longer(value, rows) for name, value in g._asdict().items()
    }
    side = _longer_lists(g.rows, rows)
    grown["rows"] = side
    grown["columns"] = side if g.columns is g.rows else _longer_lists(g.columns, rows)
    return GraphArrays(**grown)


def grow_arcs(g: GraphArrays) -> GraphArrays:
    """The same graph with twice the room for arcs."""
    side = _larger_pool(g.rows)
    return g._replace(rows=side, columns=side if g.columns is g.rows else _larger_pool(g.columns))


def _adjacency(rows: int) -> Adjacency:
    arcs = max(1024, 4 * rows)
    pool = np.full(1 + CLASSES, -1, np.int64)
    pool[0] = 0
    return Adjacency(
        np.zeros(rows, np.int64),
        np.zeros(rows, np.int64),
        np.zeros(rows, np.int64),
        np.zeros(arcs, np.int32),
        np.zeros(arcs, np.float32),
        np.zeros((arcs >> CHUNK_BITS) + 1, np.uint8),
        pool,
    )


def _longer(array: NDArray[Any], length: int) -> NDArray[Any]:
    longer = np.zeros((length, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer


def _longer_lists(a: Adjacency, rows: int) -> Adjacency:
    return a._replace(
        offset=_longer(a.offset, rows), length=_longer(a.length, rows), capacity=_longer(a.capacity, rows)
    )


def _larger_pool(a: Adjacency) -> Adjacency:
    arcs = 2 * len(a.target)
    return a._replace(
        target=_longer(a.target, arcs),
        weight=_longer(a.weight, arcs),
        stale=_longer(a.stale, (arcs >> CHUNK_BITS) + 1),
    )
