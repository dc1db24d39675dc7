"""A quick run of each benchmark says what it promises to say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dgdm.benchmarks.registry import NAMES

ROOT = Path(__file__).parents[2]
SERVED = {"pipeline", "soak", "tpu"}  # these need servers or an extra, and minutes


@pytest.mark.parametrize("name", sorted(NAMES.keys() - SERVED))
def test_a_quick_run_says_what_is_promised(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--quick", "--json"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ,
    )
    assert done.returncode in {0, 1}, done.stderr
    found = json.loads(done.stdout)
    assert found["benchmark"] == name
    assert found["quick"]
    assert {"cpu", "cores", "caches", "memory_gb", "python", "numpy", "numba"} <= found["machine"].keys()
    for goal in found["goals"].values():
        wanted, figure = goal["goal"], goal["figure"]
        assert goal["holds"] == (figure >= wanted if goal["at_least"] else figure <= wanted)
    assert found["holds"] == all(goal["holds"] for goal in found["goals"].values())
    assert done.returncode == (not found["holds"])
    assert any("median" in spread for spread in spreads(found)), "no spread"


def spreads(value: object) -> list[dict[str, object]]:
    if not isinstance(value, dict):
        return []
    return [value, *(found for one in value.values() for found in spreads(one))]
