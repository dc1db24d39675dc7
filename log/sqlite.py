"""The embedded log: one SQLite file, several processes, no server. The twin of Kafka in every test."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

from .interface import Isolation, LogError, TopicInfo, UnknownTopicError
from .limits import DEFAULT_MAX_MESSAGE_BYTES, check_new_topic
from .sqlite_compaction import delete_before
from .sqlite_file import SqliteConnection, create_file, writing
from .sqlite_records import SqliteReader, SqliteWriter

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

_DEFAULTS = {
    "cleanup.policy": "delete",
    "delete.retention.ms": "86400000",
    "max.message.bytes": str(DEFAULT_MAX_MESSAGE_BYTES),
    "message.timestamp.type": "CreateTime",
    "min.cleanable.dirty.ratio": "0.5",
    "retention.ms": "-1",
}
_NUMBERS = {
    "delete.retention.ms": int,
    "max.message.bytes": int,
    "min.cleanable.dirty.ratio": float,
    "retention.ms": int,
}


class SqliteLog:
    """A log in a file. It survives kill -9, not a power cut: the last transactions may be lost then."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).expanduser()
        self._own: SqliteConnection | None = None

    def reader(self, topic: str, isolation: Isolation) -> SqliteReader:
        """A reader, not started."""
        return SqliteReader(SqliteConnection(self._path), topic, isolation)

    def writer(self) -> SqliteWriter:
        """A writer, not started."""
        return SqliteWriter(SqliteConnection(self._path))

    def transactional_writer(self, transactional_id: str, timeout: float) -> SqliteWriter:
        """A transactional writer, not started; `timeout` seconds is the longest life of one transaction."""
        return SqliteWriter(SqliteConnection(self._path), transactional_id, timeout)

    async def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """What is known of each topic that exists."""

        def look(db: sqlite3.Connection) -> dict[str, TopicInfo]:
            found = {}
            for topic in topics:
                row = db.execute(
                    "SELECT config, (SELECT count(*) FROM partitions WHERE topic = t.id) "
                    "FROM topics t WHERE name = ?",
                    (topic,),
                ).fetchone()
                if row is not None:
                    found[topic] = TopicInfo(topic, row[1], _DEFAULTS | json.loads(row[0]))
            return found

        return await self._connection().run(look) if self._path.exists() else {}

    async def create(self, topic: str, partitions: int, config: Mapping[str, str]) -> bool:
        """Create the topic; False when it exists. Raises LogError for a name or value that no log takes."""
        check_new_topic(topic, partitions)
        for name, number in _NUMBERS.items():
            try:
                number(config.get(name, _DEFAULTS[name]))
            except ValueError:
                raise LogError(f"topic {topic!r}: {name} = {config[name]!r} is not a number") from None

        def add(db: sqlite3.Connection) -> bool:
            with writing(db):
                cursor = db.execute(
                    "INSERT OR IGNORE INTO topics (name, config) VALUES (?, ?)",
                    (topic, json.dumps(dict(config))),
                )
                if cursor.rowcount == 0:
                    return False
                rows = [(cursor.lastrowid, number) for number in range(partitions)]
                db.executemany("INSERT INTO partitions (topic, number) VALUES (?, ?)", rows)
            return True

        await asyncio.to_thread(create_file, self._path)
        return await self._connection().run(add)

    async def commit_group_offsets(self, group: str, topic: str, offsets: Mapping[int, int]) -> None:
        """Record how far a group has read: for lag tools only."""
        rows = [(group, topic, partition, offset) for partition, offset in offsets.items()]

        def put(db: sqlite3.Connection) -> None:
            with writing(db):
                db.executemany("INSERT OR REPLACE INTO group_offsets VALUES (?, ?, ?, ?)", rows)

        await self._connection().run(put)

    async def group_offsets(self, group: str, topic: str) -> dict[int, int]:
        """What `commit_group_offsets` recorded last: the lag tool's side."""
        query = "SELECT partition, offset FROM group_offsets WHERE consumer_group = ? AND topic = ?"
        return await self._connection().run(lambda db: dict(db.execute(query, (group, topic)).fetchall()))

    async def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Delete the records below these offsets, as kafka-delete-records does. Raises UnknownTopicError."""

        def delete(db: sqlite3.Connection) -> None:
            for number, offset in before.items():
                row = db.execute(
                    "SELECT p.id FROM partitions p JOIN topics t ON p.topic = t.id "
                    "WHERE name = ? AND number = ?",
                    (topic, number),
                ).fetchone()
                if row is None:
                    raise UnknownTopicError(
                        f"there is no topic {topic!r} with a partition {number} in this log"
                    )
                delete_before(db, row[0], offset)

        await self._connection().run(delete)

    async def close(self) -> None:
        """Release the file; readers and writers are closed by those who started them."""
        if self._own is not None:
            await self._own.close()

    def _connection(self) -> SqliteConnection:
        if self._own is None:
            self._own = SqliteConnection(self._path)
        return self._own
