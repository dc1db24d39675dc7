"""What slow vectors met on their way: notes of the worker that overlap it, beside those of all vectors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

SLOWEST = 0.02  # of all vectors
NOTHING = "none of these"
Spans = list[tuple[float, float]]


class Probe(NamedTuple):
    """One vector's way."""

    due: float  # moment of the monotonic clock
    seconds: float  # until it arrived


def met_on_the_way(notes: Path, probes: Sequence[Probe]) -> dict[str, dict[str, float]]:
    """By what the worker noted: the part of the slowest vectors, and of all, that were under way at the time."""
    if not probes:
        return {}
    slowest = sorted(probes, key=lambda probe: probe.seconds)[-max(1, round(SLOWEST * len(probes))) :]
    spans = _spans(notes)
    return {
        name: {
            **{what: _part(group, when) for what, when in sorted(spans.items())},
            NOTHING: round(1 - _part(group, list(chain.from_iterable(spans.values()))), 3),
        }
        for name, group in (("slowest", slowest), ("all", list(probes)))
    }


def _spans(notes: Path) -> dict[str, Spans]:
    found: dict[str, Spans] = defaultdict(list)
    begun: dict[str, float] = {}
    for line in notes.read_text().splitlines():
        moment, which, what = line.split(" ", 2)
        if which == "before":
            begun[what] = float(moment)
        elif what in begun:
            found[what].append((begun.pop(what), float(moment)))
    return found


def _meets(probe: Probe, spans: Spans) -> bool:
    return any(begin < probe.due + probe.seconds and end > probe.due for begin, end in spans)


def _part(probes: Sequence[Probe], spans: Spans) -> float:
    return round(sum(_meets(probe, spans) for probe in probes) / len(probes), 3)
