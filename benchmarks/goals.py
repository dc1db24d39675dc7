"""Figures and goals, as every benchmark prints them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and tail."""
    if not values:
        return {"samples": 0}
    p50, p99, p999, top = (round(float(value), 2) for value in np.percentile(values, [50, 99, 99.9, 100]))
    return {"samples": len(values), "p50": p50, "p99": p99, "p99.9": p999, "max": top}


def goal(figure: float, wanted: float, *, at_least: bool = False) -> dict[str, Any]:
    """A figure that is to be at most (at least) what is wanted."""
    return {
        "figure": float(figure),
        "goal": wanted,
        "holds": bool(figure >= wanted if at_least else figure <= wanted),
    }
