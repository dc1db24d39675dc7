"""A stored graph into the arrays."""

from __future__ import annotations

import numpy as np

from ..diffusion.arrays import ARCS, EDGES, allocate, grow_arcs
from ..diffusion.upkeep import count_loops, load_arcs, rebuild
from .graph import GraphState
from .store import GraphStore, Meta


def restore(graph: GraphState, store: GraphStore, meta: Meta) -> None:
    """Load rows, take the published vectors for a start, recompute every residual."""
    ids: dict[str, int] = {}
    for names, rows in store.ids():
        ids.update(zip(names, rows.tolist(), strict=True))
    used = max(ids.values(), default=-1) + 1
    graph.arrays = g = allocate(max(64, used), graph.rules.features, graph.rules.directed)
    graph.row_ids = [None] * used
    for node, row in ids.items():
        graph.row_ids[row] = node
    graph.staging.rows = ids
    graph.staging.used = used
    graph.staging.free = [row for row in range(used) if graph.row_ids[row] is None]
    alive = np.fromiter(ids.values(), np.int32, len(ids))
    g.alive[alive] = 1
    for loaded in store.features():
        g.X[loaded.rows] = graph.rules.scaled(loaded.values)
    g.H[:] = g.X
    for loaded in store.vectors():
        g.P[loaded.rows] = g.H[loaded.rows] = graph.rules.scaled(loaded.values)
        g.announced[loaded.rows] = 1
    _load_arcs(graph, store)
    graph.nodes, graph.sequence = len(ids), meta.event_sequence
    graph.owed_tombstones = dict.fromkeys(meta.owed_tombstones)
    graph.peak = float(max(np.abs(g.X).max(initial=0), np.abs(g.H).max(initial=0)))
    for row in alive[g.announced[alive] == 0].tolist():
        graph.mark_moved(row)
    rebuild(graph.arrays, used, graph.alpha, graph.epsilon)


def _load_arcs(graph: GraphState, store: GraphStore) -> None:
    for loaded in store.arcs():
        sizes = np.diff(loaded.chunk_ends, prepend=0)
        sources = np.repeat(loaded.chunks[:, 0], sizes).astype(np.int32)
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
    g, used = graph.arrays, len(graph.row_ids)
    loops = count_loops(g, used)
    arcs = int(g.rows.length.sum())
    g.sizes[ARCS] = arcs
    g.sizes[EDGES] = arcs if graph.rules.directed else (arcs + loops) // 2
    g.stored_chunks[:] = (g.rows.length + 255) >> 8
