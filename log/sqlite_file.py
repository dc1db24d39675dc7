"""The file of a SQLite log: its tables, how it is opened, and the one thread each connection lives on."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from ..write_ahead import use_write_ahead_log
from .interface import LogError, LogUnavailableError, UnknownTopicError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

APPLICATION_ID = 0x64676C67  # "dglg": tells this file from any other SQLite file
FORMAT = 1
BUSY_TIMEOUT = 10.0  # seconds that a writer waits for the others

_TRANSIENT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PROTOCOL,
}

# A transaction is data, not a SQLite transaction: its records are there at once, with its number. The row in
# txns says that it is open or was aborted; a committed one has no row. txn_partitions holds open ones only,
# so the least first_offset of a partition is its last stable offset.
SCHEMA = """
CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, config TEXT NOT NULL);
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY, topic INTEGER NOT NULL REFERENCES topics, number INTEGER NOT NULL,
    first_offset INTEGER NOT NULL DEFAULT 0, next_offset INTEGER NOT NULL DEFAULT 0,
    cleaned_to INTEGER NOT NULL DEFAULT 0, cleaned_records INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, number)
);
CREATE TABLE records (
    partition INTEGER NOT NULL, offset INTEGER NOT NULL, txn INTEGER, timestamp INTEGER NOT NULL,
    key BLOB, value BLOB, headers BLOB,
    PRIMARY KEY (partition, offset)
) WITHOUT ROWID;
CREATE TABLE producers (id TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE txns (
    id INTEGER PRIMARY KEY AUTOINCREMENT, producer TEXT NOT NULL, epoch INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'aborted')), deadline INTEGER NOT NULL
);
CREATE INDEX txns_by_state ON txns (state, deadline);
CREATE TABLE txn_partitions (
    txn INTEGER NOT NULL, partition INTEGER NOT NULL, first_offset INTEGER NOT NULL,
    PRIMARY KEY (partition, txn)
) WITHOUT ROWID;
CREATE TABLE latest (
    partition INTEGER NOT NULL, key BLOB NOT NULL, offset INTEGER NOT NULL, expires INTEGER,
    PRIMARY KEY (partition, key)
) WITHOUT ROWID;
CREATE INDEX latest_tombstones ON latest (partition, expires) WHERE expires IS NOT NULL;
CREATE TABLE group_offsets (
    consumer_group TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    PRIMARY KEY (consumer_group, topic, partition)
) WITHOUT ROWID;
"""


def now_ms() -> int:
    """Milliseconds since the epoch: what several processes share."""
    return time.time_ns() // 1_000_000


@contextmanager
def writing(db: sqlite3.Connection) -> Iterator[None]:
    """One short write transaction of SQLite; waits for other writers up to BUSY_TIMEOUT."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


@contextmanager
def reading(db: sqlite3.Connection) -> Iterator[None]:
    """One snapshot."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        if db.in_transaction:
            db.execute("COMMIT")


class SqliteConnection:
    """One connection on a thread of its own: calls run one after the other and never block the loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dgdm-log")
        self._db: sqlite3.Connection | None = None
        self._closed = False

    async def run(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """Call with the connection, opened at first use. Raises LogUnavailableError, LogError."""
        if self._closed:
            raise LogError(f"the connection to {self._path} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, call)

    def _call(self, call: Callable[[sqlite3.Connection], T]) -> T:
        with _translated(self._path):
            if self._db is None:
                self._db = _open(self._path)
            return call(self._db)

    async def close(self) -> None:
        """May be called twice. Waits for a call that was cancelled: SQLite ends it within BUSY_TIMEOUT."""
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._threads, self._disconnect)
        self._threads.shutdown(wait=False)

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode & 0xFF in _TRANSIENT:
            raise LogUnavailableError(f"{path}: {exc}") from exc
        raise LogError(f"{path}: {exc}; dgdm needs the right to write this file and its folder") from exc
    except sqlite3.DatabaseError as exc:
        if exc.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise _not_a_log(path) from exc
        raise LogError(f"{path} is damaged: {exc}; restore a copy, or start with an empty log") from exc
    except OSError as exc:
        raise LogError(f"{path} cannot be opened: {exc.strerror}") from exc


def _not_a_log(path: Path) -> LogError:
    return LogError(f"{path} is not a dgdm log: name another file, and dgdm creates it")


def create_file(path: Path) -> None:
    """An empty log, in a folder of its own if need be; nothing when it is there. Raises LogError."""
    with _translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            path.touch()
        _open(path).close()


def _open(path: Path) -> sqlite3.Connection:
    if path.is_dir():
        raise LogError(f"{path} is a folder: name a file in it, for instance {path / 'log.db'}")
    if not path.exists():  # SQLite would make it: a file left behind by every mistyped name
        raise UnknownTopicError(
            f"there is no log {path.absolute()}: run this where `dgdm up` runs, name another file, or make it by "
            "`dgdm topics create`"
        )
    db = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    try:
        _prepare(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    with reading(db):  # one snapshot: another process may be creating it right now
        is_log = _is_log(db, path)
    if not is_log:
        use_write_ahead_log(db, BUSY_TIMEOUT)
        with writing(db):
            if not _is_log(db, path):  # nobody else was quicker
                for statement in SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {FORMAT}")
    db.execute("PRAGMA synchronous = NORMAL")  # survives kill -9; a power cut may take the last transactions
    db.execute(f"PRAGMA journal_size_limit = {64 << 20}")


def _is_log(db: sqlite3.Connection, path: Path) -> bool:
    """True: a log of this format. False: an empty file. Raises LogError for anything else."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (objects,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application == APPLICATION_ID and version == FORMAT:
        return True
    if application == APPLICATION_ID:
        raise LogError(
            f"{path} has log format {version}, this dgdm reads format {FORMAT}: use the dgdm that wrote it, "
            "or start with an empty log"
        )
    if application or version or objects:
        raise _not_a_log(path)
    return False
