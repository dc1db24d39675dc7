"""Single events of the year that are worth telling: which they are, and what each did to the embeddings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .flight_data import HUBS, Year
from .flight_words import ARRIVAL, EXPOSURE, moment
from .flights import feature_changes, first_hours

DAYS = 365
Key = tuple[int, str, str]
Change = tuple[int, int, NDArray[np.float32]]  # hour, airport, features
Before = Mapping[str, NDArray[np.float32] | None]
Table = Mapping[str, NDArray[np.float32]]


class Landing(NamedTuple):
    """An aircraft's first landing at an airport that its flights reach late."""

    minute: int
    flight: int  # index into the year
    tail: str
    dest: str
    late: float  # minutes, as the events say it of the airport
    flown: int  # landings of the aircraft before

    @property
    def weight(self) -> float:
        """How much it may change what the aircraft has been exposed to."""
        return self.late / (1 + self.flown)

    @property
    def key(self) -> Key:
        """The minute and the ids of its event."""
        return self.minute, self.tail, self.dest


class Storm(NamedTuple):
    """The flights of an airport begin to arrive late."""

    minute: int
    airport: str
    earlier: float  # minutes late, as the event before said
    late: float

    @property
    def key(self) -> Key:
        """The minute and the id of its event."""
        return self.minute, self.airport, ""


Story = Landing | Storm


def stories(
    year: Year, features: NDArray[np.float64], scale: NDArray[np.float64], begin: int, end: int, count: int
) -> list[Story]:
    """In each of `count` equal parts of these minutes: the landing that changes its aircraft most, the largest storm."""
    told: list[Story] = []
    changes = list(feature_changes(features, scale, first_hours(year)))
    landings, storms = list(_landings(year, len(features), changes)), list(_storms(year, changes))
    for low, high in pairwise(np.linspace(begin, end, count + 1).tolist()):
        here = [landing for landing in landings if low <= landing.minute < high]
        there = [storm for storm in storms if low <= storm.minute < high]
        told += [max(here, key=lambda landing: landing.weight)] if here else []
        told += [max(there, key=lambda storm: storm.late - storm.earlier)] if there else []
    return told


def _landings(year: Year, hours: int, changes: Iterable[Change]) -> Iterator[Landing]:
    """Every first landing of an aircraft at an airport."""
    said = np.zeros((hours, len(year.airports)))  # what the events say at the end of the hour
    for hour, airport, vector in changes:
        said[hour:, airport] = vector[ARRIVAL]
    flown: Counter[str] = Counter()
    visited: set[tuple[str, str]] = set()
    landed = np.flatnonzero(year.landed & (year.tail >= 0))
    for flight in landed[np.argsort(year.arrived[landed], kind="stable")].tolist():
        minute, dest = int(year.arrived[flight]), int(year.dest[flight])
        tail, code = year.planes[year.tail[flight]].tail, year.airports[dest].code
        if (tail, code) not in visited and minute >= 60:
            visited.add((tail, code))
            yield Landing(minute, flight, tail, code, float(said[minute // 60 - 1, dest]), flown[tail])
        flown[tail] += 1


def _storms(year: Year, changes: Iterable[Change]) -> Iterator[Storm]:
    """Every change for the worse at airports that have a flight from New York a day, but not at New York's own.

    Those move everything: all flights begin there.
    """
    codes, known = [airport.code for airport in year.airports], dict[str, float]()
    busy = np.bincount(year.dest[year.landed], minlength=len(codes)) >= DAYS
    for hour, airport, vector in changes:
        code, late = codes[airport], float(vector[ARRIVAL])
        if busy[airport] and code not in HUBS and late > known.get(code, late):
            yield Storm(60 * (hour + 1), code, known[code], late)
        known[code] = late


def ripple(story: Story, year: Year, before: Before, now: Table, milliseconds: float) -> str:
    """What one event did: whose vectors moved, by how much, and who was left alone."""
    rest, known = f"{len(now) - len(before):,} stayed as they were", f"known {milliseconds:.0f} ms later."
    if isinstance(story, Storm):
        airports = len({airport.code for airport in year.airports} & before.keys())
        return (
            f"{moment(story.minute)}: flights of {story.airport} arrive {story.late:.0f} min late, it was "
            f"{story.earlier:.0f} before. The vectors of {len(before) - airports:,} aircraft and "
            f"{_counted(airports, 'airport')} moved, {rest}; {known}"
        )
    others = len([node for node in before if node != story.tail])
    touched = _counted(others, "other vector") if others else "no other vector"
    return (
        f"{moment(story.minute)}: {year.planes[year.tail[story.flight]].described}, lands in {story.dest} for the "
        f"first time, where flights arrive {story.late:.0f} min late. {_exposure(story, before, now)}; {touched} "
        f"moved, {rest}; {known}"
    )


def _exposure(story: Landing, before: Before, now: Table) -> str:
    old, new = before.get(story.tail), now[story.tail]
    minutes = float(new[ARRIVAL]) / EXPOSURE
    if story.tail not in before:
        return f"Its exposure to arrival delay stays at {minutes:.1f} min"
    if old is None:
        return f"It is new: an exposure to arrival delay of {minutes:.1f} min"
    return (
        f"Its exposure to arrival delay went from {float(old[ARRIVAL]) / EXPOSURE:.1f} to {minutes:.1f} min"
    )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
