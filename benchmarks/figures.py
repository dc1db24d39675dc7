"""What a benchmark says: figures with their spread, goals, and the machine they were seen on."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

LIBRARIES = ("numpy", "numba", "scipy")


def goal(figure: float, goal: float, *, at_least: bool) -> dict[str, Any]:
    """A figure, what it should be, and whether it is."""
    return {
        "figure": float(figure),
        "goal": goal,
        "at_least": at_least,
        "holds": bool(figure >= goal if at_least else figure <= goal),
    }


def at_least(figure: float, wanted: float) -> dict[str, Any]:
    """More is better."""
    return goal(figure, wanted, at_least=True)


def at_most(figure: float, wanted: float) -> dict[str, Any]:
    """Less is better."""
    return goal(figure, wanted, at_least=False)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, least and largest of what was seen, in four digits."""
    low, middle, high = (float(f"{v:.4g}") for v in np.percentile(values, [0, 50, 100]))
    return {"median": middle, "min": low, "max": high, "samples": len(values)}


def tails(values: Sequence[float]) -> dict[str, float]:
    """Median and the slowest."""
    if not values:
        return {"samples": 0}
    p50, p99, p999, top = (round(float(value), 2) for value in np.percentile(values, [50, 99, 99.9, 100]))
    return {"samples": len(values), "p50": p50, "p99": p99, "p99.9": p999, "max": top}


def with_goals(figures: dict[str, Any], goals: dict[str, Any]) -> dict[str, Any]:
    """The object that a benchmark prints."""
    return {**figures, "goals": goals, "holds": all(one["holds"] for one in goals.values())}


def machine() -> dict[str, Any]:
    """What the figures depend on, beside the code."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "caches": _caches(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def resident() -> float:
    """Megabytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def tell(text: str) -> None:
    """How far it is, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def _cpu() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _caches() -> list[str]:
    """Of the first core, as the kernel names them: L1 Data 32K, …"""
    found = []
    for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((cache / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return found
