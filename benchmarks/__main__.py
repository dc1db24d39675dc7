"""`python -m benchmarks NAME [--json]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent / "tests"
DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


async def pipeline(given: argparse.Namespace) -> dict[str, Any]:
    """Rate, latency and recovery of the whole pipeline."""
    from .pipeline import measure  # noqa: PLC0415 - each benchmark pays for itself

    return await measure(given.nodes, given.edges, given.seconds)


async def soak(given: argparse.Namespace) -> dict[str, Any]:
    """Everything at once for a while, and SIGKILLs."""
    sys.path[:0] = [str(TESTS), str(TESTS / "worker")]  # servers to freeze, and the oracle
    import pytest  # noqa: PLC0415 - the same

    from .soak import measure  # noqa: PLC0415 - the same

    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    print(f"seed {seed}: --seed {seed} repeats it", file=sys.stderr)
    try:
        return await measure(given.minutes, given.kills, seed)
    except pytest.skip.Exception as missing:  # the servers are those of the tests
        raise SystemExit(f"soak: {missing}") from None


async def tpu(given: argparse.Namespace) -> dict[str, Any]:
    """Models and regions on this machine's CPU."""
    from .tpu import measure  # noqa: PLC0415 - the same

    return measure(given.data, given.repeats, given.hours, given.seeds)


NAMES = {"pipeline": pipeline, "soak": soak, "tpu": tpu}


def main() -> int:
    """Run one benchmark; exit code 1 when a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=sorted(NAMES), help="which one")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    parser.add_argument("--nodes", type=int, default=100_000, help="pipeline: of the graph")
    parser.add_argument("--edges", type=int, default=500_000, help="pipeline: of the graph")
    parser.add_argument("--seconds", type=int, default=60, help="pipeline: of sustained load")
    parser.add_argument("--minutes", type=float, default=0.0, help="soak: of everything at once")
    parser.add_argument("--kills", type=int, default=0, help="soak: SIGKILLs under load, at the end")
    parser.add_argument("--seed", type=int, help="soak: of events, moments and delays")
    parser.add_argument("--data", type=Path, default=DATA, help="tpu: folder of cora_ml.npz")
    parser.add_argument("--repeats", type=int, default=40, help="tpu: of each model")
    parser.add_argument("--hours", type=int, help="tpu: of Montevideo; all by default")
    parser.add_argument("--seeds", type=int, default=10, help="tpu: of each training")
    given = parser.parse_args()
    if given.name == "soak" and not (given.minutes > 0 or given.kills > 0):
        parser.error("soak: say how long (--minutes 20), or how many kills (--kills 50), or both")
    try:
        found = asyncio.run(NAMES[given.name](given))
    except (KeyboardInterrupt, asyncio.CancelledError) as stopped:
        print("stopped: nothing was measured", file=sys.stderr)
        return 130 if isinstance(stopped, KeyboardInterrupt) else 143
    print(json.dumps(found, indent=None if given.json else 2))
    return 0 if found["holds"] else 1


sys.exit(main())
