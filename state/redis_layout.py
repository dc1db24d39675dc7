"""Where a graph lies in Redis, and the commands that put it there.

    {dgdm:GRAPH}:meta              hash: token, sequence, format, generation, meta
    {dgdm:GRAPH}:lease             token and worker state, with an expiry
    {dgdm:GRAPH}:building          set of key generations that a rewrite is writing now
    {dgdm:GRAPH}:doomed            set of key generations to be deleted
    {dgdm:GRAPH}:GEN:keys          set of the keys below that exist, without their prefix
    {dgdm:GRAPH}:GEN:features:B    hash of rows B·2^16 … : row (4 bytes) → F float32
    {dgdm:GRAPH}:GEN:vectors:B     the same
    {dgdm:GRAPH}:GEN:raw:B         hash of rows: row → encoder's digest (8 bytes), float32 before it
    {dgdm:GRAPH}:GEN:arcs:B        hash: row, chunk (8 bytes) → targets, weights
    {dgdm:GRAPH}:GEN:ids:C         hash of the ids with crc32 ≡ C mod 256: id → row (4 bytes)

The braces keep one graph in one slot of a cluster. A generation is a random word: no two rewriters share one.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from . import packing
from .redis_resp import Spans, joined, spans_of, write_pairs
from .redis_wire import Packed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from .redis_wire import Command, Session
    from .store import StoreChanges

ROW_BITS = 16
"""2^16 rows in a hash: small enough to be freed and re-hashed without a pause."""

ID_BUCKETS = 256
FIELDS = 1000
"""Fields per HSET: Redis' cost per command and its pause are both small here."""


class GraphKeys:
    """The keys of one graph."""

    def __init__(self, graph: str) -> None:
        self._prefix = f"{{dgdm:{graph}}}:"
        self.meta = self._prefix + "meta"
        self.lease = self._prefix + "lease"
        self.building = self._prefix + "building"
        self.doomed = self._prefix + "doomed"

    def data(self, generation: str, name: str) -> str:
        """A key of a generation; `name` is "features:3", or "keys" for the set of names."""
        return f"{self._prefix}{generation}:{name}"


def id_bucket(name: bytes) -> int:
    """The bucket of an id."""
    return zlib.crc32(name) % ID_BUCKETS


class Writes:
    """The commands of one transaction. Deletions stand first, so a freed row may be written again."""

    def __init__(self, keys: GraphKeys, generation: str) -> None:
        self._keys = keys
        self._generation = generation
        self._commands: list[Command] = []
        self._written: set[str] = set()
        self._touched: set[str] = set()

    @property
    def commands(self) -> list[Command]:
        """All commands, and the one that registers the keys."""
        register = ("SADD", self._keys.data(self._generation, "keys"), *sorted(self._written))
        return [*self._commands, register] if self._written else self._commands

    @property
    def touched(self) -> list[str]:
        """The hashes written to or deleted from."""
        return [self._keys.data(self._generation, name) for name in sorted(self._touched)]

    def add(self, changes: StoreChanges) -> None:
        """Everything in `changes` but the meta."""
        ids = [name.encode() for name in changes.ids]
        freed_ids = [name.encode() for name in changes.freed_ids]
        freed = packing.pack_fields(changes.freed_rows)
        self._delete("ids", _id_buckets(freed_ids), freed_ids)
        self._delete("features", changes.freed_rows >> ROW_BITS, freed)
        self._delete("vectors", changes.freed_rows >> ROW_BITS, freed)
        if changes.meta.raw_features:
            self._delete("raw", changes.freed_rows >> ROW_BITS, freed)
        self._delete("arcs", _chunk_buckets(changes.freed_chunks), packing.pack_fields(changes.freed_chunks))
        self._set("ids", _id_buckets(ids), joined(ids), spans_of(_little(changes.id_rows)))
        self._set_rows("features", changes.feature_rows, changes.features)
        self._set_rows("vectors", changes.vector_rows, changes.vectors)
        raw = spans_of(_little(changes.raw))
        self._set("raw", changes.raw_rows >> ROW_BITS, spans_of(_little(changes.raw_rows)), raw)
        words = packing.chunk_words(changes.chunk_ends, changes.targets, changes.weights)
        arcs = Spans(words.view(np.uint8), 8 * changes.chunk_ends)
        self._set("arcs", _chunk_buckets(changes.chunks), spans_of(_little(changes.chunks)), arcs)

    def _set_rows(self, kind: str, rows: NDArray[np.int32], values: NDArray[np.float32]) -> None:
        self._set(kind, rows >> ROW_BITS, spans_of(_little(rows)), spans_of(values.astype("<f4", copy=False)))

    def _set(self, kind: str, buckets: NDArray[np.integer], fields: Spans, values: Spans) -> None:
        order = np.argsort(buckets, kind="stable")
        pairs = write_pairs(order, fields, values)
        body, ends = pairs.text.data, [0, *pairs.ends.tolist()]
        at = 0
        for name, key, members in self._groups(kind, buckets, order):
            count = len(members)
            head = b"*%d\r\n$4\r\nHSET\r\n$%d\r\n%b\r\n" % (2 + 2 * count, len(key.encode()), key.encode())
            self._written.add(name)
            self._commands.append(Packed([head, body[ends[at] : ends[at + count]]], 2 + 2 * count))
            at += count

    def _delete(self, kind: str, buckets: NDArray[np.integer], fields: Sequence[bytes]) -> None:
        for _, key, members in self._groups(kind, buckets, np.argsort(buckets, kind="stable")):
            self._commands.append(("HDEL", key, *(fields[member] for member in members.tolist())))

    def _groups(
        self, kind: str, buckets: NDArray[np.integer], order: NDArray[np.int64]
    ) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
        """(name, key, at most FIELDS members) by bucket, `order` kept: of one field the last wins."""
        cuts = np.flatnonzero(np.diff(buckets[order])) + 1
        for group in np.split(order, cuts) if len(order) else ():
            name = f"{kind}:{buckets[group[0]]}"
            self._touched.add(name)
            for start in range(0, len(group), FIELDS):
                key = self._keys.data(self._generation, name)
                yield name, key, group[start : start + FIELDS]


def _little(numbers: NDArray[np.int32]) -> NDArray[np.int32]:
    return numbers.astype("<i4", copy=False)


def _id_buckets(ids: Sequence[bytes]) -> NDArray[np.integer]:
    return np.fromiter(map(id_bucket, ids), np.int32, len(ids))


def _chunk_buckets(chunks: NDArray[np.int32]) -> NDArray[np.integer]:
    return chunks.reshape(-1, 2)[:, 0] >> ROW_BITS


def scan_hashes(
    session: Session, keys: Iterable[str], count: int
) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Fields and values of hashes in batches, each field once (HSCAN alone may repeat some).

    The next batch is asked for before this one is given: Redis reads while the caller works.
    """
    left = iter(keys)
    key, seen = next(left, None), set[bytes]()
    if key is not None:
        session.ask("HSCAN", key, 0, "COUNT", count)
    while key is not None:
        flat: list[bytes]
        cursor, flat = session.answer()
        done = cursor == b"0"
        key = next(left, None) if done else key
        if key is not None:
            session.ask("HSCAN", key, cursor, "COUNT", count)
        found = dict(zip(flat[0::2], flat[1::2], strict=True))
        if not seen.isdisjoint(found):
            found = {name: value for name, value in found.items() if name not in seen}
        if found:
            yield list(found), list(found.values())
        seen.update(found)
        if done:
            seen.clear()


def names_of(kind: str, names: Iterable[bytes]) -> list[str]:
    """The names of one kind among a generation's keys, by bucket number."""
    mine = [name.decode() for name in names if name.startswith(kind.encode() + b":")]
    return sorted(mine, key=lambda name: int(name.partition(":")[2]))
