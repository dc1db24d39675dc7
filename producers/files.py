"""Events from files: JSON lines, CSV edge lists, MessagePack streams."""

from __future__ import annotations

import csv
import errno
import gzip
import os
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Literal, NamedTuple, cast

import msgpack

from ..schemas.events import AddEdge, GraphEvent, decode_event
from ..schemas.ids import parse_id
from ..schemas.reasons import InvalidEvent, Reason, shortened
from ..schemas.values import as_weight

Format = Literal["jsonl", "csv", "msgpack"]
LONGEST_LINE = 16 * 1024 * 1024  # bytes: a longer line or message is a bad one
PIECE = 64 * 1024
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
SOURCE, TARGET, WEIGHT = {"source", "src", "from", "u"}, {"target", "dst", "to", "v"}, {"weight", "w"}
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)  # what a broken .gz raises


class BadLine(NamedTuple):
    """A place in a file that holds no event."""

    number: int  # from 1: a line, or a message of a stream
    text: str  # shortened, printable
    reason: str


class _Columns(NamedTuple):
    """Where the fields of an edge stand in a line."""

    source: int = 0
    target: int = 1
    weight: int | None = 2
    named: bool = False  # by a header: other columns are not ours

    def check(self, fields: list[str]) -> None:
        """Raises InvalidEvent for a line that is too short, or too long to be understood."""
        if len(fields) <= max(self.source, self.target):
            raise InvalidEvent(Reason.WRONG_TYPE, "a line is source,target or source,target,weight")
        if len(fields) > 3 and not self.named:
            raise InvalidEvent(
                Reason.WRONG_TYPE,
                f"{len(fields)} fields, and a line is source,target[,weight]: name the columns in a header line",
            )


def format_of(path: str) -> Format:
    """By the extension, `.gz` aside. Raises ValueError."""
    name = Path(path).name.lower().removesuffix(".gz")
    extension = Path(name).suffix
    if extension not in EXTENSIONS:
        raise ValueError(
            f"{path}: cannot tell the format from {extension!r}: say --format jsonl, csv or msgpack"
        )
    return EXTENSIONS[extension]


def require_input(path: str) -> None:
    """Raises OSError when there is no file to be read at `path`."""
    if path == "-":
        return
    mode = Path(path).stat().st_mode
    why = errno.EISDIR if stat.S_ISDIR(mode) else None if os.access(path, os.R_OK) else errno.EACCES
    if why is not None:
        raise OSError(why, os.strerror(why), path)


def open_input(path: str) -> IO[bytes]:
    """A file, unpacked when it ends in .gz; - is standard input. Raises OSError."""
    if path == "-":
        return _standard_input()
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.endswith(".gz") else Path(path).open("rb")


def _standard_input() -> IO[bytes]:
    """A second handle: a thread that waits in sys.stdin for ever would abort the interpreter at its end."""
    try:
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    except (OSError, ValueError):  # replaced by something that is no file
        return sys.stdin.buffer


def read_events(stream: IO[bytes], kind: Format) -> Iterator[GraphEvent | BadLine]:
    """Everything the stream holds, in order. Raises OSError when it cannot be read, else nothing."""
    if kind == "msgpack":
        return _messages(stream)
    return _edges(_lines(stream)) if kind == "csv" else _events(_lines(stream))


def _lines(stream: IO[bytes]) -> Iterator[tuple[int, bytes] | BadLine]:
    """Numbered lines without their end; one that is too long is bad as a whole, and never all in memory."""
    number = 0
    try:
        while line := stream.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                yield BadLine(number, shortened(line), f"a line of more than {LONGEST_LINE} bytes")
                while line and not line.endswith(b"\n"):
                    line = stream.readline(PIECE)
                continue
            line = line.rstrip(b"\r\n")
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield number, line
    except DAMAGED as error:
        yield BadLine(number + 1, "", f"the file is damaged, its rest is not read: {error}")


def _events(lines: Iterable[tuple[int, bytes] | BadLine]) -> Iterator[GraphEvent | BadLine]:
    for item in lines:
        if isinstance(item, BadLine):
            yield item
            continue
        number, line = item
        if not line.lstrip().startswith(
            b"{"
        ):  # what is not text is not MessagePack either, in a file of lines
            yield BadLine(number, shortened(line), "a line is one JSON object: {…}")
            continue
        try:
            yield decode_event(line)
        except InvalidEvent as error:
            yield BadLine(number, shortened(line), str(error))


def _edges(lines: Iterable[tuple[int, bytes] | BadLine]) -> Iterator[GraphEvent | BadLine]:
    """source,target[,weight]; separated by comma, tab or blanks; a header names columns in any order."""
    columns: _Columns | None = None
    for item in lines:
        if isinstance(item, BadLine):
            yield item
            continue
        number, line = item
        if line.startswith((b"#", b"%")):  # comments of the usual collections of graphs
            continue
        if line.startswith(b'{"'):  # split at its commas it would be an edge between two words of JSON
            yield BadLine(
                number, shortened(line), "a line of JSON, read as source,target: say --format jsonl"
            )
            continue
        try:
            fields = _fields(line.decode())
            if columns is None:
                header = _header(fields)
                columns = header or _Columns()
                if header is not None:
                    continue
            yield _edge(columns, fields)
        except (InvalidEvent, UnicodeDecodeError, csv.Error) as error:
            yield BadLine(number, shortened(line), str(error))


def _fields(line: str) -> list[str]:
    for separator in (",", "\t"):
        if separator in line:
            return next(csv.reader([line], delimiter=separator, strict=True))
    return line.split()


def _header(fields: list[str]) -> _Columns | None:
    names = [field.strip().lower() for field in fields]
    source, target, weight = (
        next((i for i, name in enumerate(names) if name in known), None) for known in (SOURCE, TARGET, WEIGHT)
    )
    return None if source is None or target is None else _Columns(source, target, weight, named=True)


def _edge(columns: _Columns, fields: list[str]) -> AddEdge:
    columns.check(fields)
    text = fields[columns.weight] if columns.weight is not None and columns.weight < len(fields) else ""
    try:
        weight = float(text.replace("_", "x")) if text.strip() else 1.0  # 1_000 is a number to Python alone
    except ValueError:
        raise InvalidEvent(Reason.WRONG_TYPE, f"the weight {shortened(text)} is not a number") from None
    return AddEdge(parse_id(fields[columns.source]), parse_id(fields[columns.target]), as_weight(weight))


def _messages(stream: IO[bytes]) -> Iterator[GraphEvent | BadLine]:
    """Each message is handed on as the bytes it is: only where it ends is found out here."""
    number, rest, done = 1, bytearray(), 0  # `rest` begins at `done`, where the last whole message ended
    unpacker = msgpack.Unpacker(max_buffer_size=LONGEST_LINE + PIECE)
    read = getattr(stream, "read1", stream.read)  # what a pipe has now, not all that was asked for
    try:
        while piece := read(PIECE):
            rest += piece
            unpacker.feed(piece)
            begin = done
            while (end := _skipped(unpacker)) is not None:
                yield _message(number, bytes(rest[done - begin : end - begin]))
                number, done = number + 1, end
            del rest[: done - begin]
            if len(rest) > LONGEST_LINE:
                yield _broken(number, rest, f"a message of more than {LONGEST_LINE} bytes")
                return
    except (ValueError, msgpack.UnpackException) as error:
        yield _broken(number, rest, f"not MessagePack ({type(error).__name__})")
    except DAMAGED as error:
        yield _broken(number, rest, f"the file is damaged ({error})")
    else:
        if rest:
            yield BadLine(number, shortened(bytes(rest[:100])), "the stream ends within a message")


def _skipped(unpacker: msgpack.Unpacker) -> int | None:
    """The end of the next message; None when it is not all there yet."""
    try:
        unpacker.skip()
    except msgpack.OutOfData:
        return None
    return int(unpacker.tell())


def _message(number: int, raw: bytes) -> GraphEvent | BadLine:
    try:
        return decode_event(raw)
    except InvalidEvent as error:
        return BadLine(number, shortened(raw), str(error))


def _broken(number: int, rest: bytearray, why: str) -> BadLine:
    return BadLine(number, shortened(bytes(rest[:100])), f"{why}: the rest of the stream is not read")
