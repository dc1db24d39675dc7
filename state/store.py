"""What dgdm asks of a store: one graph's rows, vectors and offsets, changed by one atomic compare-and-set.

Two stores implement it: `state.redis_store` and `state.sqlite_store`. One test suite runs on both.
Every method blocks and is called from a thread. Units are raw everywhere in a store, as on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray


def _no_words() -> NDArray[np.int32]:
    return np.empty((0, 0), np.int32)


def _no_rows() -> NDArray[np.int32]:
    return np.empty(0, np.int32)


FORMAT = 1
"""Version of the layout; a store of another one is refused."""

MAX_COMMIT_BYTES = 512 << 20
"""Most bytes of one `commit` or one batch of a `rewrite`: Redis hangs up on a transaction of 1 GiB."""


class StoreError(Exception):
    """The store cannot do what was asked; the message says what and names the way out."""


class StoreUnavailableError(StoreError):
    """No answer: whether a write took effect is unknown until (token, sequence) is read again."""


class StoreConflictError(StoreError):
    """The compare-and-set failed: stored (token, sequence) is not what the writer expected."""

    def __init__(self, stored: Owner | None) -> None:
        super().__init__(f"the store is at {stored}")
        self.stored = stored


class StoreFormatError(StoreError):
    """The store holds another format, or something that is not a dgdm graph."""


class Finding(NamedTuple):
    """One sentence about the store's settings."""

    message: str
    fatal: bool  # True: refuse to start; False: warn and go on


class RewriteStep(StrEnum):
    """Where a `rewrite` stands; the store reports each to its `on_step`, so a test can crash at every one."""

    BEGUN = "begun"
    BATCH_WRITTEN = "batch-written"
    ALL_WRITTEN = "all-written"
    SWITCHED = "switched"
    PARTLY_DROPPED = "partly-dropped"
    DROPPED = "dropped"


class Owner(NamedTuple):
    """Who writes, and how often it has: what every write compares and sets."""

    token: str
    sequence: int  # checkpoints written since the graph began, by all owners


class LastRecord(NamedTuple):
    """Identity of the last applied event of a partition: tells a log from one that was created again."""

    offset: int
    timestamp: int
    crc32: int  # of key and value


@dataclass(frozen=True, slots=True)
class Meta:
    """Everything about a stored graph that is not a row. Offsets are the next to read."""

    features: int
    directed: bool
    aggregate: str
    partitions: int
    alpha: float
    accuracy: list[float]  # per feature column
    offset: list[float]  # per feature column
    event_sequence: int = 0
    event_offsets: dict[int, int] = field(default_factory=dict)
    output_offsets: dict[int, int] = field(default_factory=dict)
    last_records: dict[int, LastRecord] = field(default_factory=dict)
    owed_tombstones: list[str] = field(default_factory=list)
    nodes: int = 0
    arcs: int = 0
    raw_features: int = 0  # columns that an encoder takes; 0: features are those of the events
    encoders: dict[str, int] = field(default_factory=dict)  # nodes by the digest of who encoded them


@dataclass(frozen=True, slots=True)
class StoreChanges:
    """What one checkpoint writes. Deletions are applied first, so a freed row may be written again."""

    meta: Meta
    freed_ids: list[str]
    freed_rows: NDArray[np.int32]  # [a]: drop features and vector
    freed_chunks: NDArray[np.int32]  # [b, 2]: row, chunk
    ids: list[str]  # [c]
    id_rows: NDArray[np.int32]  # [c]
    feature_rows: NDArray[np.int32]  # [d]
    features: NDArray[np.float32]  # [d, F]
    vector_rows: NDArray[np.int32]  # [e]
    vectors: NDArray[np.float32]  # [e, F]: as last published and acknowledged
    chunks: NDArray[np.int32]  # [f, 2]: row, chunk
    chunk_ends: NDArray[np.int64]  # [f]: end of each chunk in the two columns below
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]
    raw_rows: NDArray[np.int32] = field(default_factory=_no_rows)  # [g]
    raw: NDArray[np.int32] = field(default_factory=_no_words)  # [g, 2 + raw features]: digest, then float32

    @property
    def nbytes(self) -> int:
        """Bytes of fields and values: what a store has to hold in one transaction, keys and framing aside."""
        names = (*self.freed_ids, *self.ids, *self.meta.owed_tombstones)
        rows = (
            self.freed_rows.nbytes + self.id_rows.nbytes + self.feature_rows.nbytes + self.vector_rows.nbytes
        )
        arcs = self.freed_chunks.nbytes + self.chunks.nbytes + self.targets.nbytes + self.weights.nbytes
        raw = self.raw_rows.nbytes + self.raw.nbytes
        return sum(map(len, names)) + rows + arcs + self.features.nbytes + self.vectors.nbytes + raw


class StoredRows(NamedTuple):
    """Rows and their vectors or features, as loaded."""

    rows: NDArray[np.int32]  # [k]
    values: NDArray[np.float32]  # [k, F]


class StoredRaw(NamedTuple):
    """Rows and their raw features, as loaded."""

    rows: NDArray[np.int32]  # [k]
    words: NDArray[np.int32]  # [k, 2 + raw features]: the encoder's digest, then float32


class StoredArcs(NamedTuple):
    """Chunks of arcs, as loaded, in no particular order."""

    chunks: NDArray[np.int32]  # [f, 2]: row, chunk
    chunk_ends: NDArray[np.int64]  # [f]
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]


class LeaseInfo(NamedTuple):
    """Who holds the graph now."""

    token: str
    state: str  # a worker's state: RESTORING, SERVING, …
    remaining: float  # seconds


class GraphStore(Protocol):
    """One graph in one store. Methods may be called from any thread.

    All raise StoreUnavailableError when the store does not answer, and StoreError when it refuses (password,
    permission). The iterators see a moving store if its owner commits meanwhile: compare `owner()` before and
    after. They raise StoreConflictError at their end when the graph was rewritten under them.
    """

    def check(self) -> list[Finding]:
        """Settings that would lose data (an evicting policy, no AOF, …); [] when all is well."""

    def owner(self) -> Owner | None:
        """The stored (token, sequence); None when the graph was never stored. Raises StoreFormatError."""

    def take(self, token: str, expected: Owner | None) -> Owner:
        """Make `token` the owner if the stored owner still is `expected`; the sequence is kept.

        Raises StoreConflictError.
        """

    def commit(self, owner: Owner, changes: StoreChanges, *, gently: bool = False) -> None:
        """Write atomically and set the owner to `owner`, if the stored owner is (token, sequence − 1).

        `gently` leaves the cores to what is served meanwhile: it may take a second longer. Raises
        StoreConflictError; StoreUnavailableError leaves the outcome unknown; StoreError above MAX_COMMIT_BYTES
        (nothing is written; `rewrite` in smaller batches is the way left).
        """

    def rewrite(self, owner: Owner, expected: Owner | None, batches: Iterable[StoreChanges]) -> None:
        """Write the whole graph beside the stored one, switch to it by one compare-and-set, drop the old one.

        The last batch's meta counts. Raises StoreConflictError when the stored owner is not `expected`;
        StoreUnavailableError leaves the outcome unknown. What a crash leaves behind is deleted by the next
        `take` or `rewrite`.
        """

    def meta(self) -> Meta | None:
        """The stored meta; None when no checkpoint was ever written. Raises StoreFormatError."""

    def ids(self) -> Iterator[tuple[list[str], NDArray[np.int32]]]:
        """All ids with their rows, in batches."""

    def features(self) -> Iterator[StoredRows]:
        """All features, in batches."""

    def vectors(self) -> Iterator[StoredRows]:
        """All published vectors, in batches."""

    def raw(self) -> Iterator[StoredRaw]:
        """All raw features, in batches; none without an encoder."""

    def arcs(self) -> Iterator[StoredArcs]:
        """All arcs, in batches."""

    def lookup(self, ids: list[str]) -> dict[str, NDArray[np.float32]]:
        """Vectors by id, as of the last checkpoint: the online store."""

    def lease(self) -> LeaseInfo | None:
        """Who holds the lease now."""

    def hold(self, token: str, state: str, ttl: float) -> bool:
        """Take or renew the lease for `ttl` seconds; False when another token holds it."""

    def release(self, token: str) -> None:
        """Give the lease up if `token` holds it."""

    def drop(self) -> None:
        """Delete everything stored of this graph, lease included."""

    def close(self) -> None:
        """Disconnect."""
