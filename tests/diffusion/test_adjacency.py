"""Slack lists against lists of pairs: any order of operations, hubs, freed memory, checkpoint chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernelgraph import KernelLists
from naive import CHUNK, Lists

HUB = 4_096  # arcs a list has room for when it has an index


def some_change(
    random: np.random.Generator, kernel: KernelLists, twin: Lists, rows: int, targets: int
) -> int:
    """One change on both; the row."""
    u, v = int(random.integers(rows)), int(random.integers(targets))
    w = float(np.float32(10 ** random.uniform(-5, 5)))
    at = twin.find(u, v)
    assert kernel.find(u, v) == at
    if random.integers(300) == 0:
        for side in (kernel, twin):
            side.free(u)
    elif at is None:
        for side in (kernel, twin):
            side.append(u, v, w)
    elif random.integers(2):
        for side in (kernel, twin):
            side.change(u, at, w)
    else:
        for side in (kernel, twin):
            side.drop(u, at)
    return u


def loaded(kernel: KernelLists, twin: Lists, held: int) -> None:
    """So many arcs in row 0 of both."""
    kernel.load([0] * held, range(held), [1.0] * held)
    for v in range(held):
        twin.append(0, v, 1.0)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 8),
    targets=st.sampled_from([3, 40, 400, 3_000]),
    count=st.integers(1, 1_500),
    held=st.sampled_from([0, CHUNK - 2, HUB // 2 - 2]),
)
def test_any_changes_leave_the_same_lists(seed: int, rows: int, targets: int, count: int, held: int) -> None:
    random = np.random.default_rng(seed)
    kernel, twin = KernelLists(rows), Lists()
    loaded(kernel, twin, held)
    for _ in range(count):
        some_change(random, kernel, twin, rows, targets)
    assert kernel.lists == {u: own for u, own in twin.lists.items() if own}
    kernel.check()


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 4),
    targets=st.sampled_from([300, 1_200]),
    held=st.sampled_from([0, CHUNK - 2, HUB // 2 - 2]),
)
def test_a_store_that_hears_of_changed_rows_holds_every_chunk(
    seed: int, rows: int, targets: int, held: int
) -> None:
    random = np.random.default_rng(seed)
    kernel, twin = KernelLists(rows), Lists()
    loaded(kernel, twin, held)
    stored: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for _ in range(6):
        changed = {
            some_change(random, kernel, twin, rows, targets) for _ in range(int(random.integers(1, 1_000)))
        }
        if random.integers(2):
            kernel.compact()
        everything = not stored or random.integers(5) == 0
        if everything:  # the store is empty and every row is written
            stored.clear()
            changed = set(range(rows))
            kernel.g.stored_chunks[:] = 0
        found, freed = kernel.gather(sorted(changed), everything=bool(everything))
        for key in freed:
            del stored[key]  # a chunk that is not stored must not be freed
        stored |= found
        assert stored == twin.chunks()
    assert kernel.gather(range(rows))[1] == set()


def filled(count: int) -> KernelLists:
    """One list, row 0, gathered."""
    kernel = KernelLists(2)
    kernel.load([0] * count, range(count), [1.0] * count)
    kernel.gather([0, 1])
    return kernel


@pytest.mark.parametrize("count", [CHUNK + 1, 3 * CHUNK, 8 * CHUNK])
def test_what_has_not_changed_is_not_written_again(count: int) -> None:
    kernel = filled(count)
    assert kernel.gather([0]) == ({}, set())
    kernel.change(0, CHUNK, 7.0)
    assert list(kernel.gather([0])[0]) == [(0, 1)]
    kernel.drop(0, 0)  # the last one moves into the first chunk
    assert set(kernel.gather([0])[0]) <= {(0, 0), (0, (count - 2) // CHUNK)}


def test_a_list_that_moves_keeps_the_marks_of_its_chunks() -> None:
    kernel = filled(2 * CHUNK)
    kernel.change(0, 3, 5.0)
    kernel.append(0, 10_000, 1.0)  # outgrows its region
    assert list(kernel.gather([0])[0]) == [(0, 0), (0, 2)]


def test_marks_of_a_former_list_are_not_those_of_the_next() -> None:
    kernel = filled(2 * CHUNK)
    kernel.change(0, 3, 5.0)
    kernel.free(0)
    kernel.load([1] * (2 * CHUNK), range(2 * CHUNK), [2.0] * (2 * CHUNK))
    kernel.gather([0, 1])
    kernel.change(1, CHUNK, 3.0)
    assert list(kernel.gather([1])[0]) == [(1, 1)]


@pytest.mark.parametrize("count", [1, 5, CHUNK, HUB, 5_000])
def test_the_memory_of_a_freed_list_is_used_again(count: int) -> None:
    kernel = KernelLists(2)
    for turn in range(50):
        row = turn % 2
        kernel.load([row] * count, range(count), [1.0] * count)
        assert kernel.memory() <= 16 * max(4, count)
        kernel.free(row)
    kernel.check()


def test_loading_finds_room_for_every_arc() -> None:
    random = np.random.default_rng(5)
    kernel, twin = KernelLists(50), Lists()
    pairs = sorted(
        {(int(u), int(v)) for u, v in random.integers(0, 50, (4_000, 2))}, key=lambda _: random.random()
    )
    weights = random.uniform(0.1, 2, len(pairs)).astype(np.float32).tolist()
    for (u, v), w in zip(pairs, weights, strict=True):
        twin.append(u, v, w)
    kernel.load([u for u, _ in pairs], [v for _, v in pairs], weights)
    assert kernel.lists == twin.lists
    kernel.check()
