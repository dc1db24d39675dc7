"""Which rows make a region: METIS cuts a graph so that few arcs lie between parts."""

from __future__ import annotations

import importlib
import math
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .errors import MissingRuntimeError, ModelError
from .runtime import INSTALL

Rows = NDArray[np.int64]

IMBALANCE = 1.03
"""METIS aims at parts of which none is larger than the mean by more than this factor; the few that are get split."""
MAX_ROWS = 1_400
"""Rows of a region: two int8 matrices of this size and their outputs stay within the device's memory."""


class PartitionStrategy(StrEnum):
    """How rows are told apart."""

    EDGE_CUT = "edge_cut"  # METIS: the weight of the arcs between parts is small
    ROWS = "rows"  # neighbours in number: for graphs whose numbering has meaning, and without METIS


def partition(
    p: sparse.csr_array, max_rows: int = MAX_ROWS, strategy: PartitionStrategy = PartitionStrategy.EDGE_CUT
) -> list[Rows]:
    """Rows of P [n, n] in parts of at most `max_rows`, each sorted, each row in one. Raises MissingRuntimeError."""
    n = p.shape[0]
    if max_rows < 1:
        raise ModelError(f"regions of at most {max_rows} rows")
    if n == 0:
        return []
    if n <= max_rows or strategy is PartitionStrategy.ROWS:
        return _split(np.arange(n), max_rows)
    labels = _cut(_symmetric(p), min(n, math.ceil(IMBALANCE * n / max_rows)))
    found = [np.flatnonzero(labels == k) for k in range(labels.max() + 1)]
    return [rows for part in found if len(part) for rows in _split(part, max_rows)]


def _split(rows: Rows, max_rows: int) -> list[Rows]:
    """Neighbours in number, in as few parts as there must be."""
    return [np.asarray(part, np.int64) for part in np.array_split(rows, -(-len(rows) // max_rows))]


def given_regions(regions: list[Any], n: int, max_rows: int = MAX_ROWS) -> list[Rows]:
    """A user's own regions, checked; they need not cover all rows. Raises ModelError."""
    seen = np.zeros(n, bool)
    checked = []
    for number, rows in enumerate(regions):
        part = np.unique(np.asarray(rows, np.int64))
        if not 0 < len(part) <= max_rows:
            raise ModelError(f"region {number} has {len(part)} rows; want 1 to {max_rows}")
        if part[0] < 0 or part[-1] >= n:
            raise ModelError(f"region {number} names rows {part[0]} to {part[-1]} of {n}")
        if seen[part].any():
            raise ModelError(f"region {number} shares row {part[seen[part]][0]} with another")
        seen[part] = True
        checked.append(part)
    return checked


def cut_weight(p: sparse.csr_array, regions: list[Rows]) -> float:
    """Share of P's weight on arcs that leave their region, or lie outside all of them."""
    label = np.full(p.shape[0], -1)
    for k, rows in enumerate(regions):
        label[rows] = k
    arcs = p.tocoo()
    between = (label[arcs.row] != label[arcs.col]) | (label[arcs.row] < 0)
    return float(arcs.data[between].sum() / max(float(arcs.data.sum()), 1e-30))


def _symmetric(p: sparse.csr_array) -> sparse.csr_array:
    """Weights of METIS' kind: symmetric, whole numbers above 0, no loops."""
    both = (p + p.T).tocsr()
    both.setdiag(0)
    both.eliminate_zeros()
    top = float(both.data.max(initial=0.0)) or 1.0
    both.data = np.maximum(1, np.rint(both.data * (1000 / top)))
    return both


def require_metis() -> Any:
    """The library. Raises MissingRuntimeError."""
    try:
        return importlib.import_module("pymetis")
    except ImportError as error:
        raise MissingRuntimeError(
            f"cutting a graph into regions needs pymetis: {INSTALL}, or where there is no wheel of it: pip install "
            f"pymetis; or give regions yourself, or PartitionStrategy.ROWS ({error})"
        ) from None


def _cut(graph: sparse.csr_array, parts: int) -> NDArray[np.int64]:
    metis = require_metis()
    _, labels = metis.part_graph(
        parts,
        metis.CSRAdjacency(graph.indptr.astype(np.int64), graph.indices.astype(np.int64)),
        eweights=graph.data.astype(np.int64),
        options=metis.Options(seed=1),
    )
    return np.asarray(labels, np.int64)
