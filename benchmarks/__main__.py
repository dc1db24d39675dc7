"""`python -m benchmarks NAME [--json]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from . import pipeline

NAMES = {"pipeline": pipeline.measure}


def main() -> int:
    """Run one benchmark; exit code 1 when a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=sorted(NAMES), help="which one")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--edges", type=int, default=500_000)
    parser.add_argument("--seconds", type=int, default=60, help="of sustained load")
    given = parser.parse_args()
    found = asyncio.run(NAMES[given.name](given.nodes, given.edges, given.seconds))
    print(json.dumps(found, indent=None if given.json else 2))
    return 0 if found["holds"] else 1


sys.exit(main())
