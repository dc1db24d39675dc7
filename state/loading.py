"""A stored graph into the arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..diffusion.arrays import ARCS, CHUNK, EDGES, allocate, grow_arcs
from ..diffusion.upkeep import count_loops, load_arcs, move_all, rebuild
from .graph import FIRST_ROWS, FIRST_TEXT, GraphState
from .id_table import add_ids, free_gaps, new_table
from .recovery import require_same_graph
from .store import GraphStore, Meta, StoredArcs, StoreFormatError


def restore(graph: GraphState, store: GraphStore, meta: Meta) -> None:
    """Load rows, take the published vectors for a start, recompute every residual.

    α, accuracy and offsets may differ from the stored ones: a store is in feature units. Raises
    StoredGraphMismatchError for what may not differ, StoreFormatError when parts do not fit each other.
    """
    rules = graph.rules
    require_same_graph(
        meta, replace(meta, features=rules.features, directed=rules.directed, aggregate=rules.aggregate)
    )
    _load_ids(graph, store, meta)
    g = graph.arrays
    with np.errstate(over="ignore"):  # stored under another scale: an infinity is refused below
        described = 0
        for loaded in store.features():
            _require_nodes(graph, loaded.rows, "features")
            g.X[loaded.rows, : rules.features] = rules.scaled(loaded.values)
            described += len(loaded.rows)
        if described != graph.nodes:
            raise _torn(f"features of {described} of {graph.nodes} nodes")
        _load_raw(graph, store)
        g.H[:] = g.X
        for loaded in store.vectors():
            _require_nodes(graph, loaded.rows, "a vector")
            g.H[loaded.rows, : rules.features] = rules.scaled(loaded.values)
            g.P[loaded.rows] = g.H[loaded.rows]
            g.announced[loaded.rows] = 1
    graph.peak[0] = max(np.abs(g.X).max(initial=0), np.abs(g.H).max(initial=0))
    if not np.isfinite(graph.peak[0]):
        raise StoreFormatError(
            "stored features overflow float32 under these accuracies: bring the columns' accuracies closer together"
        )
    _load_arcs(graph, store, meta)
    graph.sequence = meta.event_sequence
    graph.owed_tombstones = dict.fromkeys(meta.owed_tombstones)
    g, rows = graph.arrays, graph.rows()
    move_all(g, rows[g.announced[rows] == 0])
    rebuild(g, graph.used, graph.alpha, graph.epsilon)


def _load_ids(graph: GraphState, store: GraphStore, meta: Meta) -> None:
    graph.ids = new_table(max(FIRST_ROWS, meta.nodes), FIRST_TEXT)
    for names, rows in store.ids():
        try:
            graph.ids = add_ids(graph.ids, names, rows)
        except ValueError as error:
            raise _torn(str(error)) from None
    free_gaps(graph.ids)
    if graph.nodes != meta.nodes:
        raise _torn(f"{graph.nodes} ids for {meta.nodes} nodes")
    graph.arrays = allocate(len(graph.ids.place), graph.rules.features, graph.rules.directed)
    graph.arrays.alive[:] = graph.ids.place != 0


def _load_raw(graph: GraphState, store: GraphStore) -> None:
    if graph.raw is None:
        return
    described = 0
    for rows, words in store.raw():
        _require_nodes(graph, rows, "raw features")
        graph.raw.load(rows, words, len(graph.arrays.alive))
        described += len(rows)
    if described != graph.nodes:
        raise _torn(f"raw features of {described} of {graph.nodes} nodes")


def _load_arcs(graph: GraphState, store: GraphStore, meta: Meta) -> None:
    for loaded in store.arcs():
        sources = np.repeat(loaded.chunks[:, 0], np.diff(loaded.chunk_ends, prepend=0)).astype(np.int32)
        _require_arcs(graph, loaded, sources)
        done = 0
        while (done := load_arcs(graph.arrays.rows, sources, loaded.targets, loaded.weights, done)) < len(
            sources
        ):
            graph.arrays = grow_arcs(graph.arrays)
        done = 0
        while graph.rules.directed and (
            done := load_arcs(graph.arrays.columns, loaded.targets, sources, loaded.weights, done)
        ) < len(sources):
            graph.arrays = grow_arcs(graph.arrays)
    g, used = graph.arrays, graph.used
    loops = count_loops(g, used)
    arcs = int(g.rows.length.sum())
    if arcs != meta.arcs:
        raise _torn(f"{arcs} arcs where {meta.arcs} were written")
    g.sizes[ARCS] = arcs
    g.sizes[EDGES] = arcs if graph.rules.directed else (arcs + loops) // 2
    g.stored_chunks[:] = (g.rows.length + CHUNK - 1) // CHUNK


def _require_arcs(graph: GraphState, loaded: StoredArcs, sources: NDArray[np.int32]) -> None:
    _require_nodes(graph, sources, "arcs")
    _require_nodes(graph, loaded.targets, "an arc to it")
    if not (np.isfinite(loaded.weights) & (loaded.weights > 0)).all():
        raise _torn("a weight is not a number above 0")


def _require_nodes(graph: GraphState, rows: NDArray[np.int32], what: str) -> None:
    """Kernels do not check rows: what points outside the graph must not reach them."""
    inside = (rows >= 0) & (rows < graph.used)
    if not inside.all() or not graph.arrays.alive[rows].all():
        raise _torn(f"a row without an id has {what}")


def _torn(what: str) -> StoreFormatError:
    return StoreFormatError(
        f"the stored graph does not fit together ({what}): restore it from a backup, or drop it and replay the log"
    )
