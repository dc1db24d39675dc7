"""One event of the kernels against full recomputes by others, at the same measured error; and against InstantGNN."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from dgdm.diffusion.arrays import GraphArrays
from dgdm.diffusion.exact import fixed_point, transition

from . import instantgnn
from .figures import at_least, spread, tell, with_goals
from .kernel_graphs import (
    ALPHA,
    edge_events,
    ends,
    kinds,
    loaded,
    rmat_edges,
    scratch_for,
    solved,
    stream,
    unit_rows,
)
from .pipes import answering

NODES, EDGES, FEATURES, ACCURACY = 100_000, 500_000, 64, 0.01
QUICK = (500, 2_500)
ROUNDS, EVENTS = 5, 20_000
TOLERANCE = 1e-6  # of the exact answer
OTHER = Path(__file__).with_name("torch_peer.py")
TIMES_TORCH, TIMES_INSTANTGNN = 10_000, {1000: 10, 1: 25}


def measure(
    torch_python: Path | None, checkout: Path | None, eigen: Path | None, *, quick: bool
) -> dict[str, Any]:
    """What is not given is not compared, and `absent` says so."""
    figures: dict[str, Any] = {"features": FEATURES, "accuracy": ACCURACY, "alpha": ALPHA}
    figures |= _recomputes(torch_python, quick=quick)
    goals: dict[str, Any] = {}
    absent: list[str] = []
    if torch_python is None:
        absent.append("torch and PyG: --torch-python names an interpreter that has them")
    else:
        times = figures["recompute"]["torch"]["times_ours"]["median"]
        goals["one event against a full recompute by torch, times"] = at_least(times, TIMES_TORCH)
    if checkout is None:
        absent.append("InstantGNN: --instantgnn names a checkout")
    else:
        x = unit_rows(np.random.default_rng(3), QUICK[0] if quick else NODES, FEATURES)
        found = instantgnn.compare(checkout, eigen, x, ACCURACY, quick=quick)
        figures["instantgnn"] = found
        for size, times in TIMES_INSTANTGNN.items():
            seen = found[f"batch {size}"]["times_instantgnn"]["median"]
            goals[f"batch {size} against InstantGNN, times"] = at_least(seen, times)
    return with_goals({**figures, "absent": absent}, goals)


def _recomputes(torch_python: Path | None, *, quick: bool) -> dict[str, Any]:
    """Events one at a time, and every recompute once, in turns."""
    n, count = QUICK if quick else (NODES, EDGES)
    random = np.random.default_rng(1)
    edges = rmat_edges(random, n, count)
    g = solved(
        loaded(unit_rows(random, n, FEATURES), edges, random.uniform(0.5, 2, count).astype(np.float32)),
        ACCURACY,
    )
    _one_at_a_time(g, random, edges, 200 if quick else EVENTS)  # the state of a service that runs
    p = matrix_of(g)
    x = g.X[:, :FEATURES]
    exact = fixed_point(p, x.astype(np.float64), ALPHA, TOLERANCE)
    error = float(np.abs(g.P[:, :FEATURES] - exact).max())
    tell(f"what consumers hold errs by {error:.5f}")
    with _ways(torch_python, p, x, exact, error) as (ways, known):
        ours: list[float] = []
        others: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(1 if quick else ROUNDS):
            for name, way in ways.items():
                others[name].append(way())
            ours.append(_one_at_a_time(g, random, edges, 200 if quick else EVENTS))
    found = {
        name: {
            "seconds": spread(seconds),
            "times_ours": spread([s / o for s, o in zip(seconds, ours, strict=True)]),
            **known.get(name, {}),
        }
        for name, seconds in others.items()
    }
    one = {"nodes": n, "arcs": p.nnz, "error": error, "us_per_event": spread([1e6 * s for s in ours])}
    return {**one, "recompute": found}


def _one_at_a_time(g: GraphArrays, random: Any, edges: Any, count: int) -> float:
    """Seconds of an event."""
    events = edge_events(random, len(g.alive), edges, count)
    kind, both, scratch = kinds(events), ends(events), scratch_for(g)
    begun = time.perf_counter()
    stream(g, scratch, kind, both, events.w, 1, ALPHA, ALPHA * ACCURACY / 2, ACCURACY / 2)
    return (time.perf_counter() - begun) / count


def matrix_of(g: GraphArrays) -> sparse.csr_array:
    """P [n, n] of the arcs that are held."""
    n, length = len(g.alive), g.rows.length
    rows = np.repeat(np.arange(n), length)
    at = np.repeat(g.rows.offset - np.cumsum(length) + length, length) + np.arange(len(rows))
    return transition(rows, g.rows.target[at], g.rows.weight[at], n)


@contextmanager
def _ways(
    torch_python: Path | None, p: sparse.csr_array, x: Any, exact: Any, error: float
) -> Iterator[tuple[dict[str, Callable[[], float]], dict[str, Any]]]:
    """Each recompute as a call that returns its seconds; and what is known of it."""
    single = sparse.csr_array(p.astype(np.float32))
    steps, reached = _steps(single, x, exact, error)
    ways: dict[str, Callable[[], float]] = {"SciPy": lambda: _recompute(single, x, steps)}
    known: dict[str, Any] = {"SciPy": {"steps": steps, "error": reached}}
    if torch_python is None:
        yield ways, known
        return
    with tempfile.TemporaryDirectory(prefix="dgdm-bench-") as folder:
        held = {
            "data": single.data,
            "indices": single.indices,
            "indptr": single.indptr,
            "x": x,
            "exact": exact,
        }
        for name, array in held.items():
            np.save(Path(folder, f"{name}.npy"), array)
        with answering([str(torch_python), str(OTHER), folder, str(error), str(ALPHA)]) as other:
            hello = json.loads(other.answer())
            for name in hello.pop("ways"):
                ways[name] = lambda name=name: other.seconds(name)  # type: ignore[misc]  # bound now, not later
                known[name] = hello | ({"steps": 10, "error": None} if name.endswith("K=10") else {})
            yield ways, known


def _recompute(p: sparse.csr_array, x: Any, steps: int) -> float:
    begun = time.perf_counter()
    z, part = x, np.float32(ALPHA) * x
    for _ in range(steps):
        z = part + np.float32(1 - ALPHA) * (p @ z)
    return time.perf_counter() - begun


def _steps(p: sparse.csr_array, x: Any, exact: Any, error: float) -> tuple[int, float]:
    """The fewest that are as near to the exact answer, and how near they are."""
    z, steps, reached = x, 0, float("inf")
    while reached > error:
        z, steps = np.float32(ALPHA) * x + np.float32(1 - ALPHA) * (p @ z), steps + 1
        reached = float(np.abs(z - exact).max())
    return steps, reached
