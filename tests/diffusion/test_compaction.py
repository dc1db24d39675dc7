"""Compaction: memory comes back in small steps, lists and what the store holds of them stay as they are."""

from __future__ import annotations

import mmap
import sys

import numpy as np
import pytest
from kernelgraph import KernelLists

from dgdm.diffusion.arrays import DIRTY, MOVED, PENDING
from dgdm.diffusion.compaction import cut_lists

SLAB = 1 << 18  # arcs


def filled(rows: int, length: int, weights: np.ndarray | None = None) -> KernelLists:
    """Lists of the same length."""
    kernel = KernelLists(rows)
    count = rows * length
    values = np.ones(count) if weights is None else weights
    kernel.load(np.repeat(np.arange(rows), length), np.tile(np.arange(length), rows), values)
    return kernel


def settle(kernel: KernelLists, steps: int = 60) -> list[int]:
    """Memory after each step."""
    course = []
    for _ in range(steps):
        kernel.compact()
        course.append(kernel.memory())
    kernel.check()
    return course


@pytest.mark.parametrize("length", [100, 600, 5_000])
def test_after_a_mass_removal_memory_comes_back_slab_by_slab(length: int) -> None:
    random = np.random.default_rng(length)
    rows = 1_200_000 // length
    kernel = filled(rows, length, random.uniform(size=rows * length).astype(np.float32))
    kernel.check()
    full = kernel.memory()
    for u in random.permutation(rows)[: rows * 9 // 10].tolist():
        kernel.free(u)
    lists = kernel.lists
    kernel.check()
    course = settle(kernel, 3 * (rows // 256 + full // SLAB + 1))
    assert kernel.lists == lists
    assert course[-1] <= full / 10 + 2 * SLAB
    steps = [before - after for before, after in zip([full, *course[:-1]], course, strict=True)]
    assert max(steps) <= SLAB, "one slab at most goes back in a step"
    assert min(steps) >= -SLAB // 4, "and little is moved"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere what is given back need not be zero")
def test_lists_of_rows_keep_what_they_hold_and_give_the_rest_back() -> None:
    kernel = KernelLists(100_000)
    g = kernel.g
    lists = {PENDING: g.pending, MOVED: g.moved, DIRTY: g.dirty_rows}
    for size, rows in lists.items():
        rows[:] = 7
        g.sizes[size] = 1_000 + size
    g.work[:] = 7
    cut_lists(g)
    page = mmap.PAGESIZE // 4
    for size, rows in lists.items():
        assert (rows[: 1_000 + size] == 7).all()
        assert not rows[1_000 + size + page : -page].any()
    assert not g.work[:-page].any()


def test_a_slab_that_came_back_holds_nothing() -> None:
    kernel = filled(2, 200_000)
    slabs = {int(kernel.a.offset[u]) >> 18 for u in range(2)}
    for u in range(2):
        kernel.free(u)
    settle(kernel)
    assert kernel.memory() == 0
    for s in slabs:
        assert not kernel.a.words[2 * s * SLAB : 2 * (s + 1) * SLAB].any()
    kernel.load([0] * 300, range(300), [1.0] * 300)
    kernel.check()


def test_a_list_that_lost_most_of_its_arcs_moves_to_a_smaller_region() -> None:
    kernel = filled(1, 5_000)
    kernel.gather([0])
    for i in range(4_999, 199, -1):
        kernel.drop(0, i)
    _, freed = kernel.gather([0])
    assert freed == {(0, c) for c in range(1, 20)}
    before = kernel.lists
    settle(kernel, 3)
    assert kernel.lists == before
    assert kernel.memory() <= 512
    kernel.change(0, 3, 9.0)
    assert kernel.gather([0])[0] == {(0, 0): kernel.lists[0]}
    for i in range(199, -1, -1):
        kernel.drop(0, i)
    settle(kernel, 3)
    assert kernel.memory() == 0


def test_a_list_that_grows_again_is_not_moved_to_and_fro() -> None:
    kernel = filled(1, 1_000)
    settle(kernel, 2)
    region = int(kernel.a.offset[0])
    for length in (600, 1_000, 400, 1_000):
        while (now := len(kernel.lists[0])) != length:
            if now > length:
                kernel.drop(0, now - 1)
            else:
                kernel.append(0, now, 1.0)
        settle(kernel, 2)
        assert int(kernel.a.offset[0]) == region


def test_marks_of_changed_chunks_survive_a_move() -> None:
    rows, length = 300, 1_500  # regions of 4,096 arcs: five slabs
    kernel = filled(rows, length)
    kernel.gather(range(rows))
    for u in range(rows):
        if u % 12:
            kernel.free(u)
    kept = list(range(0, rows, 12))
    offsets = [int(kernel.a.offset[u]) for u in kept]
    kernel.gather(range(rows))
    for u in kept:
        kernel.change(u, 256 * (u // 12 % 5), 3.0)
    settle(kernel)
    assert [int(kernel.a.offset[u]) for u in kept] != offsets
    found, freed = kernel.gather(kept)
    assert set(found) == {(u, u // 12 % 5) for u in kept}
    assert not freed


def test_hubs_that_grow_side_by_side_use_each_others_former_regions() -> None:
    hubs, length = 40, 40_000
    kernel = KernelLists(hubs)
    step = 1_000
    for begin in range(0, length, step):
        kernel.load(
            np.repeat(np.arange(hubs), step),
            np.tile(np.arange(begin, begin + step), hubs),
            np.ones(hubs * step),
        )
    kernel.check()
    regions = hubs * 2 * (1 << 16)
    assert kernel.memory() <= 1.2 * regions + 4 * SLAB
