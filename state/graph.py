"""The graph in memory: staged batches in, publications and checkpoint changes out.

`stage` belongs to the loop, everything else to the one kernel thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..diffusion.adjacency import find
from ..diffusion.apply import OVERFLOW, apply
from ..diffusion.arrays import (
    ARCS,
    COUNTERS,
    DIRTY,
    EDGES,
    MOVED,
    NOTHING_DONE,
    PENDING,
    allocate,
    grow_arcs,
    grow_rows,
)
from ..diffusion.push import max_pending, push
from ..diffusion.upkeep import (
    acknowledge,
    largest_gap,
    scrub,
    select_moved,
)
from ..schemas.events import AddEdge, AddNode, GraphEvent, RemoveEdge, RemoveNode, SetFeatures
from ..schemas.reasons import InvalidEvent, Reason
from .deadline import Deadline
from .staging import Rules, Staged, Staging

ARC_BUDGET = 500_000  # arc updates between two looks at the clock
SCRUBBED_ROWS = 8  # per batch
HEADROOM = 0.98  # of ε: what it leaves is for rounding and drift, so that the bound stays within the accuracy
RECENT = 64  # batches whose drift still counts in the bound
ULP = float(np.finfo(np.float32).eps)
NO_PROMISE = float(np.finfo(np.float32).max)  # a bound that says so, in a number that JSON has


@dataclass(frozen=True, slots=True)
class Ran:
    """What running a batch came to."""

    rejected: list[tuple[int, InvalidEvent]]
    sequence: int


@dataclass(frozen=True, slots=True)
class Publication:
    """What consumers are to hear; true when acknowledged. Vectors [k, F] and bound are in feature units."""

    ids: list[str]
    rows: NDArray[np.int32]
    generations: NDArray[np.int64]
    vectors: NDArray[np.float32]
    internal: NDArray[np.float32]  # as the arrays held them
    tombstones: list[str]
    complete: bool
    sequence: int
    bound: list[float]
    residual: float  # largest |R|, or ε; in units of the first column
    nodes: int
    arcs: int


class GraphState:
    """One graph and its residuals."""

    def __init__(self, rules: Rules, alpha: float) -> None:
        self.rules, self.alpha = rules, alpha
        self.staging = Staging(rules)
        self.arrays = allocate(64, rules.features, rules.directed)
        self.row_ids: list[str | None] = []
        self.sequence = 0
        self.owed_tombstones: dict[str, None] = {}
        self.drift = 0.0  # largest the scrubber found of late
        self._drifts = [0.0, 0.0]
        self._batches = 0
        self._scrub_at = 0
        self.peak = 0.0  # max |X| ever
        self.nodes = 0
        self.freed_ids: dict[str, None] = {}
        self.new_ids: dict[str, int] = {}
        self.published = 0
        # Batches and new edges, staged by the loop and run by the kernel thread: each side writes its own.
        self._staged, self._staged_edges = 0, 0
        self._ran, self._ran_edges = 0, 0

    # -- staging view

    def stage(self, events: Sequence[GraphEvent], start: int = 0) -> Staged:
        """Columns for events from `start` on; every batch staged is to be run, in that order.

        `consumed` says how far it came: with max_edges it may end early, and at `start` itself when only an
        exact count will do while another batch is still on its way: run that one first.
        """
        limit = self.rules.max_edges
        ran, on_the_way = self._ran, self._staged_edges - self._ran_edges  # read before the count it adds to
        room = None if limit is None else limit - int(self.arrays.sizes[EDGES]) - on_the_way
        staged = self.staging.stage(events, start, room, self._has_edge if self._staged == ran else None)
        self._staged += 1
        self._staged_edges += staged.edges
        return staged

    def _has_edge(self, source: str, target: str) -> bool:
        return self.weight(source, target) is not None

    # -- kernel view

    @property
    def epsilon(self) -> float:
        """Residuals up to this are left alone; never below what float32 resolves."""
        return max(HEADROOM * self.alpha * float(self.rules.accuracy[0]) / 2, 4 * ULP * self.peak)

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

    def run(self, staged: Staged, *, push: bool = True, deadline: Deadline | None = None) -> Ran:
        """Apply a batch, push what it woke, scrub a few rows. A rejected event is not in the sequence."""
        if staged.rows > len(self.arrays.alive):
            self.arrays = grow_rows(self.arrays, max(staged.rows, 2 * len(self.arrays.alive)))
        rejected = self._apply(staged)
        self._register(staged)
        self.sequence += staged.accepted - len(rejected)
        self.arrays.counters[NOTHING_DONE] += staged.no_ops
        self._ran_edges += staged.edges
        self._ran += 1
        if staged.kind:
            self._scrub()
        if push:
            self.push(deadline)
        return Ran(rejected, self.sequence)

    def push(self, deadline: Deadline | None = None) -> bool:
        """Push until nothing is pending or the deadline has passed; True when nothing is."""
        while push(self.arrays, self.alpha, self.epsilon, ARC_BUDGET):
            if deadline is not None and deadline.passed:
                return False
        return True

    def bound(self) -> list[float]:
        """What consumers may rely on per column [F], in feature units, once all selected is acknowledged.

        NO_PROMISE while what they hold of some node is unknown and not yet published again.
        """
        g, scale = self.arrays, self.rules.scale
        if g.unknown[g.moved[: self.moved_count]].any():
            return [NO_PROMISE] * self.rules.features
        residual = self.residual() + self.drift + ULP * self.peak
        gap = max(self.tau, float(largest_gap(g)))
        written = ULP / 2 * (np.abs(self.rules.offset) + self.peak / scale)  # vectors travel as float32
        bound: list[float] = ((residual / self.alpha + gap) / scale + written).tolist()
        return bound

    def residual(self) -> float:
        """Largest |R|; ε when all are below."""
        return max(float(max_pending(self.arrays)), self.epsilon)

    def gather(self, limit: int) -> Publication:
        """Copy what is to be published, at most `limit` vectors. `complete`: nothing was left behind."""
        chosen = np.empty(min(limit, self.moved_count), np.int32)
        rows = chosen[: select_moved(self.arrays, self.tau, limit, chosen)]
        internal = self.arrays.H[rows]
        ids = [self.row_ids[row] for row in rows.tolist()]
        return Publication(
            ids=[node for node in ids if node is not None],
            rows=rows.copy(),
            generations=self.arrays.generation[rows],
            vectors=self.rules.raw(internal),
            internal=internal,
            tombstones=list(self.owed_tombstones),
            complete=self.moved_count == 0,
            sequence=self.sequence,
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
        absent = []
        for node in ids:
            row = self.staging.rows.get(node)
            if row is None:
                self.owed_tombstones[node] = None
                absent.append(node)
                continue
            self.arrays.unknown[row] = 1
            self.mark_moved(row)
        return absent

    def forget_published(self) -> None:
        """Consumers lost everything: publish every vector again."""
        self.arrays.announced[:] = 0
        self.reconsider()

    def reconsider(self) -> None:
        """Every row awaits its publish decision again: a publication may have been lost on its way."""
        for row, node in enumerate(self.row_ids):
            if node is not None:
                self.mark_moved(row)

    def weight(self, source: str, target: str) -> float | None:
        """Weight of an edge; None when there is none."""
        u, v = (self.staging.rows.get(node) for node in self.staging.arc(source, target))
        if u is None or v is None or max(u, v) >= len(self.arrays.alive):
            return None
        rows, columns = self.arrays.rows, self.arrays.columns
        if columns.length[v] < rows.length[u]:
            at = find(columns, v, u)
            return None if at < 0 else float(columns.weight[at])
        at = find(rows, u, v)
        return None if at < 0 else float(rows.weight[at])

    def _apply(self, staged: Staged) -> list[tuple[int, InvalidEvent]]:
        width = self.rules.features
        features = np.vstack(staged.features) if staged.features else np.empty((0, width), np.float32)
        if staged.features:
            self.peak = max(self.peak, float(np.abs(features).max()))
        columns = (
            np.array(staged.kind, np.uint8),
            np.array(staged.u, np.int32),
            np.array(staged.v, np.int32),
            np.array(staged.w, np.float32),
            np.array(staged.f, np.int32),
            features,
        )
        outcome = np.zeros(len(staged.kind), np.uint8)
        done = 0
        while True:
            done = apply(
                self.arrays, not self.rules.directed, *columns, outcome, done, self.alpha, self.epsilon
            )
            if done == len(outcome):
                break
            self.arrays = grow_arcs(self.arrays)
        overflow = (staged.event[i] for i in np.flatnonzero(outcome == OVERFLOW).tolist())
        message = "the accumulated weight is not finite in float32"
        return [(event, InvalidEvent(Reason.OVERFLOW, message)) for event in overflow]

    def _register(self, staged: Staged) -> None:
        """Births and deaths in their order, now that the arrays have followed."""
        births, deaths = iter(staged.births), iter(staged.deaths)
        self.row_ids.extend([None] * (staged.rows - len(self.row_ids)))
        for is_birth in staged.order:
            if is_birth:
                row, node = next(births)
                self.row_ids[row] = node
                self.new_ids[node] = row
                if node in self.owed_tombstones:  # consumers still hold a vector of its former life
                    del self.owed_tombstones[node]
                    self.arrays.unknown[row] = 1
                self.nodes += 1
                continue
            row, node = next(deaths)
            self.owed_tombstones[node] = None
            if row >= 0:
                self.row_ids[row] = None
                self.freed_ids[node] = None
                self.new_ids.pop(node, None)
                self.nodes -= 1

    def _scrub(self) -> None:
        self._batches += 1
        if self._batches % RECENT == 0:
            self._drifts = [self._drifts[1], 0.0]
        used = len(self.row_ids)
        self._scrub_at, drift = scrub(
            self.arrays, self._scrub_at, used, SCRUBBED_ROWS, self.alpha, self.epsilon
        )
        self._drifts[1] = max(self._drifts[1], float(drift))
        self.drift = max(self._drifts)

    def mark_moved(self, row: int) -> None:
        """The row awaits its publish decision."""
        g = self.arrays
        if g.moved_mark[row] == 0:
            g.moved_mark[row] = 1
            g.moved[g.sizes[MOVED]] = row
            g.sizes[MOVED] += 1


def warm_up(directed: bool) -> None:
    """Compile the kernels an event meets, or load them from the cache."""
    graph = GraphState(Rules(2, np.ones(2), np.zeros(2), directed), 0.15)
    x = np.ones(2, np.float32)
    events: list[GraphEvent] = [AddNode("a", x), AddEdge("a", "b"), AddEdge("a", "a", 2.0, "add")]
    events += [SetFeatures("a", 5 * x), RemoveEdge("a", "a"), RemoveNode("b")]
    graph.run(graph.stage(events))
    graph.acknowledge(graph.gather(1))
    graph.weight("a", "b")
