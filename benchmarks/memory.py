"""Resident memory of a process of its own that holds a graph, against the arrays that no program could do without."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from dgdm.diffusion.arrays import FILLED, SLAB_BITS
from dgdm.diffusion.compaction import CALM, compact, cut_lists
from dgdm.diffusion.upkeep import clean
from dgdm.state.graph import GraphState
from dgdm.state.memory import memory_of, return_free_memory

from .figures import at_most, resident, spread, tell, with_goals
from .kernel_graphs import rmat_pairs, unit_rows
from .records import edge_records, node_records
from .states import FEATURES, new_state, publish

NODES, ARCS = 1_000_000, 10_000_000
QUICK = (2_000, 20_000)
ROUNDS = 5
PIECE = 100_000  # rows or pairs made at a time: what makes the graph must not stand beside it
MOST, INTERPRETER = 1.4, 150.0  # times the raw arrays, and megabytes beside
MEGA = 1e6


def measure(*, quick: bool) -> dict[str, Any]:
    """Megabytes after load, solve and publication of everything."""
    seen = []
    for _ in range(1 if quick else ROUNDS):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
            seen.append(child.submit(held, *(QUICK if quick else (NODES, ARCS))).result())
        tell(f"{seen[-1]['resident_mb']} MB")
    resident_mb = spread([one["resident_mb"] for one in seen])
    allowed = MOST * seen[-1]["raw_arrays_mb"] + INTERPRETER
    goals = {"resident megabytes": at_most(resident_mb["median"], allowed)}
    return with_goals({**seen[-1], "resident_mb": resident_mb}, goals)


def held(nodes: int, arcs: int) -> dict[str, Any]:
    """Build a graph in this process and weigh it."""
    _fill(new_state(), 100, 200)  # loads the kernels
    return_free_memory()
    before = resident()
    graph = new_state()
    _fill(graph, nodes, arcs)
    graph.push()
    publish(graph)
    # What a worker does in small steps, with each batch and each checkpoint, until nothing more comes back.
    for _ in range(2 * (graph.used // CALM + 1)):
        compact(graph.arrays, graph.used)
    clean(graph.arrays)
    cut_lists(graph.arrays)
    return_free_memory()
    g = graph.arrays
    raw = 4 * nodes * FEATURES * 4 + 8 * graph.arcs
    return {
        "nodes": graph.nodes,
        "arcs": graph.arcs,
        "features": FEATURES,
        "resident_mb": round(resident(), 1),
        "interpreter_mb": round(before, 1),
        "raw_arrays_mb": round(raw / MEGA, 1),
        "pool_of_arcs_mb": round((int(g.rows.pool[FILLED]) << (SLAB_BITS + 3)) / MEGA, 1),
        "lists_in_it_mb": round(8 * int(g.rows.capacity.sum()) / MEGA, 1),
        "ids_mb": round(sum(array.nbytes for array in graph.ids) / MEGA, 1),
        "rows_mb": round(memory_of(graph)["rows"] / MEGA, 1),
    }


def _fill(graph: GraphState, nodes: int, arcs: int) -> None:
    random = np.random.default_rng(1)
    for start in range(0, nodes, PIECE):
        x = unit_rows(random, min(PIECE, nodes - start), FEATURES)
        for records in node_records(x, start):
            graph.apply(records, push=False)
    while graph.arcs < arcs:
        edges = rmat_pairs(random, nodes, min(PIECE, arcs))
        for records in edge_records(edges, random.uniform(0.5, 2, len(edges)).astype(np.float32)):
            graph.apply(records, push=False)
