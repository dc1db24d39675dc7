"""`python -m benchmarks NAME [--json]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from .figures import machine

TESTS = Path(__file__).resolve().parent.parent / "tests"

# each benchmark pays for itself: what it needs is imported when it runs
# ruff: noqa: PLC0415


async def pipeline(given: argparse.Namespace) -> dict[str, Any]:
    """Rate, latency and recovery of the whole pipeline."""
    from .pipeline import measure

    return await measure(given.nodes, given.edges, given.seconds)


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


Benchmark = Callable[[argparse.Namespace], Awaitable[dict[str, Any]]]
NAMES: dict[str, Benchmark] = {
    "kernel": kernel,
    "peers": peers,
    "growth": growth,
    "hubs": hubs,
    "memory": memory,
    "cold-start": cold_start,
    "pipeline": pipeline,
    "soak": soak,
}


def main() -> int:
    """Run one benchmark; exit code 1 when a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=sorted(NAMES), help="which one")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: it runs, its figures say nothing")
    parser.add_argument("--torch-python", type=Path, help="peers: an interpreter that has torch")
    parser.add_argument("--instantgnn", type=Path, help="peers: a checkout of InstantGNN")
    parser.add_argument("--eigen", type=Path, help="peers: the folder that holds Eigen/Dense")
    parser.add_argument("--nodes", type=int, default=100_000, help="pipeline: of the graph")
    parser.add_argument("--edges", type=int, default=500_000, help="pipeline: of the graph")
    parser.add_argument("--seconds", type=int, default=60, help="pipeline: of sustained load")
    parser.add_argument("--minutes", type=float, default=0.0, help="soak: of everything at once")
    parser.add_argument("--kills", type=int, default=0, help="soak: SIGKILLs under load, at the end")
    parser.add_argument("--seed", type=int, help="soak: of events, moments and delays")
    given = parser.parse_args()
    if given.name == "soak" and not (given.minutes > 0 or given.kills > 0):
        parser.error("soak: say how long (--minutes 20), or how many kills (--kills 50), or both")
    try:
        found = asyncio.run(NAMES[given.name](given))
    except (KeyboardInterrupt, asyncio.CancelledError) as stopped:
        print("stopped: nothing was measured", file=sys.stderr)
        return 130 if isinstance(stopped, KeyboardInterrupt) else 143
    found = {"benchmark": given.name, "quick": given.quick, "machine": machine(), **found}
    print(json.dumps(found, indent=None if given.json else 2))
    return 0 if found["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
