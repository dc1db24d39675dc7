"""Reading `data/flights2013.npz.xz`: every flight out of New York's three airports in 2013 (made by make_flights)."""

from __future__ import annotations

import io
import lzma
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).parent / "data" / "flights2013.npz.xz"
HUBS = ("EWR", "JFK", "LGA")
EPOCH_MS = 1_356_998_400_000
"""2013-01-01 00:00 UTC, the zero of every minute here, in milliseconds since 1970."""
MISSING = -(2**15)

Ints = NDArray[np.int64]


class Airport(NamedTuple):
    """An airport a flight touches."""

    code: str
    name: str
    latitude: float
    longitude: float
    zone: str


class Plane(NamedTuple):
    """An aircraft; fields the register does not know are empty."""

    tail: str
    manufacturer: str
    model: str
    year: str

    @property
    def described(self) -> str:
        """Such as "N14228, a BOEING 737-824 of 1999"."""
        kind = " ".join(part for part in (self.manufacturer, self.model) if part)
        if not kind:
            return self.tail
        article = "an" if kind[0] in "AEIOU" else "a"
        return f"{self.tail}, {article} {kind}" + (f" of {self.year}" if self.year else "")


@dataclass(frozen=True)
class Year:
    """Flights by column, in the order of their scheduled departure; minutes are since 2013-01-01 00:00 UTC."""

    scheduled: Ints  # minute of the scheduled departure
    origin: Ints  # index into airports
    dest: Ints
    tail: Ints  # index into planes, −1 when unknown
    departure_delay: Ints  # minutes, MISSING when cancelled
    arrival_delay: Ints  # minutes, MISSING when cancelled or diverted
    duration: Ints  # minutes from departure to landing, MISSING when it is not known
    airports: list[Airport]
    planes: list[Plane]
    wind: NDArray[np.float64]  # [hours, 3]: knots at the HUBS, NaN where missing
    visibility: NDArray[np.float64]  # miles
    precipitation: NDArray[np.float64]  # inches per hour

    def __len__(self) -> int:
        return len(self.scheduled)

    @cached_property
    def cancelled(self) -> NDArray[np.bool_]:
        """Flights that never left."""
        return np.equal(self.departure_delay, MISSING)

    @cached_property
    def landed(self) -> NDArray[np.bool_]:
        """Flights that arrived where they were bound for."""
        return np.not_equal(self.arrival_delay, MISSING) & np.not_equal(self.duration, MISSING)

    @cached_property
    def left(self) -> Ints:
        """Minute of the actual departure; the scheduled one when cancelled."""
        return np.where(self.cancelled, self.scheduled, self.scheduled + self.departure_delay)

    @cached_property
    def arrived(self) -> Ints:
        """Minute of the landing; meaningless unless `landed`."""
        return self.left + self.duration


def load_year(path: Path = DATA) -> Year:
    """The whole year. Raises ValueError when the file is not what make_flights writes."""
    try:
        plain = io.BytesIO(lzma.decompress(path.read_bytes()))
        with np.load(plain, allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in arrays.files}
    except (OSError, lzma.LZMAError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}): make it with examples/make_flights.py") from None
    hundredths = {name: _measured(_joined(columns[f"weather_{name}"])) for name in ("visib", "precip")}
    return Year(
        scheduled=np.cumsum(_joined(columns["scheduled_step"])),
        origin=_joined(columns["origin"]),
        dest=_joined(columns["dest"]),
        tail=_joined(columns["tail"]),
        departure_delay=_joined(columns["departure_delay"]),
        arrival_delay=_joined(columns["arrival_delay"]),
        duration=_joined(columns["duration"]),
        airports=[_airport(line) for line in _lines(columns["airports"])],
        planes=[
            Plane(tail, *line.split("\t"))
            for tail, line in zip(_lines(columns["tails"]), _lines(columns["planes"]), strict=True)
        ],
        wind=_measured(_joined(columns["weather_wind_speed"])),
        visibility=hundredths["visib"] / 100,
        precipitation=hundredths["precip"] / 100,
    )


def _joined(planes: NDArray[np.uint8]) -> Ints:
    """Byte planes back to integers: one plane is unsigned, two are a signed 16-bit number."""
    if len(planes) == 1:
        return np.asarray(planes[0], np.int64)
    numbers: NDArray[np.int16] = np.ascontiguousarray(np.moveaxis(planes, 0, -1)).view("<i2")[..., 0]
    return numbers.astype(np.int64)


def _measured(column: Ints) -> NDArray[np.float64]:
    return np.where(column == MISSING, np.nan, column.astype(np.float64))


def _lines(text: NDArray[np.uint8]) -> list[str]:
    return text.tobytes().decode().split("\n")


def _airport(line: str) -> Airport:
    code, name, latitude, longitude, zone = line.split("\t")
    return Airport(code, name, float(latitude), float(longitude), zone)
