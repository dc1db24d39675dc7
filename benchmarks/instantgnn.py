"""InstantGNN, built from a checkout that is given, against the kernels: the same inserts, equal measured error.

It diffuses with D^-1/2 A D^-1/2 and knows no weights, so each side has its own exact answer and is measured against
that. Its threshold is set by trial until its error is that of the kernels, or a little larger.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from dgdm.diffusion.arrays import GraphArrays
from dgdm.diffusion.exact import fixed_point, transition

from .figures import spread, tell
from .kernel_graphs import ALPHA, Events, ends, kinds, loaded, rmat_edges, scratch_for, solved, stream
from .pipes import Answering, answering

SOURCE = Path(__file__).with_name("instantgnn.cpp")
EIGEN = (Path("/usr/include/eigen3"), Path("/usr/local/include/eigen3"))
FLAGS = ("-O3", "-march=native", "-std=c++14", "-w", "-lpthread")
ROUNDS = 5
INSERTS = {1000: 1000, 1: 100}  # of a round, by size of batch
NEAR = (0.95, 1.25)  # its error, in units of ours
TRIALS = 8
THREADS = 2
TOLERANCE = 1e-6  # of the exact answers


class Case(NamedTuple):
    """One graph, and inserts for both sides."""

    x: Any
    edges: Any
    rounds: list[Any]  # inserts [k, 2] each; the first round warms up and is not counted
    accuracy: float
    size: int


class Sides(NamedTuple):
    """What was seen of both."""

    error: float
    events_per_s: list[float]
    solve_s: float


def compare(checkout: Path, eigen: Path | None, x: Any, accuracy: float, *, quick: bool) -> dict[str, Any]:
    """Figures of both, batched and one at a time."""
    with tempfile.TemporaryDirectory(prefix="dgdm-bench-") as folder:
        binary = _build(checkout, eigen, Path(folder))
        return {
            f"batch {size}": _compared(binary, Path(folder), _case(x, accuracy, size, 10 if quick else count))
            for size, count in INSERTS.items()
        }


def _case(x: Any, accuracy: float, size: int, count: int) -> Case:
    """Inserts between nodes that have neighbours: the peer divides by the degree that a node had."""
    total = (ROUNDS + 1) * count
    edges = rmat_edges(np.random.default_rng(2), len(x), 5 * len(x) + 3 * total)
    edges, spare = edges[: 5 * len(x)], edges[5 * len(x) :]
    known = np.zeros(len(x), bool)
    known[edges] = True
    inserts = spare[known[spare].all(axis=1)][:total]
    return Case(x, edges, np.split(inserts, ROUNDS + 1), accuracy, size)


def _build(checkout: Path, eigen: Path | None, folder: Path) -> Path:
    places = [eigen] if eigen else [checkout / "eigen3", *EIGEN]
    headers = [place for place in places if (place / "Eigen" / "Dense").exists()]
    if not headers:
        raise SystemExit(f"Eigen/Dense is not in {', '.join(map(str, places))}: say where it is with --eigen")
    binary = folder / "harness"
    words = ["g++", str(SOURCE), "-I", str(checkout), "-I", str(headers[0]), *FLAGS, "-o", str(binary)]
    subprocess.run(words, check=True)
    return binary


def _compared(binary: Path, folder: Path, case: Case) -> dict[str, Any]:
    """Trial after trial until the errors are equal; the figures are those of the last one, in turns."""
    exact, exact_of_peer = _exact(case, symmetric=False), _exact(case, symmetric=True)
    _write_graph(folder, case)
    # It counts in sums of a column's positive features, of which this is the usual one.
    rmax = case.accuracy / float(np.maximum(case.x, 0).sum(axis=0).mean())
    before = None
    for _ in range(TRIALS):
        ours, peer = _trial(binary, folder, case, rmax, exact, exact_of_peer)
        tell(
            f"batch {case.size}: InstantGNN errs by {peer.error:.4f} at rmax {rmax:.3g}, ours by {ours.error:.4f}"
        )
        if NEAR[0] <= peer.error / ours.error <= NEAR[1]:
            break
        before, rmax = (rmax, peer.error), _nearer(rmax, peer.error, before, 1.1 * ours.error)
    times = [o / p for o, p in zip(ours.events_per_s, peer.events_per_s, strict=True)]
    return {
        "nodes": len(case.x),
        "arcs": 2 * len(case.edges),
        "inserts_per_round": len(case.rounds[0]),
        "error": ours.error,
        "instantgnn_error": peer.error,
        "instantgnn_rmax": rmax,
        "solve_s": ours.solve_s,
        "instantgnn_solve_s": peer.solve_s,
        "events_per_s": spread(ours.events_per_s),
        "instantgnn_events_per_s": spread(peer.events_per_s),
        "times_instantgnn": spread(times),
    }


def _nearer(rmax: float, error: float, before: tuple[float, float] | None, wanted: float) -> float:
    """The next threshold: its error is taken for a power of it, as the last two trials say, or in proportion."""
    power = 1.0
    if before is not None and before[0] != rmax:
        power = float(np.log(error / before[1]) / np.log(rmax / before[0]))
    return float(rmax * (wanted / error) ** (1 / min(1.0, max(0.2, power))))


def _trial(
    binary: Path, folder: Path, case: Case, rmax: float, exact: Any, exact_of_peer: Any
) -> tuple[Sides, Sides]:
    """Both solve, then insert the same edges in turns."""
    begun = time.perf_counter()
    g = solved(loaded(case.x, case.edges, np.ones(len(case.edges), np.float32)), case.accuracy)
    solve_s = time.perf_counter() - begun
    arcs, (n, width) = 2 * len(case.edges), case.x.shape
    command = [str(binary), str(folder), *map(str, (n, arcs, width, rmax, ALPHA, THREADS))]
    seen: tuple[list[float], list[float]] = ([], [])
    with answering(command) as peer:
        solve_of_peer = float(peer.answer())
        for turn, inserts in enumerate(case.rounds):
            rates = (
                len(inserts) / _our_seconds(g, inserts, case),
                len(inserts) / _its_seconds(peer, folder, inserts, case),
            )
            for side, rate in zip(seen, rates, strict=True):
                if turn > 0:
                    side.append(rate)
        peer.seconds(f"write {folder}/z.bin")
    z = np.fromfile(folder / "z.bin").reshape(case.x.shape)
    return (
        Sides(float(np.abs(g.P[:, :width] - exact).max()), seen[0], solve_s),
        Sides(float(np.abs(z - exact_of_peer).max()), seen[1], solve_of_peer),
    )


def _our_seconds(g: GraphArrays, inserts: Any, case: Case) -> float:
    events = Events(inserts[:, 0], inserts[:, 1], np.ones(len(inserts), np.float32))
    kind, both, scratch = kinds(events), ends(events), scratch_for(g)
    begun = time.perf_counter()
    stream(g, scratch, kind, both, events.w, case.size, ALPHA, ALPHA * case.accuracy / 2, case.accuracy / 2)
    return time.perf_counter() - begun


def _its_seconds(peer: Answering, folder: Path, inserts: Any, case: Case) -> float:
    """An undirected edge is two lines."""
    path = folder / "inserts.txt"
    lines = np.repeat(inserts, 2, axis=0)
    lines[1::2] = lines[1::2, ::-1]
    path.write_text("".join(f"{u} {v}\n" for u, v in lines.tolist()))
    return peer.seconds(f"lines {path} {len(lines)}" if case.size == 1 else f"batch {path}")


def _write_graph(folder: Path, case: Case) -> None:
    n, matrix = len(case.x), _matrix(case.edges, len(case.x))
    matrix.indices.astype(np.uint32).tofile(folder / "graph_adj_el.txt")
    matrix.indptr.astype(np.uint32).tofile(folder / "graph_adj_pl.txt")
    case.x.astype(np.float64).reshape(n, -1).tofile(folder / "x.bin")


def _matrix(edges: Any, n: int) -> sparse.csr_array:
    both = np.concatenate([edges, edges[:, ::-1]])
    return sparse.csr_array((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(n, n))


def _exact(case: Case, *, symmetric: bool) -> Any:
    """The answer after all inserts, of D^-1/2 A D^-1/2 or of the row-stochastic D^-1 A."""
    edges, n = np.concatenate([case.edges, *case.rounds]), len(case.x)
    if symmetric:
        matrix = _matrix(edges, n)
        degree = matrix.sum(axis=1)
        scale = sparse.diags_array(np.divide(1, np.sqrt(degree), out=np.zeros(n), where=degree > 0))
        p = sparse.csr_array(scale @ matrix @ scale)
    else:
        both = np.concatenate([edges, edges[:, ::-1]])
        p = transition(both[:, 0], both[:, 1], np.ones(len(both)), n)
    return fixed_point(p, case.x.astype(np.float64), ALPHA, TOLERANCE)
