"""What is told must be what is so."""

from __future__ import annotations

import numpy as np
import pytest

from dgdm.examples.certificate import RebuiltGraph, rebuilt
from dgdm.examples.flight_data import Plane, Year, load_year
from dgdm.examples.flight_words import (
    ARRIVAL,
    EXPOSURE,
    closest,
    conclusions,
    flights_of,
    moment,
)
from dgdm.examples.flights import ALPHA
from dgdm.schemas.events import AddEdge, SetFeatures, encode_event


@pytest.fixture(scope="module")
def year() -> Year:
    return load_year()


def graph_of(trips: dict[str, dict[str, float]], delays: dict[str, float]) -> RebuiltGraph:
    events = [SetFeatures(code, np.eye(8)[ARRIVAL] * delay) for code, delay in delays.items()]
    events += [AddEdge(t, code, w, op="add") for t, ports in trips.items() for code, w in ports.items()]
    return rebuilt(8, [encode_event(event) for event in events])


def test_exposure_is_a_weighted_mean_of_the_airports() -> None:
    """When every airport has the same delay, every aircraft's exposure is that delay."""
    trips = {"N14228": {"JFK": 3.0, "LAX": 2.0}, "N725MQ": {"LGA": 5.0, "LAX": 1.0}}
    exact = graph_of(trips, {"JFK": 7.0, "LGA": 7.0, "LAX": 7.0}).exact(ALPHA)
    for tail in trips:
        assert exact[tail][ARRIVAL] / EXPOSURE == pytest.approx(7.0)


def test_the_most_exposed_is_the_one_that_flies_to_the_late_airport(year: Year) -> None:
    trips = {
        "N14228": {"JFK": 30.0, "LAX": 30.0},
        "N725MQ": {"LGA": 30.0, "BOS": 30.0},
        "N711MQ": {"LGA": 30.0, "BOS": 29.0},
        "N15710": {"JFK": 2.0},
    }
    graph = graph_of(trips, {"JFK": 40.0, "LGA": 1.0, "LAX": 30.0, "BOS": 2.0})
    assert flights_of(graph)["N14228"] == 30
    table = {node: vector.astype(np.float32) for node, vector in graph.exact(ALPHA).items()}
    lines = conclusions(year, graph, table, np.ones(8), days=30)
    assert lines[0] == "Of 3 aircraft with 8 or more departures"
    assert "N725MQ" in lines[1]
    assert "N711MQ" in lines[1]
    assert lines[2].startswith("most exposed to delay: N14228")
    assert conclusions(year, graph, table, np.ones(8), days=365) == [
        "Too few aircraft flew often enough to compare them."
    ]


def test_closest_pair_is_the_one_a_loop_finds() -> None:
    vectors = np.random.default_rng(5).normal(size=(300, 3))
    distances = [(float(((vectors[i] - vectors[j]) ** 2).sum()), i, j) for i in range(300) for j in range(i)]
    _, i, j = min(distances)
    assert closest(vectors, block=64) == (j, i)


def test_moments_are_in_new_york() -> None:
    assert moment(615) == "01 Jan 05:15"
    assert moment(181 * 1440) == "30 Jun 20:00"  # summer time


@pytest.mark.parametrize(
    ("plane", "text"),
    [
        (Plane("N1", "AIRBUS", "A320", "2001"), "N1, an AIRBUS A320 of 2001"),
        (Plane("N1", "BOEING", "737", ""), "N1, a BOEING 737"),
        (Plane("N1", "", "", ""), "N1"),
    ],
)
def test_planes_are_described(plane: Plane, text: str) -> None:
    assert plane.described == text
