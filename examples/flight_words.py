"""What the numbers mean, in words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from .flight_data import HUBS, Year
from .flights import ALPHA, FEATURES, UNITS

if TYPE_CHECKING:
    from .certificate import RebuiltGraph

# Aircraft have no features and fly to airports only, so the airports' shares in an aircraft's vector sum up to this:
# divided by it, the vector is a weighted mean over airports, in the feature's unit.
EXPOSURE = (1 - ALPHA) / (2 - ALPHA)

ARRIVAL = FEATURES.index("arrival delay")
Table = Mapping[str, NDArray[np.float32]]


def moment(minute: int) -> str:
    """A minute of the year, in New York's time."""
    utc = datetime(2013, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    return utc.astimezone(ZoneInfo("America/New_York")).strftime("%d %b %H:%M")


def flights_of(graph: RebuiltGraph) -> dict[str, float]:
    """Aircraft → departures from the three hubs."""
    aircraft: dict[str, float] = {}
    for hub in HUBS:
        for node, weight in graph.weights.get(hub, {}).items():
            aircraft[node] = aircraft.get(node, 0.0) + weight
    return aircraft


def conclusions(
    year: Year, graph: RebuiltGraph, table: Table, scale: NDArray[np.float64], days: float
) -> list[str]:
    """The aircraft most alike and the most exposed to delay, among those that flew often."""
    least = max(3.0, 100 * days / 365)
    flown = flights_of(graph)
    regular = sorted(tail for tail, count in flown.items() if count >= least and tail in table)
    if len(regular) < 2:
        return ["Too few aircraft flew often enough to compare them."]
    planes = {plane.tail: plane for plane in year.planes}
    vectors = np.array([table[tail] for tail in regular], np.float64) / EXPOSURE
    lines = [f"Of {len(regular)} aircraft with {least:.0f} or more departures"]
    i, j = closest(vectors / scale)
    gap = float(np.abs((vectors[i] - vectors[j]) / scale).max())
    lines.append(
        f"most alike: {planes[regular[i]].described}, and {planes[regular[j]].described}: exposed alike within "
        f"{max(100 * gap, 0.001):.2g} % of a standard deviation; they fly to {_places(graph, regular[i])}, and to "
        f"{_places(graph, regular[j])}"
    )
    order = np.argsort(vectors[:, ARRIVAL])
    for label, at in (("most exposed to delay", order[-1]), ("least", order[0])):
        tail = regular[int(at)]
        amounts = ", ".join(f"{FEATURES[f]} {vectors[at, f]:.1f} {UNITS[f]}" for f in (ARRIVAL, 0, 2))
        lines.append(f"{label}: {planes[tail].described} ({amounts}), flying to {_places(graph, tail)}")
    return lines


def closest(vectors: NDArray[np.float64], block: int = 256) -> tuple[int, int]:
    """The two rows [n, F] with the smallest Euclidean distance."""
    squares = (vectors**2).sum(axis=1)
    best = (np.inf, 0, 1)
    for start in range(0, len(vectors), block):
        part = vectors[start : start + block]
        distance = squares[start : start + len(part), None] + squares - 2 * part @ vectors.T
        distance[np.arange(len(part)), start + np.arange(len(part))] = np.inf
        at = int(distance.argmin())
        i, j = divmod(at, len(vectors))
        if distance[i, j] < best[0]:
            best = (float(distance[i, j]), start + i, j)
    return min(best[1:]), max(best[1:])


def _places(graph: RebuiltGraph, tail: str) -> str:
    """The airports an aircraft has most to do with."""
    weights = sorted(graph.weights[tail].items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{code} {weight:.0f}" for code, weight in weights[:4])
