"""The events that are told are what they are said to be, and what moved is what moved."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from dgdm.examples.flight_data import HUBS, Year, load_year
from dgdm.examples.flight_stories import Landing, Storm, ripple, stories
from dgdm.examples.flight_words import ARRIVAL, EXPOSURE
from dgdm.examples.flights import hourly_features, spread, stream
from dgdm.schemas.events import AddEdge, SetFeatures

DAYS, PARTS = 20, 2


@pytest.fixture(scope="module")
def year() -> Year:
    return load_year()


@pytest.fixture(scope="module")
def features(year: Year) -> np.ndarray:
    return hourly_features(year)


def test_stories_are_what_the_stream_says(year: Year, features: np.ndarray) -> None:
    """By reading the stream from its beginning: the first visits, what was said of each airport, and its changes."""
    end = DAYS * 1440
    told = stories(year, features, spread(features), 0, end, PARTS)
    said: dict[str, float] = {}
    visited: set[tuple[str, str]] = set()
    flown: Counter[str] = Counter()
    landings: list[tuple[int, str, str, float, int]] = []
    busy = {code for code, flights in Counter(year.dest[year.landed].tolist()).items() if flights >= 365}
    busy = {year.airports[code].code for code in busy} - set(HUBS)
    storms: list[tuple[int, str, float, float]] = []
    departures = {(int(m), year.planes[t].tail, year.airports[o].code)
                  for m, t, o in zip(year.left, year.tail, year.origin, strict=True)}  # fmt: skip
    for minute, event in stream(year, features, DAYS + 1):
        if isinstance(event, SetFeatures):
            late = float(event.features[ARRIVAL])
            if event.id in busy and late > said.get(event.id, late):
                storms.append((minute, event.id, said[event.id], late))
            said[event.id] = late
        elif isinstance(event, AddEdge):
            tail, code = event.source, event.target
            if (minute, tail, code) in departures:
                continue
            if (tail, code) not in visited:
                visited.add((tail, code))
                landings.append((minute, tail, code, said.get(code, 0.0), flown[tail]))
            flown[tail] += 1
    for part in range(PARTS):
        low, high = part * end // PARTS, (part + 1) * end // PARTS
        most = max(late / (1 + earlier) for minute, *_, late, earlier in landings if low <= minute < high)
        rise = max(late - earlier for minute, _, earlier, late in storms if low <= minute < high)
        landing, storm = (story for story in told if low <= story.minute < high)
        assert isinstance(landing, Landing)
        assert isinstance(storm, Storm)
        assert (landing.minute, landing.tail, landing.dest, landing.late, landing.flown) in landings
        assert (storm.minute, storm.airport, storm.earlier, storm.late) in storms
        assert landing.weight == most
        assert storm.late - storm.earlier == rise


def test_a_ripple_tells_who_moved(year: Year, features: np.ndarray) -> None:
    landing, storm = stories(year, features, spread(features), 0, DAYS * 1440, 1)
    assert isinstance(landing, Landing)
    old, new = np.zeros(8, np.float32), np.full(8, EXPOSURE, np.float32)
    now = {landing.tail: new, "JFK": new, "LAX": new}
    text = ripple(landing, year, {landing.tail: old, "JFK": old}, now, 12.4)
    assert "went from 0.0 to 1.0 min; 1 other vector moved, 1 stayed as they were; known 12 ms later." in text
    assert f"lands in {landing.dest} for the first time" in text
    assert "It is new" in ripple(landing, year, {landing.tail: None}, now, 1)
    assert "stays at 1.0 min; no other vector" in ripple(landing, year, {}, now, 1)
    text = ripple(storm, year, {landing.tail: old, "JFK": old}, now, 12.4)
    assert "The vectors of 1 aircraft and 1 airport moved, 1 stayed as they were; known 12 ms later." in text
