"""A SQLite log's records: read by looking again and again, because files tell nobody when they change; written in
transactions of SQLite, in which those of the log are rows.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from .interface import (
    Isolation,
    LogError,
    LogUnavailableError,
    Message,
    OffsetOutOfRangeError,
    ProducerFencedError,
    Record,
    unknown_topic,
)
from .limits import TopicLimits, check_messages, check_seek, limits_of
from .sqlite_compaction import Cleaning, clean, cleaning_of
from .sqlite_file import SqliteConnection, now_ms, reading, writing
from .sqlite_transactions import (
    abort_expired,
    begin_transaction,
    end_transaction,
    expired,
    new_epoch,
    require_epoch,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

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


class _Topic(NamedTuple):
    """What never changes of a topic: a SQLite log has no way to alter or delete one."""

    limits: TopicLimits
    cleaning: Cleaning
    partition_ids: list[int]


class SqliteWriter:
    """A writer; with a transactional id, a transactional one."""

    def __init__(
        self, connection: SqliteConnection, transactional_id: str | None = None, timeout: float = 0.0
    ) -> None:
        self._connection = connection
        self._id = transactional_id
        self._timeout_ms = int(timeout * 1000)
        self._epoch = -1
        self._topics: dict[str, _Topic] = {}
        self._in_transaction = False
        self._txn: int | None = None  # its number in the file, once something was written
        self._dead: LogError | None = LogError("this writer has not been started")

    async def start(self) -> None:
        """Connect; fence and abort the predecessor. Raises LogUnavailableError, LogError."""

        def begin(db: sqlite3.Connection) -> None:
            if self._id is not None:
                with writing(db):
                    self._epoch = new_epoch(db, self._id)

        try:
            await self._connection.run(begin)
        except BaseException:
            await self.close()
            raise
        self._dead = None

    async def close(self) -> None:
        """Abort an open transaction and release the file; may be called twice."""
        if self._dead is None and self._in_transaction:
            with suppress(LogError):  # it times out then, as if the process had died
                await self.abort()
        self._dead = LogError("this writer is closed")
        await self._connection.close()

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has. Raises UnknownTopicError."""
        async with self._outcome():
            return (await self._topic(topic)).limits.partitions

    async def append(self, topic: str, partition: int, messages: Sequence[Message]) -> int:
        """Write in order: the offset after the last message."""
        async with self._outcome():
            if self._id is not None and not self._in_transaction:
                raise LogError("append to a transactional writer outside a transaction: call begin first")
            known = await self._topic(topic)
            check_messages(topic, known.limits, partition, messages)
            place = known.partition_ids[partition]
            end = await self._connection.run(lambda db: self._append(db, place, messages))
            if known.cleaning.dirty_ratio is not None or known.cleaning.retention_ms is not None:
                await self._connection.run(lambda db: clean(db, place, known.cleaning))
            return end

    async def begin(self, ahead: Iterable[tuple[str, int]] = ()) -> None:  # noqa: ARG002 - a file knows its partitions
        """Open a transaction; its life is counted from its first record."""
        async with self._outcome():
            if self._in_transaction:
                raise LogError("a transaction is open already: commit or abort it first")
            self._in_transaction = True

    async def commit(self) -> None:
        """Commit it. Raises ProducerFencedError, LogUnavailableError."""
        await self._end(commit=True)

    async def abort(self) -> None:
        """Abort it. Raises ProducerFencedError, LogUnavailableError."""
        await self._end(commit=False)

    async def _end(self, *, commit: bool) -> None:
        async with self._outcome():
            if not self._in_transaction:
                raise LogError("no transaction is open: call begin first")
            if (txn := self._txn) is not None:
                await self._connection.run(lambda db: self._end_in_file(db, txn, commit=commit))
            self._in_transaction, self._txn = False, None

    def _end_in_file(self, db: sqlite3.Connection, txn: int, *, commit: bool) -> None:
        assert self._id is not None
        self._expire(db)
        with writing(db):
            require_epoch(db, self._id, self._epoch)
            end_transaction(db, txn, commit=commit)

    def _append(self, db: sqlite3.Connection, place: int, messages: Sequence[Message]) -> int:
        self._expire(db)
        with writing(db):
            (offset,) = db.execute("SELECT next_offset FROM partitions WHERE id = ?", (place,)).fetchone()
            now = now_ms()
            txn = None
            if self._id is not None:
                require_epoch(db, self._id, self._epoch)
                txn = self._txn or begin_transaction(db, self._id, self._epoch, now + self._timeout_ms)
                db.execute("INSERT OR IGNORE INTO txn_partitions VALUES (?, ?, ?)", (txn, place, offset))
            pack = msgspec.msgpack.encode
            db.executemany(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (place, offset + i, txn, now, key, value, pack(headers) if headers else None)
                    for i, (key, value, headers) in enumerate(messages)
                ],
            )
            end: int = offset + len(messages)
            db.execute("UPDATE partitions SET next_offset = ? WHERE id = ?", (end, place))
        self._txn = txn
        return end

    @staticmethod
    def _expire(db: sqlite3.Connection) -> None:
        """In a transaction of its own: it must stay done although the caller is fenced by it."""
        with writing(db):
            abort_expired(db)

    async def _topic(self, name: str) -> _Topic:
        if name not in self._topics:
            self._topics[name] = await self._connection.run(lambda db: _look_up(db, name))
        return self._topics[name]

    @asynccontextmanager
    async def _outcome(self) -> AsyncIterator[None]:
        """Refuse when dead; die of what leaves the writer without a known state."""
        if self._dead is not None:
            raise type(self._dead)(*self._dead.args)  # a new one: its traceback would grow with every call
        try:
            yield
        except (ProducerFencedError, LogUnavailableError) as exc:
            self._dead = exc
            raise
        except asyncio.CancelledError:
            self._dead = LogUnavailableError("a call to this writer was cancelled: what it wrote is unknown")
            raise


def _look_up(db: sqlite3.Connection, name: str) -> _Topic:
    row = db.execute("SELECT id, config FROM topics WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise unknown_topic(name, "in this log")
    config = json.loads(row[1])
    ids = [i for (i,) in db.execute("SELECT id FROM partitions WHERE topic = ? ORDER BY number", (row[0],))]
    return _Topic(limits_of(len(ids), config), cleaning_of(config), ids)
