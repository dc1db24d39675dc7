"""What changed in a graph, as a checkpoint writes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..diffusion.compaction import cut_lists
from ..diffusion.gather import changed_rows, copied, gather_arcs
from ..diffusion.upkeep import clean
from .graph import GraphState
from .id_table import ids_of
from .raw_features import RawFeatures
from .store import Meta, StoreChanges

REWRITE_ROWS = 1 << 16


def collect(graph: GraphState, meta: Meta) -> StoreChanges:
    """Everything that changed since the last call, to be written as one."""
    g = graph.arrays
    rows = changed_rows(g)
    changes = _changes(graph, meta, rows.features, rows.vectors, rows.arcs, everything=False)
    changes = replace(
        changes,
        freed_ids=list(graph.freed_ids),
        freed_rows=rows.freed,
        ids=ids_of(graph.ids, rows.born),
        id_rows=rows.born,
    )
    if graph.raw is not None:
        changes = _with_raw(graph, graph.raw, changes, graph.raw.take_changed(g.alive))
    _forget(graph)
    return changes


def collect_all(graph: GraphState, meta: Meta) -> Iterator[StoreChanges]:
    """The whole graph, in parts; what was dirty is not any more."""
    g = graph.arrays
    g.stored_chunks[:] = 0
    for start in range(0, max(1, graph.used), REWRITE_ROWS):
        part = np.arange(start, min(start + REWRITE_ROWS, graph.used), dtype=np.int32)
        rows = part[g.alive[part] == 1]
        changes = _changes(graph, meta, rows, rows[g.announced[rows] == 1], rows, everything=True)
        changes = replace(changes, ids=ids_of(graph.ids, rows), id_rows=rows)
        yield changes if graph.raw is None else _with_raw(graph, graph.raw, changes, rows)
    if graph.raw is not None:
        graph.raw.take_changed(g.alive)
    _forget(graph)


def _forget(graph: GraphState) -> None:
    clean(graph.arrays)
    cut_lists(graph.arrays)
    graph.freed_ids.clear()


def _with_raw(
    graph: GraphState, raw: RawFeatures, changes: StoreChanges, rows: NDArray[np.int32]
) -> StoreChanges:
    meta = replace(changes.meta, encoders=raw.counts(graph.arrays.alive))
    return replace(changes, meta=meta, raw_rows=rows, raw=raw.words(rows))


def _changes(
    graph: GraphState,
    meta: Meta,
    features: NDArray[np.int32],
    vectors: NDArray[np.int32],
    arcs: NDArray[np.int32],
    everything: bool,
) -> StoreChanges:
    g = graph.arrays
    chunks, ends, targets, weights, freed = gather_arcs(g, arcs, everything)
    return StoreChanges(
        meta=replace(
            meta,
            event_sequence=graph.sequence,
            owed_tombstones=list(graph.owed_tombstones),
            nodes=graph.nodes,
            arcs=graph.arcs,
        ),
        freed_ids=[],
        freed_rows=np.empty(0, np.int32),
        freed_chunks=freed,
        ids=[],
        id_rows=np.empty(0, np.int32),
        feature_rows=features,
        features=graph.rules.raw(copied(g.X, features)),
        vector_rows=vectors,
        vectors=graph.rules.raw(copied(g.P, vectors)),
        chunks=chunks,
        chunk_ends=ends,
        targets=targets,
        weights=weights,
    )
