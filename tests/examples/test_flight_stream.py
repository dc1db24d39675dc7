"""The year as a stream: ordered, repeatable, from the past only, and quiet when nothing really changed."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from dgdm.examples import flights
from dgdm.examples.flight_data import EPOCH_MS, HUBS, Year, load_year
from dgdm.schemas.events import AddEdge, AddNode, SetFeatures, encode_event

Doubles = NDArray[np.float64]
Events = list[flights.Timed]


@pytest.fixture(scope="module")
def year() -> Year:
    return load_year()


@pytest.fixture(scope="module")
def features(year: Year) -> Doubles:
    return flights.hourly_features(year)


@pytest.fixture(scope="module")
def events(year: Year, features: Doubles) -> Events:
    return list(flights.stream(year, features))


def test_every_flight_strengthens_both_its_edges(year: Year, events: Events) -> None:
    codes, tails = [a.code for a in year.airports], [p.tail for p in year.planes]
    expected: Counter[tuple[str, str]] = Counter()
    for i in np.flatnonzero(~year.cancelled).tolist():
        expected[tails[year.tail[i]], codes[year.origin[i]]] += 1
    for i in np.flatnonzero(year.landed).tolist():
        expected[tails[year.tail[i]], codes[year.dest[i]]] += 1
    edges = [e.event for e in events if isinstance(e.event, AddEdge)]
    assert Counter((e.source, e.target) for e in edges) == expected
    assert {(e.op, e.weight) for e in edges} == {("add", 1.0)}


def test_each_aircraft_appears_once_before_its_first_edge(year: Year, events: Events) -> None:
    seen: set[str] = set()
    for _, event in events:
        if isinstance(event, AddNode):
            assert event.id not in seen
            seen.add(event.id)
        elif isinstance(event, AddEdge):
            assert event.source in seen
    assert len(seen) == len({year.planes[t].tail for t in year.tail[~year.cancelled].tolist()})


def test_time_never_runs_back_and_every_event_has_its_time(events: Events) -> None:
    minutes = [timed.minute for timed in events]
    assert minutes == sorted(minutes)
    assert all(e.event.ts == EPOCH_MS + 60_000 * e.minute for e in events)


def test_the_same_data_give_the_same_bytes(year: Year, features: Doubles) -> None:
    def digest() -> str:
        values = (encode_event(e.event) for e in flights.stream(year, features, days=20))
        return hashlib.sha256(b"".join(values)).hexdigest()

    assert digest() == digest()


def test_fewer_days_are_a_prefix(year: Year, features: Doubles, events: Events) -> None:
    some = [(m, encode_event(e)) for m, e in flights.stream(year, features, days=20)]
    assert some == [(m, encode_event(e)) for m, e in events[: len(some)]]
    assert some[-1][0] < flights.first_minutes(20) <= events[len(some)].minute


def test_features_are_sent_when_they_really_changed_and_only_then(
    year: Year, features: Doubles, events: Events
) -> None:
    """A naive twin: what consumers know of an airport is never further off than the rule allows, at any hour."""
    scale = flights.spread(features)
    codes = [a.code for a in year.airports]
    sent = [(e.minute // 60 - 1, e.event) for e in events if isinstance(e.event, SetFeatures)]
    assert 20_000 < len(sent) < 50_000
    first: dict[str, int] = {}
    for minute, event in events:
        if isinstance(event, AddEdge):
            first.setdefault(event.target, minute // 60)
    for code in ("JFK", "ORD", "ANC"):
        row, known = codes.index(code), np.zeros(8)
        by_hour = {hour: event.features for hour, event in sent if event.id == code}
        for hour in range(max(by_hour) + 1):
            now = features[hour, row]
            far = bool((np.abs(now - known) > flights.MOVED * scale).any()) and hour >= first[code]
            assert far == (hour in by_hour), (code, hour)
            if far:
                known = by_hour[hour].astype(np.float64)
                assert known == pytest.approx(now, rel=1e-6, abs=1e-6)


def test_features_know_the_past_only(year: Year, features: Doubles) -> None:
    """Whatever the last quarter had been, the features before it are the same."""
    at = 270 * 24
    late = year.left >= at * 60
    other = flights.hourly_features(
        replace(
            year,
            departure_delay=np.where(late & ~year.cancelled, year.departure_delay + 60, year.departure_delay),
            wind=np.where(np.arange(len(year.wind))[:, None] >= at, 99.0, year.wind),
        )
    )
    assert (other[:at] == features[:at]).all()
    jfk = [a.code for a in year.airports].index("JFK")
    changed = (other[at : at + 24, jfk] != features[at : at + 24, jfk]).any(axis=0)
    assert changed[[0, 1, 2, 5]].all()
    assert not changed[[6, 7]].any()


def test_hourly_features_are_what_they_say(year: Year, features: Doubles) -> None:
    """One airport, one hour, by a loop over all flights."""
    hub, hour, gain = [a.code for a in year.airports].index("JFK"), 24 * 40, 1 - 0.5 ** (1 / 48)
    sums = np.zeros(5)
    for i in range(len(year)):
        if hub not in (year.origin[i], year.dest[i]):
            continue
        fade = 0.5 ** ((hour - year.left[i] // 60) / 48)
        if year.left[i] // 60 <= hour:
            if year.cancelled[i]:
                sums[4] += fade
            else:
                delay = max(0, year.departure_delay[i])
                sums[:3] += fade * np.array([1, delay, delay > 15])
        if year.landed[i] and year.arrived[i] // 60 <= hour:
            sums[3] += 0.5 ** ((hour - year.arrived[i] // 60) / 48) * max(0, year.arrival_delay[i])
    found = features[hour, hub]
    assert found[0] == pytest.approx(sums[1] / (sums[0] + 3))
    assert found[1] == pytest.approx(sums[3] / (sums[0] + 3))
    assert found[2] == pytest.approx(100 * sums[2] / (sums[0] + 3))
    assert found[3] == pytest.approx(100 * sums[4] / (sums[0] + sums[4] + 3))
    wind, smoothed = 0.0, 0.0
    keep = 0.5 ** (1 / 24)
    for value in year.wind[: hour + 1, HUBS.index("JFK")]:
        wind = wind if np.isnan(value) else value
        smoothed = keep * smoothed + (1 - keep) * wind
    assert found[5] == pytest.approx(smoothed)
    inside = ~year.cancelled & ((year.origin == hub) | (year.dest == hub))
    per_hour = np.bincount(year.left[inside] // 60, minlength=hour + 1)
    traffic = 0.0
    for h in range(hour + 1):
        traffic = (1 - gain) * traffic + gain * per_hour[max(0, h - 23) : h + 1].sum()
    assert found[4] == pytest.approx(traffic)


def test_accuracy_is_at_most_two_percent_of_the_standard_deviation(features: Doubles) -> None:
    scale = flights.spread(features)
    asked = np.array(flights.accuracies(scale))
    assert (asked <= 0.02 * scale).all()
    assert (asked > 0.0198 * scale).all()
    # The claim must not lean on differences between airports: pooled over everything the spread is larger.
    assert (scale[:4] <= features[..., :4].std(axis=(0, 1))).all()
    # What float32 can keep.
    assert (np.abs(features).max(axis=(0, 1)) < asked / 2.5e-5).all()
