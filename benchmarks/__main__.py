"""`python -m benchmarks NAME [--json]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from .figures import machine
from .registry import NAMES


def main() -> int:
    """Run one benchmark; exit code 1 when a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=sorted(NAMES), help="which one")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: it runs, its figures say nothing")
    parser.add_argument("--torch-python", type=Path, help="peers: an interpreter that has torch")
    parser.add_argument("--instantgnn", type=Path, help="peers: a checkout of InstantGNN")
    parser.add_argument("--eigen", type=Path, help="peers: the folder that holds Eigen/Dense")
    parser.add_argument("--nodes", type=int, default=1_000_000, help="pipeline: of the graph")
    parser.add_argument("--edges", type=int, default=5_000_000, help="pipeline: of the graph")
    parser.add_argument("--rate", type=int, default=50_000, help="pipeline: events per second to sustain")
    parser.add_argument("--seconds", type=int, default=60, help="pipeline: of sustained load")
    parser.add_argument("--steady", type=int, default=5_000, help="pipeline: events per second for latency")
    parser.add_argument("--steady-seconds", type=int, default=30, help="pipeline: of load for latency")
    parser.add_argument("--minutes", type=float, default=0.0, help="soak: of everything at once")
    parser.add_argument("--kills", type=int, default=0, help="soak: SIGKILLs under load, at the end")
    parser.add_argument("--seed", type=int, help="soak: of events, moments and delays")
    parser.add_argument("--data", type=Path, default=Path(), help="tpu: the folder of cora_ml.npz")
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
    found = {"benchmark": given.name, "quick": given.quick, "machine": machine(), **found}
    print(json.dumps(found, indent=None if given.json else 2))
    return 0 if found["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
