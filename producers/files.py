"""Events from files: JSON lines, CSV edge lists, MessagePack streams."""

from __future__ import annotations

import csv
import gzip
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal, NamedTuple

import msgpack

from ..schemas.events import AddEdge, GraphEvent, as_weight, decode_event
from ..schemas.ids import parse_id
from ..schemas.reasons import InvalidEvent, Reason, shortened

Format = Literal["jsonl", "csv", "msgpack"]
LONGEST_LINE = 16 * 1024 * 1024  # bytes
EXTENSIONS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".edges": "csv",
    ".msgpack": "msgpack",
    ".mp": "msgpack",
}


class BadLine(NamedTuple):
    """A place in a file that holds no event."""

    number: int  # from 1: a line, or a message of a stream
    text: str
    reason: str


def format_of(path: str) -> Format:
    """By the extension, `.gz` aside. Raises ValueError."""
    name = Path(path).name.lower().removesuffix(".gz")
    extension = Path(name).suffix
    if extension not in EXTENSIONS:
        raise ValueError(
            f"{path}: cannot tell the format from {extension!r}: say --format jsonl, csv or msgpack"
        )
    return EXTENSIONS[extension]


def open_input(path: str) -> IO[bytes]:
    """A file, unpacked when it ends in .gz; - is standard input. Raises OSError."""
    if path == "-":
        return sys.stdin.buffer
    return gzip.open(path, "rb") if path.endswith(".gz") else Path(path).open("rb")  # type: ignore[return-value]


def read_events(stream: IO[bytes], kind: Format) -> Iterator[GraphEvent | BadLine]:
    """Everything the stream holds, in order."""
    if kind == "msgpack":
        return _messages(stream)
    return _csv(stream) if kind == "csv" else _lines(stream)


def _lines(stream: IO[bytes]) -> Iterator[GraphEvent | BadLine]:
    number = 0
    while line := stream.readline(LONGEST_LINE):
        number += 1
        if not line.strip():
            continue
        try:
            yield decode_event(line if line.lstrip(b"\xef\xbb\xbf \t").startswith(b"{") else b"")
        except InvalidEvent as error:
            yield BadLine(number, shortened(line), str(error))


def _csv(stream: IO[bytes]) -> Iterator[GraphEvent | BadLine]:
    """source,target[,weight]; separated by comma, tab or blanks; a header is skipped."""
    for number, raw in enumerate(iter(lambda: stream.readline(LONGEST_LINE), b""), 1):
        line = raw.decode("utf-8-sig", errors="replace").strip("\r\n")
        if not line.strip() or line.startswith("#"):
            continue
        fields = next(csv.reader(io.StringIO(line))) if "," in line else line.split()
        if number == 1 and fields[0].strip().lower() in {"source", "src", "from", "u"}:
            continue
        try:
            if len(fields) < 2:
                raise InvalidEvent(Reason.WRONG_TYPE, "a line is source,target or source,target,weight")
            weight = float(fields[2]) if len(fields) > 2 and fields[2].strip() else 1.0
            yield AddEdge(parse_id(fields[0]), parse_id(fields[1]), as_weight(weight))
        except ValueError as error:
            yield BadLine(number, shortened(line), str(error))


def _messages(stream: IO[bytes]) -> Iterator[GraphEvent | BadLine]:
    unpacker = msgpack.Unpacker(stream, raw=False, max_buffer_size=LONGEST_LINE, strict_map_key=False)
    number = 0
    while True:
        number += 1
        try:
            yield decode_event(msgpack.packb(unpacker.unpack()))
        except msgpack.OutOfData:
            return
        except InvalidEvent as error:
            yield BadLine(number, "", str(error))
        except (ValueError, msgpack.UnpackException) as error:
            yield BadLine(number, "", f"not MessagePack, the rest of the stream is not read: {error}")
            return
