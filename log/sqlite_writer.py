"""Writing a SQLite log: each batch is one short BEGIN IMMEDIATE that checks the writer's epoch."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from .interface import LogError, LogUnavailableError, Message, ProducerFencedError, unknown_topic
from .limits import TopicLimits, check_messages, limits_of
from .sqlite_compaction import Cleaning, clean, cleaning_of
from .sqlite_file import SqliteConnection, now_ms, writing
from .sqlite_transactions import abort_expired, begin_transaction, end_transaction, new_epoch, require_epoch

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Sequence


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

    async def begin(self) -> None:
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
