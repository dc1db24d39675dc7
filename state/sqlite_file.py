"""A SQLite file shared by threads and processes: short transactions, every failure a StoreError in words."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal

from ..write_ahead import use_write_ahead_log
from .store import StoreError, StoreFormatError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_JOURNAL_LIMIT = 64 << 20  # bytes
_CACHE_KIB = 64 << 10


class SqliteFile:
    """One connection to one file, opened at first use, and the lock that lets threads take turns on it."""

    def __init__(
        self, path: Path, schema: str, timeout: float, synchronous: Literal["FULL", "NORMAL"]
    ) -> None:
        self._path = path
        self._schema = schema
        self._timeout = timeout
        self._synchronous = synchronous
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._closed = False

    @contextmanager
    def transaction(self, kind: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; what is read in it is one snapshot."""
        with self._lock, self._explained():
            connection = self._open()
            connection.execute(f"BEGIN {kind}")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    with suppress(sqlite3.Error):  # the first error counts
                        connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Disconnect; later calls raise StoreError."""
        with self._lock:
            self._closed = True
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(f"the store {self._path} has been closed")
        if self._connection is None:
            connection = sqlite3.connect(
                self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            use_write_ahead_log(connection, self._timeout)
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute(f"PRAGMA cache_size = {-_CACHE_KIB}")
        connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT}")
        connection.execute("BEGIN IMMEDIATE")
        for statement in self._schema.split(";"):
            connection.execute(statement)
        connection.execute("COMMIT")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # Extended codes keep the primary code in the low byte.
            code = (error.sqlite_errorcode or 0) & 0xFF if hasattr(error, "sqlite_errorcode") else 0
            if code in _BUSY:
                raise StoreUnavailableError(f"{self._path} cannot be used now ({error})") from error
            if code in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT} or "no such" in str(error):
                raise StoreFormatError(
                    f"{self._path} is not a dgdm store ({error}): give another path"
                ) from error
            raise StoreError(
                f"{self._path} cannot be used ({error}): the directory must exist and be writable"
            ) from error
