"""The data file is the year it says it is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from dgdm.examples.flight_data import DATA, EPOCH_MS, HUBS, MISSING, Year, _joined, load_year
from dgdm.examples.make_flights import duration, planes_of_bytes


@pytest.fixture(scope="module")
def year() -> Year:
    return load_year()


def test_counts_are_those_of_the_source(year: Year) -> None:
    codes = np.array([airport.code for airport in year.airports])
    assert len(year) == 336_776
    assert dict(zip(*np.unique(codes[year.origin], return_counts=True), strict=True)) == {
        "EWR": 120_835,
        "JFK": 111_279,
        "LGA": 104_662,
    }
    assert len(np.unique(year.dest)) == 105
    assert year.cancelled.sum() == 8_255
    assert year.landed.sum() == 336_776 - 9_430
    assert (year.tail < 0).sum() == 2_512
    assert len(year.planes) == 4_043
    assert len({plane.tail for plane in year.planes}) == 4_043


def test_the_first_flight_is_the_one_everybody_knows(year: Year) -> None:
    """UA 1545: N14228 from EWR at 05:15 (2 late) to IAH, arrived 08:30 in Houston's time (11 late)."""
    names = [airport.code for airport in year.airports]
    houston = datetime(2013, 1, 1, 8, 30, tzinfo=ZoneInfo("America/Chicago"))
    first = 0
    assert year.scheduled[first] == 10 * 60 + 15  # UTC
    assert (names[year.origin[first]], names[year.dest[first]]) == ("EWR", "IAH")
    assert year.planes[year.tail[first]].described == "N14228, a BOEING 737-824 of 1999"
    assert (year.departure_delay[first], year.arrival_delay[first]) == (2, 11)
    assert EPOCH_MS + 60_000 * year.arrived[first] == houston.timestamp() * 1000


def test_values_are_possible(year: Year) -> None:
    assert (np.diff(year.scheduled) >= 0).all()
    assert (year.tail[~year.cancelled] >= 0).all()
    landed = year.duration[year.landed]
    assert landed.min() >= 15
    assert landed.max() < 13 * 60
    # Known from the source: the mean delays of the year.
    assert year.departure_delay[~year.cancelled].mean() == pytest.approx(12.639, abs=1e-3)
    assert year.arrival_delay[year.arrival_delay != MISSING].mean() == pytest.approx(6.895, abs=1e-3)
    for measured, most in ((year.wind, 100), (year.visibility, 10), (year.precipitation, 2)):
        assert measured.shape == (365 * 24, len(HUBS))
        assert np.nanmin(measured) >= 0
        assert np.nanmax(measured) <= most
        assert np.isnan(measured).mean() < 0.01
    hubs = [airport for airport in year.airports if airport.code in HUBS]
    assert all(40 < a.latitude < 41 and -75 < a.longitude < -73 for a in hubs)


def test_file_is_small_and_says_its_licence() -> None:
    assert DATA.stat().st_size <= 2_500_000
    assert "CC0" in (DATA.parent / "LICENSE.md").read_text()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    damaged = tmp_path / "flights.npz.xz"
    damaged.write_bytes(DATA.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"flights\.npz\.xz cannot be read.*make_flights"):
        load_year(damaged)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_byte_planes_come_back(dtype: type[np.integer]) -> None:
    info = np.iinfo(dtype)
    column = np.array([[info.min, -1 if info.min else 1, 0], [1, 255, info.max]], np.int64).astype(dtype)
    assert (_joined(planes_of_bytes(column)) == column).all()


@pytest.mark.parametrize(
    ("departure", "arrival", "zone", "minutes"),
    [
        ("2013-01-01T10:17", "830", "America/Chicago", 253),
        ("2013-01-02T04:30", "12", "America/New_York", 42),  # over midnight
        ("2013-01-02T04:30", "2400", "America/New_York", 30),
        ("2013-07-01T14:00", "1430", "Pacific/Honolulu", 630),
        ("2013-07-01T14:00", "NA", "America/New_York", MISSING),
    ],
)
def test_duration_is_from_clock_to_clock(departure: str, arrival: str, zone: str, minutes: int) -> None:
    moment = datetime.fromisoformat(departure).replace(tzinfo=UTC)
    assert duration(moment, arrival, ZoneInfo(zone)) == minutes
