"""What nodes had before an encoder made features of it: raw rows, and which model encoded each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..diffusion.arrays import Bytes, Floats, Rows

DIGEST_WORDS = 2
"""A digest of 16 hexadecimal digits, in words of four bytes."""
NO_MODEL = -1


class Answer(Protocol):
    """What one version of a model made of some rows."""

    @property
    def outputs(self) -> Floats:
        """[k, F], in feature units."""

    @property
    def digest(self) -> str:
        """Of the version: 16 hexadecimal digits."""


class Encoder(Protocol):
    """A model of raw features, whose versions may be swapped while it is asked."""

    def run(self, x: Floats, /) -> Answer:
        """x [k, width] → [k, F], all by one version. From any thread."""


class StaleRows(NamedTuple):
    """Rows that another model than the one of now has encoded, as they were when they were looked at."""

    rows: Rows
    raw: Floats  # [k, width]


class RawFeatures:
    """Raw features [capacity, width] by row, and the digest of the model that made X of them.

    X of a row is always the answer of that very model to these raw features. A node without features has raw zeros.
    Belongs to the thread of the graph.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.digests: list[str] = []
        self.current = ""  # digest of the model of now
        self.zeros = np.zeros(0, np.float32)  # [F]: what it makes of zeros, as the arrays hold it
        self._values = np.zeros((0, width), np.float32)
        self._by = np.zeros(0, np.int32)  # place in `digests`
        self._stale: list[Rows] = []  # to be looked at
        self._changed: list[Rows] = []  # since the last checkpoint
        self._noted = 0  # entries of it

    @property
    def stale(self) -> int:
        """Rows that may want to be encoded anew."""
        return sum(map(len, self._stale))

    @property
    def row_bytes(self) -> int:
        """What a row takes in memory."""
        return self._values.itemsize * self.width + self._by.itemsize

    def use(self, digest: str, zeros: Floats, rows: Rows) -> int:
        """The model of now, and what it makes of zeros; how many of `rows`, all that there are, it did not encode."""
        self.current, self.zeros = digest, zeros
        behind = rows[self._by[rows] != self._place(digest)]
        self._stale = [behind] if len(behind) else []
        return len(behind)

    def put(self, rows: Rows, values: Floats, digest: str, capacity: int) -> None:
        """These rows have other raw features [k, width], encoded by that model; of a row given twice the last counts."""
        if len(self._by) < capacity:
            more = capacity - len(self._by)
            self._values = np.concatenate([self._values, np.zeros((more, self.width), np.float32)])
            self._by = np.concatenate([self._by, np.full(more, NO_MODEL, np.int32)])
        self._values[rows] = values
        self.encoded(rows, digest)

    def encoded(self, rows: Rows, digest: str) -> None:
        """That model has encoded these rows."""
        if not len(rows):
            return
        self._by[rows] = self._place(digest)
        self._changed.append(rows)
        self._noted += len(rows)
        if self._noted > 2 * len(self._by):  # the same rows again and again, while the store is away
            self._changed = [np.unique(np.concatenate(self._changed))]
            self._noted = len(self._changed[0])
        if digest != self.current:  # asked before it was swapped
            self._stale.append(rows)

    def take_stale(self, limit: int, alive: Bytes) -> StaleRows:
        """At most so many of the rows that wait; none when none does."""
        while self._stale:
            first, rest = self._stale[0][:limit], self._stale[0][limit:]
            self._stale[:1] = [rest] if len(rest) else []
            rows = first[(alive[first] == 1) & (self._by[first] != self._place(self.current))]
            if len(rows):
                return StaleRows(rows, self._values[rows])
        return StaleRows(np.empty(0, np.int32), np.empty((0, self.width), np.float32))

    def unchanged(self, then: StaleRows, alive: Bytes) -> NDArray[np.bool_]:
        """[k]: which of them have the same raw features still, and another model's X."""
        now = self._values[then.rows].view(np.int32)
        same: NDArray[np.bool_] = (now == then.raw.view(np.int32)).all(axis=1)
        same &= (alive[then.rows] == 1) & (self._by[then.rows] != self._place(self.current))
        return same

    def take_changed(self, alive: Bytes) -> Rows:
        """Rows that the store must hear of, ascending; asked again, only what has changed since."""
        rows: Rows = np.unique(np.concatenate([np.empty(0, np.int32), *self._changed])).astype(np.int32)
        self._changed, self._noted = [], 0
        return np.asarray(rows[alive[rows] == 1])

    def words(self, rows: Rows) -> NDArray[np.int32]:
        """[k, 2 + width] as a store has them: the digest's bytes, then the raw features."""
        digests = np.frombuffer(b"".join(map(bytes.fromhex, self.digests)), "<i4").reshape(-1, DIGEST_WORDS)
        by = digests[self._by[rows]].reshape(-1, DIGEST_WORDS)
        return np.concatenate([by, self._values[rows].view(np.int32)], axis=1)

    def load(self, rows: Rows, words: NDArray[np.int32], capacity: int) -> None:
        """Rows as `words` gave them. Nothing of it is news to the store."""
        digests, place = np.unique(words[:, :DIGEST_WORDS], axis=0, return_inverse=True)
        values = np.ascontiguousarray(words[:, DIGEST_WORDS:]).view(np.float32)
        for number, digest in enumerate(digests):
            mine = np.flatnonzero(place.reshape(-1) == number)
            self.put(rows[mine], values[mine], digest.astype("<i4").tobytes().hex(), capacity)
        self._changed, self._stale, self._noted = [], [], 0

    def counts(self, alive: Bytes) -> dict[str, int]:
        """Nodes by digest: the one of now, and those that are still behind. Looks at all rows."""
        known = min(len(alive), len(self._by))
        by = self._by[:known][alive[:known] == 1]
        counted = np.bincount(by[by != NO_MODEL], minlength=len(self.digests)).tolist()
        pairs = zip(self.digests, counted, strict=False)  # one may be added meanwhile, when a scraper asks
        return {digest: count for digest, count in pairs if count or digest == self.current}

    def _place(self, digest: str) -> int:
        if digest not in self.digests:
            self.digests.append(digest)
        return self.digests.index(digest)
