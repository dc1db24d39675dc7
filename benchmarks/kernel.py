"""The kernels against the straightforward queue push and against the random-row roofline, turn by turn.

All three run on one thread; its processor time counts, so that others on the machine do not.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

from dgdm.diffusion.arrays import ARC_UPDATES, PUSHES, GraphArrays

from . import kernel_baseline
from .figures import at_least, spread, tell, with_goals
from .kernel_graphs import (
    ALPHA,
    Events,
    Scratch,
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
from .roofline import rows_per_second

GRAPHS = {
    "100k/1M": (100_000, 500_000),
    "1M/10M": (1_000_000, 5_000_000),
}  # nodes, edges; arcs are twice as many
QUICK = {"1k/10k": (1_000, 5_000)}
WIDTHS, ACCURACIES, BATCHES = (32, 64), (0.01, 0.003), (1000, 1)
ROUNDS = 11
EVENTS = {0.01: 10_000, 0.003: 4_000}  # of a round: some tenths of a second of the baseline
TOUCHED = 1_000_000  # rows of a round
FASTER = {(0.01, 1000): 3.0, (0.003, 1000): 4.0, (0.01, 1): 2.5, (0.003, 1): 4.0}  # times the baseline
SHARE = {
    ("100k/1M", 64): 0.7,
    ("1M/10M", 64): 0.7,
    ("1M/10M", 32): 0.5,
    ("100k/1M", 32): 0.4,
}  # of the roofline


class Pair(NamedTuple):
    """One graph twice."""

    ours: GraphArrays
    scratch: Scratch
    baseline: kernel_baseline.Baseline


def measure(*, quick: bool) -> dict[str, Any]:
    """Every graph, width, accuracy and size of batch."""
    cases: dict[str, Any] = {}
    goals: dict[str, Any] = {}
    for graph, (n, count) in (QUICK if quick else GRAPHS).items():
        random = np.random.default_rng(1)
        edges = rmat_edges(random, n, count)
        weights = random.uniform(0.5, 2, count).astype(np.float32)
        for width in WIDTHS[:1] if quick else WIDTHS:
            pair = _pair(unit_rows(random, n, width), edges, weights)
            for accuracy in ACCURACIES:
                _start(pair, accuracy)
                for size in BATCHES:
                    name = f"{graph} F={width} A={accuracy} batch {size}"
                    found = _rounds(pair, random, edges, accuracy, size, quick)
                    cases[name] = found
                    tell(
                        f"{name}: {found['times_baseline']} times, {found['share_of_roofline']} of the roofline"
                    )
                    goals[f"{name}: times the baseline"] = at_least(
                        found["times_baseline"]["median"], FASTER[accuracy, size]
                    )
                    if (graph, width) in SHARE and (accuracy, size) == (0.003, 1000):
                        goals[f"{name}: share of the roofline"] = at_least(
                            found["share_of_roofline"]["median"], SHARE[graph, width]
                        )
    return with_goals({"alpha": ALPHA, "cases": cases}, goals)


def _pair(x: Any, edges: Any, weights: Any) -> Pair:
    ours = loaded(x, edges, weights)
    baseline = kernel_baseline.baseline_of(len(x), edges[:, 0], edges[:, 1], weights, x, x)
    return Pair(ours, scratch_for(ours), baseline)


def _start(pair: Pair, accuracy: float) -> None:
    """Both from the same vectors, solved to the accuracy."""
    width = pair.baseline.H.shape[1]
    solved(pair.ours, accuracy)
    pair.baseline.H[:] = pair.baseline.P[:] = pair.ours.H[:, :width]
    kernel_baseline.rebuild_all(pair.baseline, ALPHA)


def _rounds(pair: Pair, random: Any, edges: Any, accuracy: float, size: int, quick: bool) -> dict[str, Any]:
    """Baseline, kernels and roofline in turn, on the same events; the first round warms up and is not counted."""
    n, count = len(pair.ours.alive), 1_000 if quick else EVENTS[accuracy]
    seen: dict[str, list[float]] = {
        name: [] for name in ("baseline", "ours", "times", "arcs", "roof", "share")
    }
    before = _counts(pair)
    for turn in range((2 if quick else ROUNDS) + 1):
        if turn == 1:
            before = _counts(pair)
        events = edge_events(random, n, edges, count)
        slow = _baseline_seconds(pair, events, size, accuracy)
        roof = rows_per_second(pair.ours, random.integers(0, n, TOUCHED // (100 if quick else 1), np.int32))
        updates = int(pair.ours.counters[ARC_UPDATES])
        fast = _our_seconds(pair, events, size, accuracy)
        arcs = (int(pair.ours.counters[ARC_UPDATES]) - updates) / fast
        if turn > 0:
            for name, value in zip(
                seen, (count / slow, count / fast, slow / fast, arcs, roof, arcs / roof), strict=True
            ):
                seen[name].append(value)
    done = (_counts(pair) - before) / (count * len(seen["ours"]))
    width = pair.baseline.H.shape[1]
    return {
        "events_per_s": spread(seen["ours"]),
        "baseline_events_per_s": spread(seen["baseline"]),
        "times_baseline": spread(seen["times"]),
        "arc_updates_per_s": spread(seen["arcs"]),
        "roofline_rows_per_s": spread(seen["roof"]),
        "share_of_roofline": spread(seen["share"]),
        "per_event": dict(
            zip(
                ("pushes", "arc_updates", "baseline_pushes", "baseline_arc_updates"),
                done.round(2).tolist(),
                strict=True,
            )
        ),
        "largest_difference": float(np.abs(pair.ours.H[:, :width] - pair.baseline.H).max()),
        "difference_allowed": accuracy,
    }


def _counts(pair: Pair) -> Any:
    ours = pair.ours.counters[[PUSHES, ARC_UPDATES]]
    return np.concatenate([ours, pair.baseline.counts[:2]]).astype(np.float64)


def _baseline_seconds(pair: Pair, events: Events, size: int, accuracy: float) -> float:
    begun = time.thread_time()
    kernel_baseline.stream(pair.baseline, *events, size, ALPHA, ALPHA * accuracy / 2, accuracy / 2)
    return time.thread_time() - begun


def _our_seconds(pair: Pair, events: Events, size: int, accuracy: float) -> float:
    kind, both = kinds(events), ends(events)
    begun = time.thread_time()
    stream(pair.ours, pair.scratch, kind, both, events.w, size, ALPHA, ALPHA * accuracy / 2, accuracy / 2)
    return time.thread_time() - begun
