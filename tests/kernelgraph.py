"""The kernels' arrays behind the interface of `naive`: the one place of the tests that knows the layout."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import opened

from dgdm.diffusion import compaction, local, upkeep
from dgdm.diffusion.arrays import (
    ARCS,
    CLOSED,
    COUNTERS,
    DIRTY,
    EDGES,
    EMPTIED,
    FILLED,
    FREE,
    FRESH,
    HELD,
    HUB,
    LIVE,
    MOVED,
    NEXT,
    OPEN,
    PENDING,
    PREVIOUS,
    SIZE,
    SLAB_BITS,
    SLABS,
    TOUCHED,
    Adjacency,
    GraphArrays,
    allocate,
    grow_arcs,
    grow_rows,
)
from dgdm.diffusion.gather import gather_arcs
from dgdm.diffusion.local import (
    ADD_ARC,
    APPLIED,
    FULL,
    LOST,
    NOTHING,
    OVERFLOW,
    REMOVE_ARC,
    SET_ARC,
)
from dgdm.diffusion.pool import NO_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import naive

ARC_KINDS = {"set": SET_ARC, "grow": ADD_ARC, "unset": REMOVE_ARC}
OUTCOMES = {APPLIED: "APPLIED", NOTHING: "NOTHING", LOST: "LOST", OVERFLOW: "OVERFLOW", FULL: "FULL"}
UNLIMITED = 1 << 60  # arc updates


class KernelGraph:
    """A graph that grows as its operations ask for room."""

    def __init__(self, features: int, alpha: float, epsilon: float, *, directed: bool, room: int = 4) -> None:
        self.features, self.alpha, self.epsilon, self.directed = features, alpha, epsilon, directed
        self.g: GraphArrays = allocate(room, features, directed)
        self.used = 0
        self._scrub_at = 0

    # -- what the kernels do

    def run(self, ops: Sequence[naive.Op]) -> list[str]:
        """Apply a batch without pushing; the outcome of each."""
        self.used = max([self.used, *(op.u + 1 for op in ops if op.kind == "add")])
        if self.used > self.room:
            self.g = grow_rows(self.g, max(self.used, 2 * self.room))
        return [OUTCOMES[self._run(op)] for op in ops]

    def _run(self, op: naive.Op) -> int:
        x = np.zeros(self.features, np.float32) if op.x is None else np.array(op.x, np.float32)
        if op.kind == "add":
            opened.add_row(self.g, op.u, x)
            return APPLIED
        if op.kind == "features":
            return int(opened.set_features(self.g, op.u, x, self.alpha, self.epsilon))
        if op.kind == "remove":
            opened.remove_row(self.g, not self.directed, op.u, self.alpha, self.epsilon)
            return APPLIED
        change = ARC_KINDS[op.kind], op.u, op.v, np.float32(op.w), self.alpha, self.epsilon
        while (outcome := int(opened.change_arc(self.g, not self.directed, *change))) == FULL:
            self.g = grow_arcs(self.g)
        return outcome

    def push(self, budget: int = UNLIMITED) -> int:
        """Pending rows that are left."""
        return int(local.push(self.g, self.alpha, self.epsilon, budget))

    def push_row(self, u: int) -> None:
        """One push, whatever its size."""
        local.push_row(self.g, u, self.alpha, self.epsilon)

    def max_pending(self) -> float:
        """Largest |R|∞ of the pending rows."""
        return float(upkeep.max_pending(self.g))

    def scrub(self, rows: int) -> float:
        """The next few rows; the largest drift."""
        self._scrub_at, drift = upkeep.scrub(
            self.g, self._scrub_at, self.used, rows, self.alpha, self.epsilon
        )
        return float(drift)

    def rebuild(self) -> None:
        """Every row's R from its definition."""
        upkeep.rebuild(self.g, self.used, self.alpha, self.epsilon)

    def set_epsilon(self, epsilon: float) -> None:
        """Another accuracy: who is pending is asked anew."""
        self.epsilon = epsilon
        upkeep.wake_all(self.g, self.used, epsilon)

    def select_moved(self, tau: float, limit: int) -> list[int]:
        """Rows to publish."""
        chosen = np.full(limit, -1, np.int32)
        return chosen[: upkeep.select_moved(self.g, tau, limit, chosen)].tolist()

    def acknowledge(self, rows: Sequence[int], generations: Sequence[int], vectors: np.ndarray) -> None:
        """Consumers hold these [k, F]."""
        internal = np.zeros((len(rows), self.g.H.shape[1]), np.float32)
        internal[:, : self.features] = vectors
        upkeep.acknowledge(
            self.g, np.array(rows, np.int32), np.array(generations, self.g.generation.dtype), internal
        )

    def largest_gap(self) -> float:
        """Of rows that await their decision."""
        return float(upkeep.largest_gap(self.g))

    def compact(self) -> None:
        """One step of compaction."""
        compaction.compact(self.g, self.used)

    def clean(self) -> None:
        """Forget the dirty rows."""
        upkeep.clean(self.g)

    # -- what is in the arrays

    @property
    def room(self) -> int:
        """Rows the arrays have."""
        return len(self.g.alive)

    def alive(self) -> list[int]:
        return np.flatnonzero(self.g.alive).tolist()

    def x(self, u: int) -> np.ndarray:
        return self._part(self.g.X, u)

    def h(self, u: int) -> np.ndarray:
        return self._part(self.g.H, u)

    def r(self, u: int) -> np.ndarray:
        return self._part(self.g.R, u)

    def p(self, u: int) -> np.ndarray:
        return self._part(self.g.P, u)

    def _part(self, part: np.ndarray, u: int) -> np.ndarray:
        """[F] float64; what stands behind the features is 0."""
        assert not part[u, self.features :].any()
        return part[u, : self.features].astype(np.float64)

    def set_r(self, u: int, r: np.ndarray) -> None:
        """Damage R_u, as rounding would, or worse."""
        self.g.R[u, : self.features] = r

    def set_h(self, u: int, h: np.ndarray) -> None:
        """Another start; R is to be rebuilt."""
        self.g.H[u, : self.features] = h

    def mark_unknown(self, u: int) -> None:
        """What consumers hold of u is unknown: it awaits a decision."""
        self.g.unknown[u] = 1
        if self.g.moved_mark[u] == 0:
            self.g.moved_mark[u] = 1
            self.g.moved[self.g.sizes[MOVED]] = u
            self.g.sizes[MOVED] += 1

    def w(self) -> dict[int, dict[int, float]]:
        return {u: dict(listed(self.g.rows, u)) for u in self.alive()}

    def columns(self) -> dict[int, dict[int, float]]:
        return {u: dict(listed(self.g.columns, u)) for u in self.alive()}

    def weight_sum(self, u: int) -> float:
        return float(self.g.weight_sum[u])

    def self_weight(self, u: int) -> float:
        return float(self.g.self_weight[u])

    def is_announced(self, u: int) -> bool:
        return bool(self.g.announced[u])

    def generation(self, u: int) -> int:
        return int(self.g.generation[u])

    def pending(self) -> dict[int, float]:
        """{row: the norm that is kept of it}; marks and list agree."""
        listed_rows = self._listed(self.g.pending, PENDING, self.g.norm)
        return {u: float(self.g.norm[u]) for u in listed_rows}

    def moved(self) -> set[int]:
        """Rows that await a publish decision."""
        return self._listed(self.g.moved, MOVED, self.g.moved_mark)

    def dirty(self) -> dict[int, int]:
        """{row: what the store must hear of it}"""
        return {u: int(self.g.dirty[u]) for u in self._listed(self.g.dirty_rows, DIRTY, self.g.dirty)}

    def _listed(self, rows: np.ndarray, size: int, marks: np.ndarray) -> set[int]:
        found = rows[: self.g.sizes[size]].tolist()
        assert len(found) == len(set(found)), "a row stands there twice"
        assert set(found) == set(np.flatnonzero(marks).tolist()), "marks and list differ"
        return set(found)

    @property
    def arcs(self) -> int:
        return int(self.g.sizes[ARCS])

    @property
    def edges(self) -> int:
        return int(self.g.sizes[EDGES])

    def counter(self, name: str) -> int:
        return int(self.g.counters[COUNTERS.index(name)])

    def check_lists(self) -> None:
        """Both sides hold the same arcs, no list has a target twice, regions do not overlap."""
        w, columns = self.w(), self.columns()
        assert sorted((u, v, x) for u in w for v, x in w[u].items()) == sorted(
            (u, v, x) for v in columns for u, x in columns[v].items()
        )
        check_regions(self.g.rows, self.alive())
        check_regions(self.g.columns, self.alive())


class KernelLists:
    """One side of arcs, in rows below `rows`, behind the interface of `naive.Lists`."""

    def __init__(self, rows: int) -> None:
        self.g = allocate(rows, 1, directed=False)
        self.rows = rows

    @property
    def a(self) -> Adjacency:
        return self.g.rows

    def find(self, u: int, v: int) -> int | None:
        """Place of v in the list of u."""
        at = int(opened.find(self.a, u, v))
        return None if at < 0 else at - int(self.a.offset[u])

    def append(self, u: int, v: int, w: float) -> None:
        """Reserve, growing the pool when it is full, and append."""
        while not opened.reserve(self.a, u):
            self.g = grow_arcs(self.g)
        opened.append(self.a, u, v, np.float32(w))

    def drop(self, u: int, i: int) -> None:
        opened.drop(self.a, u, int(self.a.offset[u]) + i)

    def change(self, u: int, i: int, w: float) -> None:
        at = int(self.a.offset[u]) + i
        self.a.weight[at] = w
        opened.touch(self.a, u, at)

    def free(self, u: int) -> None:
        opened.free(self.a, u)

    def load(self, u: Sequence[int], v: Sequence[int], w: Sequence[float]) -> None:
        """Many arcs at once, as a stored graph is loaded."""
        columns = np.array(u, np.int32), np.array(v, np.int32), np.array(w, np.float32)
        done = 0
        while (done := upkeep.load_arcs(self.a, *columns, done)) < len(u):
            self.g = grow_arcs(self.g)

    def compact(self) -> None:
        """One step."""
        compaction.compact(self.g, self.rows)

    @property
    def lists(self) -> dict[int, list[tuple[int, float]]]:
        return {u: own for u in range(self.rows) if (own := listed(self.a, u))}

    def gather(
        self, rows: Sequence[int], *, everything: bool = False
    ) -> tuple[dict[tuple[int, int], list[tuple[int, float]]], set[tuple[int, int]]]:
        """Changed chunks of these rows, and the chunks they no longer have."""
        chunks, ends, targets, weights, freed = gather_arcs(self.g, np.array(rows, np.int32), everything)
        found, begin = {}, 0
        for (u, c), end in zip(chunks.tolist(), ends.tolist(), strict=True):
            part = slice(begin, end)
            assert (u, c) not in found
            found[u, c] = list(zip(targets[part].tolist(), weights[part].tolist(), strict=True))
            begin = end
        assert begin == len(targets) == len(weights)
        return found, {(u, c) for u, c in freed.tolist()}

    def check(self) -> None:
        """Regions do not overlap."""
        check_regions(self.a, range(self.rows))

    def memory(self) -> int:
        """Arcs for which memory has been touched and not been given back."""
        in_use = self.a.slabs[: self.a.pool[SLABS]]
        return int(in_use[in_use[:, TOUCHED] == 1, FRESH].sum())


def listed(a: Adjacency, u: int) -> list[tuple[int, float]]:
    """The list of u in its order."""
    part = slice(int(a.offset[u]), int(a.offset[u] + a.length[u]))
    own = list(zip(a.target[part].tolist(), a.weight[part].tolist(), strict=True))
    assert len({v for v, _ in own}) == len(own), "a target stands there twice"
    return own


def check_regions(a: Adjacency, rows: Sequence[int]) -> None:
    """What lists own is theirs alone, in a slab for regions of its size; a hub's index knows each arc's place."""
    end, live = 0, Counter[int]()
    for u in sorted((u for u in rows if a.capacity[u]), key=lambda row: int(a.offset[row])):
        offset, capacity, length = int(a.offset[u]), int(a.capacity[u]), int(a.length[u])
        region = 2 * capacity if capacity >= HUB else capacity
        assert length <= capacity
        assert offset >= end, "two lists share memory"
        assert offset % min(region, 1 << SLAB_BITS) == 0
        end = offset + region
        assert 1 << a.slabs[offset >> SLAB_BITS, SIZE] == region
        live[offset >> SLAB_BITS] += 1
        if capacity >= HUB:
            words = a.words[2 * (offset + capacity) : 2 * end]
            assert sorted(words[words >= 0].tolist()) == list(range(length))
            for k in range(offset, offset + length):
                assert opened.find(a, u, int(a.target[k])) == k
    check_slabs(a, live)
    assert a.pool[HELD] == sum(int(a.length[u]) for u in rows)


def check_slabs(a: Adjacency, live: Counter[int]) -> None:
    """Every region of a slab is a list's, free, or fresh; and slabs with a region to give are found by its size."""
    count = int(a.pool[SLABS])
    listed_slabs = set()
    for size in range(SLAB_BITS):
        s, before = int(a.pool[OPEN + size]), -1
        while s >= 0:
            assert a.slabs[s, PREVIOUS] == before
            assert a.slabs[s, SIZE] == size
            assert s not in listed_slabs
            listed_slabs.add(s)
            s, before = int(a.slabs[s, NEXT]), s
    in_use = [s for s in range(count) if a.slabs[s, SIZE] != NO_SIZE]
    assert a.pool[FILLED] == len(in_use)
    touched = [s for s in range(count) if s not in in_use and a.slabs[s, TOUCHED]]
    assert a.pool[EMPTIED] == len(touched)
    for s in in_use:
        size = int(a.slabs[s, SIZE])
        if size >= SLAB_BITS:
            continue
        free, place = 0, int(a.slabs[s, FREE])
        while place >= 0:
            free, place = free + 1, int(a.words[2 * ((s << SLAB_BITS) + place)])
        fresh = ((1 << SLAB_BITS) - int(a.slabs[s, FRESH])) >> size
        assert live[s] == a.slabs[s, LIVE] > 0
        assert live[s] + free + fresh == 1 << (SLAB_BITS - size)
        assert (s in listed_slabs) == (free + fresh > 0 and not a.slabs[s, CLOSED])
