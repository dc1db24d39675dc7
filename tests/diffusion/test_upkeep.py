"""Scrubbing, rebuilding and the publish decision against their twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernelgraph import KernelGraph
from kerneltools import (
    ROUNDING,
    apply_both,
    follow,
    largest_difference,
    must_keep_the_invariant,
    pair,
    random_ops,
    scale,
)
from naive import VECTOR_CHANGED, Graph, Op

SIDES = [False, True]  # directed


def some_pair(seed: int, *, directed: bool, rows: int = 15) -> tuple[KernelGraph, Graph, np.random.Generator]:
    random = np.random.default_rng(seed)
    kernel, twin = pair(3, directed=directed)
    apply_both(kernel, twin, random_ops(random, twin, int(random.integers(20, 200)), rows))
    kernel.push()
    follow(kernel, twin)
    return kernel, twin, random


@pytest.mark.parametrize("directed", SIDES)
@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 6))
def test_the_scrubber_finds_the_drift_and_writes_it_back(directed: bool, seed: int, steps: int) -> None:
    kernel, twin, random = some_pair(seed, directed=directed)
    for u in twin.x:
        damaged = (twin.r[u] + random.normal(size=3) * 10 ** random.uniform(-6, 0)).astype(np.float32)
        twin.r[u] = damaged.astype(np.float64)
        kernel.set_r(u, damaged)
    kernel.set_epsilon(kernel.epsilon)
    scrubbed = kernel.counter("scrubbed")
    found, at = 0, 0
    for _ in range(steps):
        count = int(random.integers(1, 5))
        drift = kernel.scrub(count)
        expected = 0.0
        for _ in range(min(count, kernel.used)):
            at = at + 1 if at + 1 < kernel.used else 0
            if at in twin.x:
                expected = max(expected, twin.scrub(at))
                found += 1
        assert drift == pytest.approx(expected, abs=ROUNDING * scale(twin))
        must_keep_the_invariant(kernel)
    assert kernel.counter("scrubbed") - scrubbed == found
    for u in twin.x:
        np.testing.assert_allclose(kernel.r(u), twin.r[u], atol=ROUNDING * scale(twin))


@pytest.mark.parametrize("directed", SIDES)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_rebuild_asks_the_definition_of_every_row(directed: bool, seed: int) -> None:
    kernel, twin, random = some_pair(seed, directed=directed)
    for u in twin.x:
        kernel.set_h(u, random.normal(size=3))
    kernel.rebuild()
    follow(kernel, twin)
    assert largest_difference(kernel, twin) <= ROUNDING * scale(twin) / 10
    must_keep_the_invariant(kernel)
    for u in twin.x:
        assert kernel.weight_sum(u) == pytest.approx(sum(twin.w[u].values()), rel=1e-12)


def test_a_scrubbed_graph_does_not_drift_away() -> None:
    """Ten thousand events, one row scrubbed in each: R stays what its definition says, to rounding."""
    random = np.random.default_rng(4)
    kernel, twin = pair(2, directed=False)
    apply_both(kernel, twin, random_ops(random, twin, 200, 20))
    largest = 0.0
    for _ in range(500):
        ops = random_ops(random, twin, 20, 20)
        for op in ops:
            apply_both(kernel, twin, [op])
        kernel.push()
        follow(kernel, twin)
        largest = max(largest, largest_difference(kernel, twin) / scale(twin))
        assert kernel.scrub(20) <= ROUNDING * scale(twin)
    assert largest <= ROUNDING


def test_a_smaller_accuracy_wakes_the_rows_between() -> None:
    kernel, twin, _ = some_pair(7, directed=False)
    assert kernel.pending() == {}
    kernel.set_epsilon(1e-6)
    must_keep_the_invariant(kernel)
    assert set(kernel.pending()) == {u for u in twin.x if np.abs(kernel.r(u)).max() > np.float32(1e-6)}
    kernel.push()
    must_keep_the_invariant(kernel)


@pytest.mark.parametrize("directed", SIDES)
@given(seed=st.integers(0, 2**32 - 1), tau=st.sampled_from([0.0, 1e-3, 0.1, 10.0]))
def test_what_is_published_and_acknowledged(directed: bool, seed: int, tau: float) -> None:
    kernel, twin, random = some_pair(seed, directed=directed)
    chosen: list[int] = []  # in flight: one publication at a time
    generations: list[int] = []
    vectors = np.empty((0, 3))
    for _ in range(12):
        apply_both(kernel, twin, random_ops(random, twin, int(random.integers(1, 25)), 15))
        if random.integers(2):
            kernel.push()
        for u in random.choice(sorted(twin.x), 2).tolist() if twin.x and random.integers(3) == 0 else []:
            kernel.mark_unknown(u)
            twin.unknown.add(u)
            twin.moved.add(u)
        follow(kernel, twin)
        twin.moved = kernel.moved()  # what may have moved; that it holds all that did is asked below
        moved = {u for u in twin.x if u not in twin.announced or twin.gap(u) > tau}
        assert moved <= twin.moved | set(chosen)
        gaps = [twin.gap(u) for u in twin.moved & twin.announced & set(twin.x)]
        assert kernel.largest_gap() == np.float32(max([0.0, *gaps]))
        kernel.clean()
        twin.dirty.clear()
        if not chosen:
            limit = int(random.integers(1, 12))
            wanted = twin.wanted(tau)
            chosen = kernel.select_moved(tau, limit)
            assert len(chosen) == len(set(chosen)) == min(limit, len(wanted))
            assert set(chosen) <= wanted
            assert kernel.moved() == wanted - set(chosen)
            vectors = np.array([kernel.h(u) for u in chosen]).reshape(len(chosen), 3)
            generations = [kernel.generation(u) for u in chosen]
        elif random.integers(2):  # the acknowledgement may come when rows have new owners
            kernel.acknowledge(chosen, generations, vectors)
            for u, generation, vector in zip(chosen, generations, vectors, strict=True):
                twin.acknowledge(u, generation, vector)
            chosen = []
        assert kernel.dirty() == {u: bits for u, bits in twin.dirty.items() if bits}
        for u in twin.x:
            assert kernel.is_announced(u) == (u in twin.announced)
            np.testing.assert_array_equal(kernel.p(u), twin.p[u])


def test_rounding_takes_no_vector_further_than_is_allowed_unseen() -> None:
    """ε as small as may be: a sum is rounded by up to an eighth of it. Rows go up by little more than ε each time."""
    random = np.random.default_rng(2)
    rows, largest = 3_000, 1.2
    epsilon = 4 * float(np.finfo(np.float32).eps) * largest
    tau = 7 * epsilon
    kernel = KernelGraph(1, 0.15, epsilon, directed=True)
    x = random.uniform(1.0, 1.1, rows).astype(np.float32)
    kernel.run([Op("add", u, x=x[u : u + 1]) for u in range(rows)])
    kernel.run([Op("set", u, 0, 1.0) for u in range(1, rows)])
    kernel.push()
    for _ in range(20):
        chosen = kernel.select_moved(tau, rows)
        vectors = np.array([kernel.h(u) for u in chosen]).reshape(len(chosen), 1)
        kernel.acknowledge(chosen, [kernel.generation(u) for u in chosen], vectors)
        x[1:] += (epsilon * random.uniform(1.2, 1.6, rows - 1) / 0.15).astype(np.float32)
        kernel.run([Op("features", u, x=x[u : u + 1]) for u in range(1, rows)])
        kernel.push()
        unseen = set(range(rows)) - kernel.moved()
        assert all(abs(kernel.h(u) - kernel.p(u)).max() <= tau for u in unseen)
    assert x.max() < largest


def test_an_acknowledgement_does_not_reach_the_next_owner_of_a_row() -> None:
    kernel, twin = pair(1, directed=False)
    one = np.ones(1, np.float32)
    apply_both(kernel, twin, [Op("add", 0, x=one)])
    assert kernel.select_moved(0.0, 5) == [0]
    apply_both(kernel, twin, [Op("remove", 0), Op("add", 0)])
    kernel.clean()
    kernel.acknowledge([0], [0], np.ones((1, 1)))
    assert not kernel.is_announced(0)
    assert not kernel.p(0).any()
    assert kernel.dirty() == {}
    kernel.acknowledge([0], [1], np.ones((1, 1)))
    assert kernel.is_announced(0)
    assert kernel.dirty() == {0: VECTOR_CHANGED}
