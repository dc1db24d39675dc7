"""The SQLite store: the same promises as the Redis store, in one file, without a server.

A graph's rows lie in a *space*; a rewrite fills a second one and switches. Commits are BEGIN IMMEDIATE with
synchronous = FULL, so they survive a power cut. Reading has a connection of its own and waits for no commit.
The lease lies in a second file beside the first, `PATH-lease`: a long commit must not keep it from renewal.
"""

from __future__ import annotations

import time
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import packing
from .sqlite_file import SqliteFile
from .store import (
    FORMAT,
    Finding,
    LeaseInfo,
    Meta,
    Owner,
    RewriteStep,
    StoreChanges,
    StoreConflictError,
    StoredArcs,
    StoredRaw,
    StoredRows,
    StoreError,
    StoreFormatError,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

PAGE = 4096
"""Rows read, or deleted, at a time."""

_TABLES = ("features", "raw", "vectors", "arcs", "ids")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS graphs (
    graph TEXT PRIMARY KEY, token TEXT NOT NULL, sequence INTEGER NOT NULL, format INTEGER NOT NULL,
    space INTEGER NOT NULL, meta BLOB);
CREATE TABLE IF NOT EXISTS spaces (
    space INTEGER PRIMARY KEY AUTOINCREMENT, graph TEXT NOT NULL, role TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS features (
    space INTEGER, field INTEGER, value BLOB, PRIMARY KEY (space, field)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS raw (
    space INTEGER, field INTEGER, value BLOB, PRIMARY KEY (space, field)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS vectors (
    space INTEGER, field INTEGER, value BLOB, PRIMARY KEY (space, field)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS arcs (
    space INTEGER, field INTEGER, value BLOB, PRIMARY KEY (space, field)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ids (
    space INTEGER, field BLOB, value INTEGER, PRIMARY KEY (space, field)) WITHOUT ROWID
"""
# The field of a chunk of arcs is row · 2^32 + chunk; ids are BLOBs because SQLite's text ends at a NUL.

_LEASES = """
CREATE TABLE IF NOT EXISTS leases (
    graph TEXT PRIMARY KEY, token TEXT NOT NULL, state TEXT NOT NULL,
    expires REAL NOT NULL, ttl REAL NOT NULL)
"""


class _Header(NamedTuple):
    owner: Owner
    space: int


class SqliteStore:
    """One graph in a SQLite file. `on_step` hears of each `RewriteStep`."""

    def __init__(
        self,
        path: Path,
        graph: str,
        timeout: float = 5.0,
        on_step: Callable[[RewriteStep], None] | None = None,
    ) -> None:
        self._path = path
        self._graph = graph
        self._report = on_step or (lambda _: None)
        self._writer = SqliteFile(path, _SCHEMA, timeout, "FULL")
        self._reader = SqliteFile(path, _SCHEMA, timeout, "FULL")
        self._leases = SqliteFile(path.with_name(path.name + "-lease"), _LEASES, timeout, "NORMAL")

    def __repr__(self) -> str:
        return f"SqliteStore({str(self._path)!r}, {self._graph!r})"

    def check(self) -> list[Finding]:
        self.owner()  # opens the file
        return []

    def owner(self) -> Owner | None:
        with self._reader.transaction("DEFERRED") as db:
            header = self._header(db)
        return header.owner if header else None

    def take(self, token: str, expected: Owner | None) -> Owner:
        with self._writer.transaction("IMMEDIATE") as db:
            header = self._require(db, expected)
            owner = Owner(token, header.owner.sequence if header else 0)
            self._doom_building(db)
            if header is None:
                self._set_header(db, owner, self._new_space(db, "current"), None)
            else:
                db.execute("UPDATE graphs SET token = ? WHERE graph = ?", (token, self._graph))
        self._drop_doomed()
        return owner

    def commit(self, owner: Owner, changes: StoreChanges, *, gently: bool = False) -> None:  # noqa: ARG002 - a write to a file takes no core from anybody
        packing.require_size(changes)
        with self._writer.transaction("IMMEDIATE") as db:
            header = self._require(db, owner._replace(sequence=owner.sequence - 1))
            if header is None:
                raise StoreConflictError(None)
            _write(db, header.space, changes)
            self._set_header(db, owner, header.space, packing.pack_meta(changes.meta))

    def rewrite(self, owner: Owner, expected: Owner | None, batches: Iterable[StoreChanges]) -> None:
        space = self._begin_rewrite(expected)
        self._report(RewriteStep.BEGUN)
        try:
            meta = None
            for batch in batches:
                packing.require_size(batch)
                with self._writer.transaction("IMMEDIATE") as db:
                    self._require_building(db, space)
                    _write(db, space, batch)
                self._report(RewriteStep.BATCH_WRITTEN)
                meta = batch.meta
            if meta is None:
                raise StoreError("a rewrite without a batch has no meta: give at least one")
            self._report(RewriteStep.ALL_WRITTEN)
            self._switch(space, owner, expected, meta)
        except StoreConflictError:
            with self._writer.transaction("IMMEDIATE") as db:
                db.execute("UPDATE spaces SET role = 'doomed' WHERE space = ?", (space,))
            self._drop_doomed()
            raise
        self._report(RewriteStep.SWITCHED)
        self._drop_doomed(lambda: self._report(RewriteStep.PARTLY_DROPPED))
        self._report(RewriteStep.DROPPED)

    def meta(self) -> Meta | None:
        with self._reader.transaction("DEFERRED") as db:
            self._header(db)
            row = db.execute("SELECT meta FROM graphs WHERE graph = ?", (self._graph,)).fetchone()
        return packing.unpack_meta(row[0]) if row and row[0] is not None else None

    def ids(self) -> Iterator[tuple[list[str], NDArray[np.int32]]]:
        for names, rows in self._pages("ids"):
            yield [name.decode() for name in names], np.array(rows, np.int32)

    def features(self) -> Iterator[StoredRows]:
        return self._rows("features")

    def vectors(self) -> Iterator[StoredRows]:
        return self._rows("vectors")

    def raw(self) -> Iterator[StoredRaw]:
        meta = self.meta()
        width = meta.raw_features if meta else 0
        for fields, values in self._pages("raw") if width else ():
            yield packing.unpack_raw(np.array(fields, np.int32), values, width)

    def arcs(self) -> Iterator[StoredArcs]:
        for fields, values in self._pages("arcs"):
            numbers = np.array(fields, np.int64)
            chunks = np.stack([numbers >> 32, numbers & 0xFFFFFFFF], axis=1).astype(np.int32)
            yield packing.unpack_chunks(chunks, values)

    def lookup(self, ids: list[str]) -> dict[str, NDArray[np.float32]]:
        found: dict[str, NDArray[np.float32]] = {}
        query = (
            "SELECT vectors.value FROM ids"
            " JOIN vectors ON vectors.space = ids.space AND vectors.field = ids.value"
            " WHERE ids.space = ? AND ids.field = ?"
        )
        with self._reader.transaction("DEFERRED") as db:
            header = self._header(db)
            for name in ids if header else ():
                row = db.execute(query, (header.space if header else 0, name.encode())).fetchone()
                if row is not None:
                    found[name] = np.frombuffer(row[0], "<f4").astype(np.float32)
        return found

    def lease(self) -> LeaseInfo | None:
        with self._leases.transaction("DEFERRED") as db:
            return self._lease(db)

    def hold(self, token: str, state: str, ttl: float) -> bool:
        with self._leases.transaction("IMMEDIATE") as db:
            held = self._lease(db)
            if held is not None and held.token != token:
                return False
            row = (self._graph, token, state, time.time() + ttl, ttl)
            db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)", row)
            return True

    def release(self, token: str) -> None:
        with self._leases.transaction("IMMEDIATE") as db:
            db.execute("DELETE FROM leases WHERE graph = ? AND token = ?", (self._graph, token))

    def drop(self) -> None:
        with self._writer.transaction("IMMEDIATE") as db:
            db.execute("UPDATE spaces SET role = 'doomed' WHERE graph = ?", (self._graph,))
            db.execute("DELETE FROM graphs WHERE graph = ?", (self._graph,))
        with self._leases.transaction("IMMEDIATE") as db:
            db.execute("DELETE FROM leases WHERE graph = ?", (self._graph,))
        self._drop_doomed()

    def close(self) -> None:
        for file in (self._writer, self._reader, self._leases):
            file.close()

    # The compare-and-set.

    def _header(self, db: sqlite3.Connection) -> _Header | None:
        query = "SELECT token, sequence, format, space FROM graphs WHERE graph = ?"
        row = db.execute(query, (self._graph,)).fetchone()
        if row is None:
            return None
        token, sequence, form, space = row
        if form != FORMAT:
            raise StoreFormatError(
                f"graph {self._graph!r} is stored in format {form}, this dgdm reads format {FORMAT}: use the"
                " version that wrote it, or drop the graph and replay"
            )
        return _Header(Owner(token, sequence), space)

    def _require(self, db: sqlite3.Connection, expected: Owner | None) -> _Header | None:
        header = self._header(db)
        if (header.owner if header else None) != expected:
            raise StoreConflictError(header.owner if header else None)
        return header

    def _set_header(self, db: sqlite3.Connection, owner: Owner, space: int, meta: bytes | None) -> None:
        row = (self._graph, owner.token, owner.sequence, FORMAT, space, meta)
        db.execute("INSERT OR REPLACE INTO graphs VALUES (?, ?, ?, ?, ?, ?)", row)

    # Rewriting, and what crashed rewrites left.

    def _begin_rewrite(self, expected: Owner | None) -> int:
        with self._writer.transaction("IMMEDIATE") as db:
            self._require(db, expected)
            self._doom_building(db)
            space = self._new_space(db, "building")
        self._drop_doomed()
        return space

    def _require_building(self, db: sqlite3.Connection, space: int) -> None:
        row = db.execute("SELECT role FROM spaces WHERE space = ?", (space,)).fetchone()
        if row is None or row[0] != "building":
            header = self._header(db)
            raise StoreConflictError(header.owner if header else None)

    def _switch(self, space: int, owner: Owner, expected: Owner | None, meta: Meta) -> None:
        with self._writer.transaction("IMMEDIATE") as db:
            header = self._require(db, expected)
            self._require_building(db, space)
            self._set_header(db, owner, space, packing.pack_meta(meta))
            db.execute("UPDATE spaces SET role = 'current' WHERE space = ?", (space,))
            if header is not None:
                db.execute("UPDATE spaces SET role = 'doomed' WHERE space = ?", (header.space,))

    def _new_space(self, db: sqlite3.Connection, role: str) -> int:
        cursor = db.execute("INSERT INTO spaces (graph, role) VALUES (?, ?)", (self._graph, role))
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _doom_building(self, db: sqlite3.Connection) -> None:
        query = "UPDATE spaces SET role = 'doomed' WHERE graph = ? AND role = 'building'"
        db.execute(query, (self._graph,))

    def _drop_doomed(self, on_slice: Callable[[], None] | None = None) -> None:
        """Delete doomed spaces a page at a time, so that others can write in between."""
        with self._reader.transaction("DEFERRED") as db:
            query = "SELECT space FROM spaces WHERE graph = ? AND role = 'doomed'"
            doomed = [space for (space,) in db.execute(query, (self._graph,))]
        for space in doomed:
            for table in _TABLES:
                slice_of = f"SELECT field FROM {table} WHERE space = ? LIMIT {PAGE}"  # noqa: S608 - our own table names
                statement = f"DELETE FROM {table} WHERE space = ? AND field IN ({slice_of})"  # noqa: S608 - the same
                deleted = PAGE
                while deleted == PAGE:
                    with self._writer.transaction("IMMEDIATE") as db:
                        deleted = db.execute(statement, (space, space)).rowcount
                    if on_slice:
                        on_slice()
            with self._writer.transaction("IMMEDIATE") as db:
                db.execute("DELETE FROM spaces WHERE space = ?", (space,))

    # Reading.

    def _rows(self, table: str) -> Iterator[StoredRows]:
        meta = self.meta()
        for fields, values in self._pages(table) if meta else ():
            vectors = packing.unpack_vectors(values, meta.features if meta else 0)
            yield StoredRows(np.array(fields, np.int32), vectors)

    def _pages(self, table: str) -> Iterator[tuple[Sequence[Any], Sequence[Any]]]:
        query = f"SELECT field, value FROM {table} WHERE space = ? AND field > ? ORDER BY field LIMIT {PAGE}"  # noqa: S608 - our own table names
        with self._reader.transaction("DEFERRED") as db:
            header = self._header(db)
        if header is None:
            return
        start = -1  # SQLite sorts integers before BLOBs: this stands before the ids as well
        while True:
            with self._reader.transaction("DEFERRED") as db:
                page = db.execute(query, (header.space, start)).fetchall()
                now = self._header(db)
            if now is None or now.space != header.space:
                raise StoreConflictError(now.owner if now else None)
            if not page:
                return
            fields, values = zip(*page, strict=True)
            start = fields[-1]
            yield fields, values

    def _lease(self, db: sqlite3.Connection) -> LeaseInfo | None:
        query = "SELECT token, state, expires, ttl FROM leases WHERE graph = ?"
        row = db.execute(query, (self._graph,)).fetchone()
        if row is None:
            return None
        token, state, expires, ttl = row
        remaining = expires - time.time()
        # More than the whole TTL left: the clock was set back, and the lease would never end.
        return LeaseInfo(token, state, remaining) if 0 < remaining <= ttl else None


def _write(db: sqlite3.Connection, space: int, changes: StoreChanges) -> None:
    def delete(table: str, fields: Iterable[int | bytes]) -> None:
        statement = f"DELETE FROM {table} WHERE space = ? AND field = ?"  # noqa: S608 - our own table names
        db.executemany(statement, ((space, name) for name in fields))

    def insert(table: str, fields: Iterable[int | bytes], values: Iterable[int | bytes]) -> None:
        statement = f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)"  # noqa: S608 - the same
        pairs = sorted(zip(fields, values, strict=True), key=itemgetter(0))  # a B-tree grows fastest in order
        db.executemany(statement, ((space, *pair) for pair in pairs))

    freed = changes.freed_rows.tolist()
    delete("ids", (name.encode() for name in changes.freed_ids))
    delete("features", freed)
    delete("raw", freed if changes.meta.raw_features else [])
    delete("vectors", freed)
    delete("arcs", _chunk_fields(changes.freed_chunks))
    insert("ids", (name.encode() for name in changes.ids), changes.id_rows.tolist())
    insert("features", changes.feature_rows.tolist(), packing.pack_vectors(changes.features))
    insert("raw", changes.raw_rows.tolist(), packing.pack_fields(changes.raw))
    insert("vectors", changes.vector_rows.tolist(), packing.pack_vectors(changes.vectors))
    arcs = packing.pack_chunks(changes.chunk_ends, changes.targets, changes.weights)
    insert("arcs", _chunk_fields(changes.chunks), arcs)


def _chunk_fields(chunks: NDArray[np.int32]) -> list[int]:
    pairs = chunks.reshape(-1, 2).astype(np.int64)
    fields: list[int] = (pairs[:, 0] << 32 | pairs[:, 1]).tolist()
    return fields
