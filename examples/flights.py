"""A year of flights as a stream of graph events, in the order in which things happened.

Aircraft and airports are nodes. A flight strengthens the edge between its aircraft and the airport it leaves when
it leaves, and the edge to the airport it reaches when it lands; a cancelled flight strengthens nothing, it only
counts in the airport's features. Aircraft have no features of their own: an aircraft's embedding is what it has
been exposed to at the airports it flew to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..schemas.events import AddEdge, AddNode, GraphEvent, SetFeatures
from .flight_data import EPOCH_MS, HUBS, Ints, Year

ALPHA = 0.15

FEATURES = (
    "departure delay",
    "arrival delay",
    "late",
    "cancelled",
    "traffic",
    "wind",
    "poor sight",
    "rain",
)
UNITS = ("min", "min", "%", "%", "flights/day", "kn", "mi", "0.01 in/h")
LATE = 15  # minutes from which a departure is late
SIGHT = 10.0  # miles: the most the source reports; what lacks of it is poor sight

HALF_LIFE = 48.0  # hours after which a flight counts half in the airport's recent delays
WEATHER_HALF_LIFE = 24.0
DOUBT = 3.0  # flights on time that every airport is credited with, so that one late flight is no trend
MOVED = 0.75  # standard deviations a feature must move before the airport is sent again
ACCURACY = 0.02  # of a feature's standard deviation


class Timed(NamedTuple):
    """One event and the minute it happened in, since 2013-01-01 00:00 UTC."""

    minute: int
    event: GraphEvent


def hourly_features(year: Year) -> NDArray[np.float64]:
    """[hours, airports, 8]: what each airport is like at the end of each hour, from the past only.

    Flights count at both their airports: departures and their delay at the moment of departure, the arrival delay
    at the landing, a cancellation at the scheduled departure.
    """
    hours, count = int(year.arrived[year.landed].max()) // 60 + 1, len(year.airports)
    sums = np.zeros((5, hours, count))
    flown, landed, gone = ~year.cancelled, year.landed, year.cancelled
    delay = np.maximum(year.departure_delay, 0)
    for end in (year.origin, year.dest):
        left = (year.left[flown] // 60, end[flown])
        arrived = (year.arrived[landed] // 60, end[landed])
        np.add.at(sums[0], left, 1.0)
        np.add.at(sums[1], left, delay[flown])
        np.add.at(sums[2], left, (year.departure_delay[flown] > LATE).astype(float))
        np.add.at(sums[3], arrived, np.maximum(year.arrival_delay[landed], 0))
        np.add.at(sums[4], (year.left[gone] // 60, end[gone]), 1.0)
    departures, delays, late, arrivals, cancelled = (_decayed(s, HALF_LIFE) for s in sums)
    features = np.zeros((hours, count, len(FEATURES)))
    features[..., 0] = delays / (departures + DOUBT)
    features[..., 1] = arrivals / (departures + DOUBT)
    features[..., 2] = 100 * late / (departures + DOUBT)
    features[..., 3] = 100 * cancelled / (departures + cancelled + DOUBT)
    places = [[airport.code for airport in year.airports].index(hub) for hub in HUBS]
    # Elsewhere the data know the flights from New York only, which is not the airport's traffic.
    features[:, places, 4] = _smoothed(_last_day(sums[0][:, places]), HALF_LIFE)
    for column, measured in (
        (5, year.wind),
        (6, SIGHT - year.visibility),
        (7, 100 * year.precipitation),
    ):
        features[:, places, column] = _smoothed(_carried(measured, hours), WEATHER_HALF_LIFE)
    return features


def spread(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """[8]: standard deviation over the year of each feature at one airport, pooled over those that have it.

    Deviations are from the airport's own mean: differences between airports would make it, and with it what
    `accuracy` may be, larger.
    """
    variances = features.var(axis=0)  # [airports, 8]
    present = variances > 0
    pooled: NDArray[np.float64] = np.sqrt(variances.sum(axis=0) / present.sum(axis=0))
    return pooled


def accuracies(scale: NDArray[np.float64]) -> list[float]:
    """What the worker is asked for per column: 2 % of the spread, rounded down to three digits."""
    wanted = ACCURACY * scale
    unit = 10.0 ** (np.floor(np.log10(wanted)) - 2)
    return [float(f"{value:.3g}") for value in np.floor(wanted / unit) * unit]


def feature_changes(
    features: NDArray[np.float64], scale: NDArray[np.float64], known_from: Ints
) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """(hour, airport, vector) whenever a column moved by more than MOVED standard deviations since it was sent.

    `known_from` [airports] is the hour of each airport's first flight: before it nothing is sent.
    """
    sent = np.zeros(features.shape[1:])
    for hour, now in enumerate(features):
        moved = (np.abs(now - sent) > MOVED * scale).any(axis=1) & (known_from <= hour)
        for airport in np.flatnonzero(moved).tolist():
            vector = now[airport].astype(np.float32)
            sent[airport] = vector
            yield hour, airport, vector


def stream(year: Year, features: NDArray[np.float64], days: int | None = None) -> Iterator[Timed]:
    """All events of the first `days` days (None: the year), ordered by minute.

    The features of an hour that ends come before what happens next; in a minute departures come before landings.
    """
    flown = np.flatnonzero(~year.cancelled)
    landed = np.flatnonzero(year.landed)
    minutes = np.concatenate((year.left[flown], year.arrived[landed]))
    flights = np.concatenate((flown, landed))
    ends = np.concatenate((year.origin[flown], year.dest[landed]))
    order = np.lexsort((flights, np.repeat((0, 1), (len(flown), len(landed))), minutes))
    changes = feature_changes(features, spread(features), first_hours(year))
    following = next(changes, None)
    last = np.inf if days is None else first_minutes(days)
    codes = [airport.code for airport in year.airports]
    tails = [plane.tail for plane in year.planes]
    seen: set[str] = set()
    triples = zip(
        minutes[order].tolist(), year.tail[flights[order]].tolist(), ends[order].tolist(), strict=True
    )
    for minute, tail, end in triples:
        while following is not None and (following[0] + 1) * 60 <= min(minute, last - 1):
            yield _features_event(following, codes)
            following = next(changes, None)
        if minute >= last:
            return
        stamp = EPOCH_MS + 60_000 * minute
        if tails[tail] not in seen:
            seen.add(tails[tail])
            yield Timed(minute, AddNode(tails[tail], ts=stamp))
        yield Timed(minute, AddEdge(tails[tail], codes[end], op="add", ts=stamp))


def first_hours(year: Year) -> Ints:
    """[airports]: the hour in which an aircraft first leaves or reaches each."""
    first = np.full(len(year.airports), np.iinfo(np.int64).max)
    flown, landed = ~year.cancelled, year.landed
    np.minimum.at(first, year.origin[flown], year.left[flown] // 60)
    np.minimum.at(first, year.dest[landed], year.arrived[landed] // 60)
    return first


def first_minutes(days: int) -> int:
    """Where so many days end, in New York's winter time."""
    return 5 * 60 + 24 * 60 * days


def _features_event(change: tuple[int, int, NDArray[np.float32]], codes: list[str]) -> Timed:
    hour, airport, vector = change
    minute = 60 * (hour + 1)
    return Timed(minute, SetFeatures(codes[airport], vector, EPOCH_MS + 60_000 * minute))


def _decayed(amounts: NDArray[np.float64], half_life: float) -> NDArray[np.float64]:
    """Running sums along axis 0 in which what is `half_life` hours old counts half."""
    keep = 0.5 ** (1 / half_life)
    sums = np.empty_like(amounts)
    total = np.zeros(amounts.shape[1:])
    for hour, amount in enumerate(amounts):
        total = keep * total + amount
        sums[hour] = total
    return sums


def _smoothed(values: NDArray[np.float64], half_life: float) -> NDArray[np.float64]:
    smoothed: NDArray[np.float64] = (1 - 0.5 ** (1 / half_life)) * _decayed(values, half_life)
    return smoothed


def _last_day(amounts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over the last 24 hours: a day has no night in them."""
    total = np.cumsum(amounts, axis=0)
    total[24:] -= total[:-24].copy()
    return total


def _carried(measured: NDArray[np.float64], hours: int) -> NDArray[np.float64]:
    """[hours, 3]: missing hours repeat the last measurement, 0 before the first."""
    index = np.minimum(np.arange(hours), len(measured) - 1)
    values = measured[index]
    at = np.where(np.isnan(values), 0, np.arange(hours)[:, None])
    at = np.maximum.accumulate(at, axis=0)
    carried: NDArray[np.float64] = np.nan_to_num(np.take_along_axis(values, at, axis=0))
    return carried
