"""The benchmarks by name."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent / "tests"

# What a benchmark needs is imported when it runs: each pays for itself.
# ruff: noqa: PLC0415


async def pipeline(given: argparse.Namespace) -> dict[str, Any]:
    """Rate, latency and recovery of the whole pipeline."""
    from .pipeline import measure

    return await measure(given)


async def soak(given: argparse.Namespace) -> dict[str, Any]:
    """Everything at once for a while, and SIGKILLs."""
    sys.path[:0] = [str(TESTS), str(TESTS / "worker")]  # servers to freeze, and the oracle
    import pytest

    from .soak import measure

    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    print(f"seed {seed}: --seed {seed} repeats it", file=sys.stderr)
    try:
        return await measure(given.minutes, given.kills, seed)
    except pytest.skip.Exception as missing:  # the servers are those of the tests
        raise SystemExit(f"soak: {missing}") from None


async def kernel(given: argparse.Namespace) -> dict[str, Any]:
    """The kernels against a straightforward push and the random-row roofline."""
    from .kernel import measure

    return measure(quick=given.quick)


async def peers(given: argparse.Namespace) -> dict[str, Any]:
    """One event against full recomputes, and batches against InstantGNN, at the same measured error."""
    from .peers import measure

    return measure(given.torch_python, given.instantgnn, given.eigen, quick=given.quick)


async def growth(given: argparse.Namespace) -> dict[str, Any]:
    """What an event costs while the graph grows a hundredfold."""
    from .growth import measure

    return measure(quick=given.quick)


async def hubs(given: argparse.Namespace) -> dict[str, Any]:
    """Upserts of a star's edges."""
    from .hubs import measure

    return measure(quick=given.quick)


async def memory(given: argparse.Namespace) -> dict[str, Any]:
    """Resident memory of a process that holds a graph, against the bare arrays."""
    from .memory import measure

    return measure(quick=given.quick)


async def cold_start(given: argparse.Namespace) -> dict[str, Any]:
    """A graph from its events: repairs without pushing, one solve, a certificate."""
    from .cold_start import measure

    return measure(quick=given.quick)


async def tpu(given: argparse.Namespace) -> dict[str, Any]:
    """Models and regions on this machine's CPU."""
    from .tpu import measure

    if given.quick:
        return measure(given.data, repeats=2, hours=6, seeds=2)
    return measure(given.data, given.repeats, given.hours, given.seeds)


Benchmark = Callable[[argparse.Namespace], Coroutine[Any, Any, dict[str, Any]]]
NAMES: dict[str, Benchmark] = {
    "kernel": kernel,
    "peers": peers,
    "growth": growth,
    "hubs": hubs,
    "memory": memory,
    "cold-start": cold_start,
    "pipeline": pipeline,
    "soak": soak,
    "tpu": tpu,
}
