"""The Redis store: rows in bucketed hashes, every write one WATCH/MULTI/EXEC on (token, sequence).

The layout is in `redis_layout`. Every call has a time-out and is never repeated silently.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from . import packing
from .redis_layout import GraphKeys, Writes, id_bucket, names_of, scan_hashes
from .redis_wire import (
    Command,
    PermissionDeniedError,
    RedisAddress,
    RedisClient,
    Session,
    parse_info,
    require_hashes,
    unpack_lease,
)
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
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

SCAN = 4096
"""Fields asked of one HSCAN: a few milliseconds of the server's time."""

LOOKUP = 1000
"""Ids looked up in one transaction."""

_ATTEMPTS = 20
_KEYS_PER_UNLINK = 16


class _Header(NamedTuple):
    owner: Owner
    generation: str


class RedisStore:
    """One graph in Redis. `on_step` hears of each `RewriteStep`."""

    def __init__(
        self, address: RedisAddress, graph: str, on_step: Callable[[RewriteStep], None] | None = None
    ) -> None:
        self._client = RedisClient(address)
        self._keys = GraphKeys(graph)
        self._graph = graph
        self._report = on_step or (lambda _: None)

    def __repr__(self) -> str:
        return f"RedisStore({self._client.name}, {self._graph!r})"

    def check(self) -> list[Finding]:
        where = f"Redis at {self._client.name}"
        try:
            with self._client.session() as session:
                info = parse_info(session.call("INFO"))
        except PermissionDeniedError as error:
            return [Finding(f"the settings of {where} stay unchecked: {error}", fatal=False)]
        findings = []
        version = info.get("redis_version", "0")
        if int(version.partition(".")[0]) < 6:
            findings.append(Finding(f"{where} is version {version}: dgdm needs 6 or later", fatal=True))
        if info.get("role") == "slave":
            findings.append(
                Finding(f"{where} is a replica and takes no writes: give the primary's address", fatal=True)
            )
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            findings.append(
                Finding(
                    f"{where} evicts keys when memory is short (maxmemory-policy {policy}), which would"
                    " lose rows silently: set maxmemory-policy noeviction",
                    fatal=True,
                )
            )
        if info.get("aof_enabled") == "0":
            findings.append(
                Finding(
                    f"{where} keeps no append-only file: a restart goes back to its last snapshot, or to"
                    " nothing, and the worker replays the log from there: set appendonly yes",
                    fatal=False,
                )
            )
        return findings

    def owner(self) -> Owner | None:
        with self._client.session() as session:
            header = self._header(session)
        return header.owner if header else None

    def take(self, token: str, expected: Owner | None) -> Owner:
        with self._client.session() as session:
            header = self._watch(session, expected, self._keys.building)
            owner = Owner(token, header.owner.sequence if header else 0)
            generation = header.generation if header else uuid.uuid4().hex
            commands = self._doom_commands(session)
            commands.append(self._header_command(owner, generation))
            self._execute(session, commands)
        self._drop_doomed()
        return owner

    def commit(self, owner: Owner, changes: StoreChanges, *, gently: bool = False) -> None:
        packing.require_size(changes)
        with self._client.session() as session:
            header = self._watch(session, owner._replace(sequence=owner.sequence - 1))
            if header is None:
                raise StoreConflictError(None)
            writes = Writes(self._keys, header.generation)
            writes.add(changes)
            require_hashes(session, writes.touched)
            last = self._header_command(owner, header.generation, packing.pack_meta(changes.meta))
            self._execute(session, [*writes.commands, last], gently=gently)

    def rewrite(self, owner: Owner, expected: Owner | None, batches: Iterable[StoreChanges]) -> None:
        generation = uuid.uuid4().hex
        self._begin_rewrite(generation, expected)
        self._report(RewriteStep.BEGUN)
        try:
            meta = None
            for batch in batches:
                packing.require_size(batch)
                self._write_batch(generation, batch)
                self._report(RewriteStep.BATCH_WRITTEN)
                meta = batch.meta
            if meta is None:
                raise StoreError("a rewrite without a batch has no meta: give at least one")
            self._report(RewriteStep.ALL_WRITTEN)
            self._switch(generation, owner, expected, meta)
        except StoreConflictError:
            with self._client.session() as session:
                session.call("SMOVE", self._keys.building, self._keys.doomed, generation)
            self._drop_doomed()
            raise
        self._report(RewriteStep.SWITCHED)
        self._drop_doomed(lambda: self._report(RewriteStep.PARTLY_DROPPED))
        self._report(RewriteStep.DROPPED)

    def meta(self) -> Meta | None:
        with self._client.session() as session:
            return self._meta(session)

    def ids(self) -> Iterator[tuple[list[str], NDArray[np.int32]]]:
        for fields, values in self._scan("ids"):
            try:
                yield [name.decode() for name in fields], packing.unpack_fields(values, 1).reshape(-1)
            except UnicodeDecodeError as error:
                raise StoreFormatError(
                    "a stored id is not text: another program writes into this graph"
                ) from error

    def features(self) -> Iterator[StoredRows]:
        return self._rows("features")

    def vectors(self) -> Iterator[StoredRows]:
        return self._rows("vectors")

    def raw(self) -> Iterator[StoredRaw]:
        meta = self.meta()
        width = meta.raw_features if meta else 0
        for fields, values in self._scan("raw") if width else ():
            yield packing.unpack_raw(packing.unpack_fields(fields, 1).reshape(-1), values, width)

    def arcs(self) -> Iterator[StoredArcs]:
        for fields, values in self._scan("arcs"):
            yield packing.unpack_chunks(packing.unpack_fields(fields, 2), values)

    def lookup(self, ids: list[str]) -> dict[str, NDArray[np.float32]]:
        found: dict[str, NDArray[np.float32]] = {}
        with self._client.session() as session:
            for start in range(0, len(ids), LOOKUP):
                found |= self._lookup(session, ids[start : start + LOOKUP])
        return found

    def lease(self) -> LeaseInfo | None:
        with self._client.session() as session:
            held, left = session.batch([("GET", self._keys.lease), ("PTTL", self._keys.lease)])
        if held is None or left <= 0:
            return None
        token, state = unpack_lease(held)
        return LeaseInfo(token, state, left / 1000)

    def hold(self, token: str, state: str, ttl: float) -> bool:
        data = msgspec.msgpack.encode((token, state))
        with self._client.session() as session:
            _, held = session.batch([("WATCH", self._keys.lease), ("GET", self._keys.lease)])
            if held is not None and unpack_lease(held)[0] != token:
                session.call("UNWATCH")
                return False
            write = ("SET", self._keys.lease, data, "PX", max(1, round(ttl * 1000)))
            return session.transaction([write]) is not None

    def release(self, token: str) -> None:
        with self._client.session() as session:
            _, held = session.batch([("WATCH", self._keys.lease), ("GET", self._keys.lease)])
            if held is not None and unpack_lease(held)[0] == token:
                session.transaction([("DEL", self._keys.lease)])
            else:
                session.call("UNWATCH")

    def drop(self) -> None:
        with self._client.session() as session:
            _, generation = session.batch(
                [("WATCH", self._keys.meta, self._keys.building), ("HGET", self._keys.meta, "generation")]
            )
            commands = self._doom_commands(session)
            if generation is not None:
                commands.append(("SADD", self._keys.doomed, generation))
            self._execute(session, [*commands, ("DEL", self._keys.meta, self._keys.lease)])
        self._drop_doomed()

    def close(self) -> None:
        self._client.close()

    # The compare-and-set.

    def _header(self, session: Session) -> _Header | None:
        return self._parse_header(session.call(*self._read_header()))

    def _read_header(self) -> Command:
        return ("HMGET", self._keys.meta, "format", "token", "sequence", "generation")

    def _parse_header(self, reply: list[bytes | None]) -> _Header | None:
        if all(value is None for value in reply):
            return None
        try:
            form, token, sequence, generation = (
                value.decode() if value is not None else "" for value in reply
            )
            if int(form) == FORMAT:
                return _Header(Owner(token, int(sequence)), generation)
        except ValueError:
            raise StoreFormatError(f"{self._keys.meta} in {self._client.name} is not a dgdm graph") from None
        raise StoreFormatError(
            f"graph {self._graph!r} is stored in format {form}, this dgdm reads format {FORMAT}: use the"
            " version that wrote it, or drop the graph and replay"
        )

    def _header_command(self, owner: Owner, generation: str, meta: bytes | None = None) -> Command:
        who = ("token", owner.token, "sequence", owner.sequence)
        what = ("format", FORMAT, "generation", generation, *(("meta", meta) if meta is not None else ()))
        return ("HSET", self._keys.meta, *who, *what)

    def _watch(self, session: Session, expected: Owner | None, *more: str) -> _Header | None:
        """Watch the meta (and `more`), and require its owner to be `expected`."""
        _, reply = session.batch([("WATCH", self._keys.meta, *more), self._read_header()])
        header = self._parse_header(reply)
        if (header.owner if header else None) != expected:
            raise StoreConflictError(header.owner if header else None)
        return header

    def _execute(self, session: Session, commands: list[Command], *, gently: bool = False) -> None:
        if session.transaction(commands, gently=gently) is None:
            header = self._header(session)
            raise StoreConflictError(header.owner if header else None)

    # Rewriting, and what crashed rewrites left.

    def _begin_rewrite(self, generation: str, expected: Owner | None) -> None:
        with self._client.session() as session:
            self._watch(session, expected, self._keys.building)
            commands = self._doom_commands(session)
            self._execute(session, [*commands, ("SADD", self._keys.building, generation)])
        self._drop_doomed()

    def _write_batch(self, generation: str, batch: StoreChanges) -> None:
        writes = Writes(self._keys, generation)
        writes.add(batch)
        with self._client.session() as session:
            for _ in range(_ATTEMPTS):
                self._require_building(session, generation)
                if session.transaction(writes.commands) is not None:
                    return
        raise StoreUnavailableError(
            f"Redis at {self._client.name} is too contended: {_ATTEMPTS} attempts failed"
        )

    def _require_building(self, session: Session, generation: str) -> None:
        """Watch that nobody dooms this generation: a key written after its deletion would stay for ever."""
        name = self._keys.building
        _, mine = session.batch([("WATCH", name), ("SISMEMBER", name, generation)])
        if not mine:
            header = self._header(session)
            raise StoreConflictError(header.owner if header else None)

    def _switch(self, generation: str, owner: Owner, expected: Owner | None, meta: Meta) -> None:
        with self._client.session() as session:
            header = self._watch(session, expected)
            self._require_building(session, generation)
            commands: list[Command] = [self._header_command(owner, generation, packing.pack_meta(meta))]
            commands.append(("SREM", self._keys.building, generation))
            if header is not None:
                commands.append(("SADD", self._keys.doomed, header.generation))
            self._execute(session, commands)

    def _doom_commands(self, session: Session) -> list[Command]:
        names = session.call("SMEMBERS", self._keys.building)
        return [("SMOVE", self._keys.building, self._keys.doomed, name) for name in names]

    def _drop_doomed(self, on_slice: Callable[[], None] | None = None) -> None:
        """Delete doomed generations a few keys at a time: Redis frees each hash in its own thread."""
        with self._client.session() as session:
            for generation in session.call("SMEMBERS", self._keys.doomed):
                register = self._keys.data(generation.decode(), "keys")
                names = [name.decode() for name in session.call("SMEMBERS", register)]
                keys = [self._keys.data(generation.decode(), name) for name in names]
                for start in range(0, len(keys), _KEYS_PER_UNLINK):
                    session.call("UNLINK", *keys[start : start + _KEYS_PER_UNLINK])
                    if on_slice:
                        on_slice()
                session.transaction([("DEL", register), ("SREM", self._keys.doomed, generation)])

    # Reading.

    def _meta(self, session: Session) -> Meta | None:
        reply, data = session.batch([self._read_header(), ("HGET", self._keys.meta, "meta")])
        header = self._parse_header(reply)
        return packing.unpack_meta(data) if header and data is not None else None

    def _rows(self, kind: str) -> Iterator[StoredRows]:
        meta = self.meta()
        for fields, values in self._scan(kind) if meta else ():
            yield packing.unpack_rows(fields, values, meta.features if meta else 0)

    def _scan(self, kind: str) -> Iterator[tuple[list[bytes], list[bytes]]]:
        with self._client.session() as session:
            header = self._header(session)
            if header is None:
                return
            names = names_of(kind, session.call("SMEMBERS", self._keys.data(header.generation, "keys")))
            keys = [self._keys.data(header.generation, name) for name in names]
            yield from scan_hashes(session, keys, SCAN)
            now = self._header(session)
        if now is None or now.generation != header.generation:
            raise StoreConflictError(now.owner if now else None)

    def _lookup(self, session: Session, ids: list[str]) -> dict[str, NDArray[np.float32]]:
        names = [name.encode() for name in ids]
        for _ in range(_ATTEMPTS):
            reply, data = session.batch([self._read_header(), ("HGET", self._keys.meta, "meta")])
            header = self._parse_header(reply)
            if header is None or data is None:
                return {}
            rows = session.batch(
                [
                    ("HGET", self._keys.data(header.generation, f"ids:{id_bucket(name)}"), name)
                    for name in names
                ]
            )
            known = {name: row for name, row in zip(ids, rows, strict=True) if row is not None}
            buckets = [f"vectors:{int.from_bytes(row, 'little') >> 16}" for row in known.values()]
            gets = [
                ("HGET", self._keys.data(header.generation, bucket), row)
                for bucket, row in zip(buckets, known.values(), strict=True)
            ]
            *vectors, after = session.batch([*gets, self._read_header()])
            # A commit in between may have given the row to another id.
            if self._parse_header(after) == header:
                found = [
                    (name, value) for name, value in zip(known, vectors, strict=True) if value is not None
                ]
                width = packing.unpack_meta(data).features
                matrix = packing.unpack_vectors([value for _, value in found], width)
                return {name: vector for (name, _), vector in zip(found, matrix, strict=True)}
        raise StoreUnavailableError(
            f"graph {self._graph!r} changed during each of {_ATTEMPTS} attempts to read it"
        )
