"""Diffusion of a graph given whole, without state."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from .exact import fixed_point, transition, truncated

Edge = tuple[str, str] | tuple[str, str, float]


def diffuse(
    nodes: Mapping[str, ArrayLike],
    edges: Iterable[Edge],
    steps: int | None = None,
    alpha: float = 0.15,
    temperature: float | None = None,
    directed: bool = False,
    aggregate: Literal["in", "out"] = "in",
) -> dict[str, NDArray[np.float32]]:
    """Embeddings of all nodes: the fixed point H = αX + (1−α) P H, or Z_K after `steps` steps.

    `nodes` maps ids to features [F]; an edge's unknown ends have zero features; the last weight of an edge
    counts. `temperature` T turns the weights of a row into softmax(w / T). Raises ValueError.
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha = {alpha} is not in (0, 1]")
    if steps is not None and steps < 0:
        raise ValueError(f"steps = {steps} is negative; None stands for the fixed point")
    if temperature is not None and not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature = {temperature} is not a finite number above 0")
    arcs, ids = _arcs(list(nodes), edges, directed, aggregate)
    x = _matrix(nodes, ids)
    rows = np.array([u for u, _ in arcs], np.int64)
    targets = np.array([v for _, v in arcs], np.int64)
    weights = np.array(list(arcs.values()), np.float64)
    if temperature is not None:
        weights = _softmax(rows, weights / temperature, len(ids))
    p: sparse.csr_array = transition(rows, targets, weights, len(ids))
    h = fixed_point(p, x, alpha) if steps is None else truncated(p, x, alpha, steps)
    return dict(zip(ids, h.astype(np.float32), strict=True))


def _arcs(
    known: Sequence[str], edges: Iterable[Edge], directed: bool, aggregate: str
) -> tuple[dict[tuple[int, int], float], list[str]]:
    index = {node: i for i, node in enumerate(known)}
    arcs: dict[tuple[int, int], float] = {}
    for edge in edges:
        source, target, weight = edge if len(edge) == 3 else (*edge, 1.0)
        if not (weight > 0 and math.isfinite(weight)):
            raise ValueError(
                f"the weight {weight!r} of edge {source!r} → {target!r} is not a finite number above 0"
            )
        s, t = index.setdefault(source, len(index)), index.setdefault(target, len(index))
        if not directed:
            arcs[s, t] = arcs[t, s] = weight
        else:
            arcs[(t, s) if aggregate == "in" else (s, t)] = weight
    return arcs, list(index)


def _matrix(nodes: Mapping[str, ArrayLike], ids: Sequence[str]) -> NDArray[np.float64]:
    vectors = {node: np.asarray(value, np.float64) for node, value in nodes.items()}
    width = next((len(v) for v in vectors.values()), 1)
    x = np.zeros((len(ids), width))
    for i, node in enumerate(ids):
        vector = vectors.get(node)
        if vector is None:
            continue
        if vector.shape != (width,) or not np.isfinite(vector).all():
            raise ValueError(f"features of {node!r} are not {width} finite numbers, as those before")
        x[i] = vector
    return x


def _softmax(rows: NDArray[np.int64], logits: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """exp(logit − largest of the row): the row sum is taken when P is made. Never 0, so no arc is lost."""
    top = np.full(n, -np.inf)
    np.maximum.at(top, rows, logits)
    weights: NDArray[np.float64] = np.maximum(np.exp(logits - top[rows]), np.finfo(np.float64).tiny)
    return weights
