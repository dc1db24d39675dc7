"""Reading a SQLite log: polling, because files tell nobody when they change."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from .interface import (
    Isolation,
    OffsetOutOfRangeError,
    Record,
    unknown_topic,
)
from .limits import check_seek
from .sqlite_file import SqliteConnection, reading, writing
from .sqlite_transactions import abort_expired, expired

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

LONGEST_NAP = 0.005  # seconds between two looks at the file
MAX_POLL_BYTES = 64 << 20

# Below the last stable offset every transaction has ended, so what was not aborted was committed.
_QUERIES = {
    "read_uncommitted": """
SELECT offset, timestamp, key, value, headers FROM records
WHERE partition = ? AND offset >= ? AND offset < ? ORDER BY offset LIMIT ?""",
    "read_committed": """
SELECT offset, timestamp, key, value, headers FROM records
WHERE partition = ? AND offset >= ? AND offset < ?
AND (txn IS NULL OR txn NOT IN (SELECT id FROM txns WHERE state = 'aborted')) ORDER BY offset LIMIT ?""",
}


class _Span(NamedTuple):
    """One partition as of a snapshot."""

    id: int
    number: int
    first: int
    end: int  # under the reader's isolation
    high: int  # the next offset to be written


class _Found(NamedTuple):
    records: list[Record]
    positions: dict[int, int]
    ends: dict[int, int]


class SqliteReader:
    """All partitions of one topic."""

    def __init__(self, connection: SqliteConnection, topic: str, isolation: Isolation) -> None:
        self.topic = topic
        self._isolation = isolation
        self._connection = connection
        self._positions: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._turn = 0  # which partition comes first, so that a busy one does not starve the others

    async def start(self) -> None:
        """Look the topic up. Raises UnknownTopicError, LogUnavailableError, LogError."""
        try:
            spans = await self._connection.run(self._fresh_spans)
        except BaseException:
            await self.close()
            raise
        self._positions = {span.number: span.first for span in spans}
        self._ends = {span.number: span.end for span in spans}

    async def close(self) -> None:
        """Release the file; may be called twice."""
        await self._connection.close()

    @property
    def partitions(self) -> Sequence[int]:
        """Partition numbers, ascending."""
        return sorted(self._positions)

    def seek(self, positions: Mapping[int, int]) -> None:
        """Next offsets to read, by partition. Raises LogError for a partition that is not there."""
        check_seek(self.topic, self._positions, positions)
        self._positions.update(positions)

    def positions(self) -> dict[int, int]:
        """Next offsets to read, past transaction markers."""
        return dict(self._positions)

    async def poll(self, max_records: int, timeout: float) -> list[Record]:  # noqa: ASYNC109 - the interface's name
        """Records in offset order within each partition; [] when none came within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        nap = LONGEST_NAP / 16
        while True:
            before = dict(self._positions)
            found = await self._connection.run(partial(self._read, positions=before, max_records=max_records))
            self._ends = found.ends
            for partition, position in found.positions.items():
                if self._positions[partition] == before[partition]:  # no seek meanwhile
                    self._positions[partition] = position
            remaining = deadline - time.monotonic()
            if found.records or remaining <= 0:
                return found.records
            await asyncio.sleep(min(nap, remaining))
            nap = min(2 * nap, LONGEST_NAP)

    def known_ends(self) -> dict[int, int]:
        """Ends as of the last look at the file."""
        return dict(self._ends)

    async def beginning_offsets(self) -> dict[int, int]:
        """First offsets the log still holds."""
        return {span.number: span.first for span in await self._connection.run(self._fresh_spans)}

    async def end_offsets(self) -> dict[int, int]:
        """Ends under the reader's isolation."""
        return {span.number: span.end for span in await self._connection.run(self._fresh_spans)}

    def _fresh_spans(self, db: sqlite3.Connection) -> list[_Span]:
        """Raises UnknownTopicError."""
        self._expire(db)
        return self._spans(db)

    def _expire(self, db: sqlite3.Connection) -> None:
        """A reader of committed data is held up by transactions whose writer is gone, so it ends them."""
        if self._isolation == "read_committed" and expired(db):
            with writing(db):
                abort_expired(db)

    def _spans(self, db: sqlite3.Connection) -> list[_Span]:
        rows = db.execute(
            "SELECT p.id, number, first_offset, next_offset, "
            "(SELECT min(first_offset) FROM txn_partitions WHERE partition = p.id) "
            "FROM partitions p JOIN topics t ON p.topic = t.id WHERE name = ? ORDER BY number",
            (self.topic,),
        ).fetchall()
        if not rows:
            raise unknown_topic(self.topic, "in this log")
        committed = self._isolation == "read_committed"
        return [
            _Span(row[0], row[1], row[2], row[3] if row[4] is None or not committed else row[4], row[3])
            for row in rows
        ]

    def _read(self, db: sqlite3.Connection, positions: Mapping[int, int], max_records: int) -> _Found:
        self._expire(db)
        records: list[Record] = []
        moved: dict[int, int] = {}
        room = MAX_POLL_BYTES
        with reading(db):
            spans = self._spans(db)
            self._turn = (self._turn + 1) % len(spans)
            for span in spans[self._turn :] + spans[: self._turn]:
                position = positions[span.number]
                if not span.first <= position <= span.high:
                    raise OffsetOutOfRangeError(
                        f"offset {position} of {self.topic!r} partition {span.number} is outside what the "
                        f"log holds: {span.first} to {span.high}"
                    )
                if position < span.end and len(records) < max_records and room > 0:
                    found, moved[span.number], room = self._read_span(
                        db, span._replace(first=position), max_records - len(records), room
                    )
                    records += found
        return _Found(records, moved, {span.number: span.end for span in spans})

    def _read_span(
        self, db: sqlite3.Connection, span: _Span, most: int, room: int
    ) -> tuple[list[Record], int, int]:
        """From span.first on, at most `most` records: (records, new position, bytes of room left)."""
        rows = db.execute(_QUERIES[self._isolation], (span.id, span.first, span.end, most))
        records: list[Record] = []
        for offset, timestamp, key, value, packed in rows:
            headers = msgspec.msgpack.decode(packed, type=tuple[tuple[str, bytes], ...]) if packed else ()
            records.append(Record(span.number, offset, timestamp, key, value, headers))
            room -= len(value or b"")
            if len(records) == most or room <= 0:
                return records, offset + 1, room
        return records, span.end, room
