"""The graph in memory: records in, publications and checkpoint changes out. It belongs to one thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..diffusion.arrays import ARCS, COUNTERS, DIRTY, MOVED, PENDING, allocate, grow_arcs, grow_rows
from ..diffusion.blocks import Settler
from ..diffusion.compaction import compact
from ..diffusion.local import APPLIED, find_arc, push
from ..diffusion.upkeep import acknowledge, largest_gap, max_pending, move_all, scrub, select_moved
from ..schemas.events import decode_event
from ..schemas.reasons import InvalidEvent
from .applying import (
    FIRST_BORN,
    NO_WANT,
    REFUSED,
    SECOND_BORN,
    WANT_ROWS,
    WANT_TEXT,
    Batch,
    Terms,
    apply_events,
    find_rows,
    new_batch,
)
from .columns import REMOVE_NODE, Columns, columns_of, text_of
from .deadline import Deadline
from .encoding import Encoded, follow
from .id_table import FREE, NOBODY, USED, find_id, grown_rows, grown_text, ids_of, new_table, rows_of
from .raw_features import RawFeatures
from .refusals import refusal
from .rules import Rules

FIRST_ROWS, FIRST_TEXT = 64, 4096  # room of an empty graph: rows, bytes of ids
NO_LIMIT = 1 << 62
ARC_BUDGET = 500_000  # arc updates between two looks at the clock
SCRUBBED_ROWS = 8  # per batch
HEADROOM = 0.98  # of ε: what it leaves is for rounding and drift, so that the bound stays within the accuracy
UNKNOWN, AGAIN = 1, 2  # of a row that is published in any case
AGAIN_ROWS = 2_000  # sent again with one publication, so that what has moved does not wait for long
RECENT = 64  # batches whose drift still counts in the bound
ULP = float(np.finfo(np.float32).eps)
NO_PROMISE = float(np.finfo(np.float32).max)  # a bound that says so, in a number that JSON has


class Applied(NamedTuple):
    """What a batch came to."""

    refused: list[tuple[int, InvalidEvent]]  # places in the batch, ascending
    sequence: int


@dataclass(frozen=True, slots=True)
class Publication:
    """What consumers are to hear; true when acknowledged. Vectors [k, F] and bound are in feature units."""

    ids: list[str]
    rows: NDArray[np.int32]
    generations: NDArray[np.int32]
    vectors: NDArray[np.float32]
    internal: NDArray[np.float32]  # as the arrays held them
    tombstones: list[str]
    complete: bool
    sequence: int
    remade: int
    bound: list[float]
    residual: float  # largest |R|, or ε; in units of the first column
    nodes: int
    arcs: int


class GraphState:
    """One graph and its residuals. A store and a log are none of its business."""

    def __init__(self, rules: Rules, alpha: float) -> None:
        self.rules, self.alpha = rules, alpha
        self.arrays = allocate(FIRST_ROWS, rules.features, rules.directed)
        self.ids = new_table(FIRST_ROWS, FIRST_TEXT)
        self.sequence = 0
        self.remade = 0  # changes of features that no event made
        self.owed_tombstones: dict[str, None] = {}
        self.freed_ids: dict[str, None] = {}  # since the last checkpoint
        self.settler: Settler | None = None
        self.raw: RawFeatures | None = None  # where an encoder makes the features
        self.published = 0
        self.peak = np.zeros(1, np.float32)  # largest |X| ever
        self.drift = 0.0  # largest the scrubber found of late
        self._again = np.empty(0, np.int32)  # rows whose vectors are to be sent again
        self._drifts = [0.0, 0.0]
        self._batches = 0
        self._scrub_at = 0

    @property
    def epsilon(self) -> float:
        """Residuals up to this are left alone; never below what float32 resolves."""
        return max(HEADROOM * self.alpha * float(self.rules.accuracy[0]) / 2, 4 * ULP * float(self.peak[0]))

    @property
    def tau(self) -> float:
        """A vector is published when it moved by more than this."""
        return float(self.rules.accuracy[0]) / 2

    @property
    def floor_active(self) -> bool:
        """Whether float32, not the accuracy asked for, limits the bound."""
        return self.epsilon > self.alpha * float(self.rules.accuracy[0]) / 2

    @property
    def counters(self) -> dict[str, int]:
        """Rows visited, pushes, arc updates, …: locality can be seen."""
        counted = dict(zip(COUNTERS, self.arrays.counters.tolist(), strict=False))
        return counted | {"events": self.sequence, "published": self.published}

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return int(self.ids.counts[USED] - self.ids.counts[FREE])

    @property
    def used(self) -> int:
        """Rows ever used."""
        return int(self.ids.counts[USED])

    @property
    def arcs(self) -> int:
        """How many arcs there are; an undirected edge is two, a self loop one."""
        return int(self.arrays.sizes[ARCS])

    @property
    def dirty_count(self) -> int:
        """Rows the store must hear of."""
        return int(self.arrays.sizes[DIRTY])

    @property
    def moved_count(self) -> int:
        """Rows that await their publish decision."""
        return int(self.arrays.sizes[MOVED])

    @property
    def pending_count(self) -> int:
        """Rows above ε."""
        return int(self.arrays.sizes[PENDING])

    def apply(
        self, values: Sequence[bytes | None], *, push: bool = True, encoded: Encoded | None = None
    ) -> Applied:
        """Apply a batch of records, scrub a few rows, push what woke. What is refused is not in the sequence.

        With an encoder, `encoded` is what it made of the same records.
        """
        columns, refused = columns_of(values) if encoded is None else (encoded.columns, encoded.refused)
        batch = new_batch(len(values), self.rules.features, self.peak)
        self._apply(columns, batch)
        self._follow_tombstones(columns, batch)
        if self.raw is not None and encoded is not None:
            follow(self, self.raw, encoded, batch)
        for i in np.flatnonzero(REFUSED[batch.outcome]).tolist():
            refused.append((i, refusal(int(batch.outcome[i]), decode_event(values[i]), self.rules)))
        self.sequence += len(values) - len(refused)
        if len(values):
            self._scrub()
            compact(self.arrays, self.used)
        if push:
            self.push()
        return Applied(sorted(refused, key=itemgetter(0)), self.sequence)

    def push(self, deadline: Deadline | None = None) -> bool:
        """Settle and push until nothing is pending or the deadline has passed; True when nothing is."""
        if self.settler is not None and self.pending_count:
            self.settler.settle(self.arrays, self.used, self.epsilon)
        while push(self.arrays, self.alpha, self.epsilon, ARC_BUDGET):
            if deadline is not None and deadline.passed:
                return False
        return True

    @property
    def settles_at_once(self) -> bool:
        """Whether a push begins with nothing of former events, and asks no device."""
        return self.settler is None and not self.pending_count

    def bound(self) -> list[float]:
        """What consumers may rely on per column [F], in feature units, once all selected is acknowledged.

        NO_PROMISE while what they hold of some node is unknown and not yet published again.
        """
        g, scale = self.arrays, self.rules.scale
        if (g.unknown[g.moved[: self.moved_count]] == UNKNOWN).any():
            return [NO_PROMISE] * self.rules.features
        residual = self.residual() + self.drift + ULP * float(self.peak[0])
        gap = max(self.tau, float(largest_gap(g)))
        written = ULP / 2 * (np.abs(self.rules.offset) + self.peak[0] / scale)  # vectors travel as float32
        bound: list[float] = ((residual / self.alpha + gap) / scale + written).tolist()
        return bound

    def residual(self) -> float:
        """Largest |R|; ε when all are below."""
        return max(float(max_pending(self.arrays)), self.epsilon)

    @property
    def news(self) -> bool:
        """Whether there is something to publish, or to decide on."""
        return bool(self.moved_count or self.owed_tombstones or len(self._again))

    def gather(self, limit: int) -> Publication:
        """Copy what is to be published, at most `limit` vectors. `complete`: nothing was left behind."""
        self._move_again()
        chosen = np.empty(min(limit, self.moved_count), np.int32)
        rows = chosen[: select_moved(self.arrays, self.tau, limit, chosen)]
        internal = self.arrays.H[rows]
        return Publication(
            ids=ids_of(self.ids, rows),
            rows=rows.copy(),
            generations=self.arrays.generation[rows],
            vectors=self.rules.raw(internal),
            internal=internal,
            tombstones=list(self.owed_tombstones),
            complete=self.moved_count == 0,
            sequence=self.sequence,
            remade=self.remade,
            bound=self.bound(),
            residual=self.residual(),
            nodes=self.nodes,
            arcs=self.arcs,
        )

    def acknowledge(self, publication: Publication) -> None:
        """Consumers hold it now."""
        self.published += len(publication.ids)
        acknowledge(self.arrays, publication.rows, publication.generations, publication.internal)
        for node in publication.tombstones:
            self.owed_tombstones.pop(node, None)

    def mark_unknown(self, ids: Sequence[str]) -> list[str]:
        """What consumers hold of these is unknown: publish them in any case.

        Those that are not in the graph get a tombstone, and are returned.
        """
        rows = rows_of(self.ids, ids)
        absent = [node for node, row in zip(ids, rows.tolist(), strict=True) if row == NOBODY]
        self.owed_tombstones.update(dict.fromkeys(absent))
        known = rows[rows != NOBODY]
        self.arrays.unknown[known] = UNKNOWN
        move_all(self.arrays, known)
        return absent

    def forget_published(self) -> None:
        """Consumers lost everything: publish every vector again."""
        self.arrays.announced[:] = 0
        self.reconsider()

    def send_again(self) -> None:
        """Publish what consumers hold once more, beside what moves: a head makes something else of it now."""
        self._again = self.rows()

    def _move_again(self) -> None:
        """Not while a publication is in flight: its acknowledgement would take it for the second one."""
        if not len(self._again):
            return
        g, rows, self._again = self.arrays, self._again[:AGAIN_ROWS], self._again[AGAIN_ROWS:]
        held = rows[(g.alive[rows] == 1) & (g.announced[rows] == 1) & (g.unknown[rows] == 0)]
        g.unknown[held] = AGAIN
        move_all(g, held)

    def reconsider(self) -> None:
        """Every row awaits its publish decision again: a publication may have been lost on its way."""
        move_all(self.arrays, self.rows())

    def rows(self) -> NDArray[np.int32]:
        """Rows in use, ascending."""
        return np.flatnonzero(self.arrays.alive[: self.used]).astype(np.int32)

    def row_of(self, node: str) -> int | None:
        """The row of a node, or None."""
        row = find_id(self.ids, node)
        return None if row == NOBODY else row

    def weight(self, source: str, target: str) -> float | None:
        """Weight of an edge; None when there is none."""
        s, t = self.row_of(source), self.row_of(target)
        if s is None or t is None:
            return None
        u, v = (t, s) if self._terms().turned else (s, t)
        at = find_arc(self.arrays, u, v)
        return None if at < 0 else float(self.arrays.rows.weight[at])

    def _apply(self, columns: Columns, batch: Batch) -> None:
        find_rows(self.ids, columns, batch)
        at, sure = 0, True
        while True:
            at, want, sure = apply_events(self.arrays, self.ids, columns, batch, self._terms(), at, sure)
            if want == NO_WANT:
                return
            if want == WANT_ROWS:
                rows = 2 * len(self.arrays.alive)
                self.arrays, self.ids = grow_rows(self.arrays, rows), grown_rows(self.ids, rows)
            elif want == WANT_TEXT:
                self.ids = grown_text(self.ids, FIRST_TEXT)
            else:
                self.arrays = grow_arcs(self.arrays)

    def _terms(self) -> Terms:
        rules = self.rules
        return Terms(
            undirected=not rules.directed,
            turned=rules.directed and rules.aggregate == "in",
            create=rules.unknown_nodes == "create",
            max_nodes=NO_LIMIT if rules.max_nodes is None else rules.max_nodes,
            max_edges=NO_LIMIT if rules.max_edges is None else rules.max_edges,
            alpha=self.alpha,
            epsilon=self.epsilon,
            offset=rules.offset,
            scale=rules.scale,
            reach=rules.reach,
            zeros=rules.zeros if self.raw is None else self.raw.zeros,
            zeros_fit=rules.zeros_fit or self.raw is not None,
        )

    def _follow_tombstones(self, columns: Columns, batch: Batch) -> None:
        """In the order of the events: a removal owes consumers a tombstone, a birth takes it back."""
        removals = columns.kind == REMOVE_NODE
        if not (self.owed_tombstones or removals.any()):
            return
        for i in np.flatnonzero(removals | (batch.born > 0)).tolist():
            first = text_of(columns, columns.first[i], columns.first_size[i])
            if removals[i]:
                self.owed_tombstones[first] = None
                if batch.outcome[i] == APPLIED:
                    self.freed_ids[first] = None
            if batch.born[i] & FIRST_BORN:
                self._follow_birth(first)
            if batch.born[i] & SECOND_BORN:
                self._follow_birth(text_of(columns, columns.second[i], columns.second_size[i]))

    def _follow_birth(self, node: str) -> None:
        """Consumers may still hold a vector of its former life."""
        if node not in self.owed_tombstones:
            return
        del self.owed_tombstones[node]
        row = self.row_of(node)
        if row is not None:
            self.arrays.unknown[row] = UNKNOWN

    def _scrub(self) -> None:
        self._batches += 1
        if self._batches % RECENT == 0:
            self._drifts = [self._drifts[1], 0.0]
        used = self.used
        self._scrub_at, drift = scrub(
            self.arrays, self._scrub_at, used, SCRUBBED_ROWS, self.alpha, self.epsilon
        )
        self._drifts[1] = max(self._drifts[1], float(drift))
        self.drift = max(self._drifts)
