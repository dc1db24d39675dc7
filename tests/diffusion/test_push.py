"""Push against its twin and against exact solutions: one push, conservation, the bound, the invariant, hard graphs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernelgraph import KernelGraph
from kerneltools import (
    ROUNDING,
    WIDTHS,
    apply_both,
    error,
    follow,
    largest_difference,
    must_be_the_same_graph,
    must_keep_the_invariant,
    pair,
    random_ops,
    scale,
    small_integers,
    ten_orders,
)
from naive import Graph, Op

SIDES = [False, True]  # directed


def random_pair(
    seed: int, width: int, rows: int, *, directed: bool, epsilon: float = 1e-3, alpha: float = 0.15
) -> tuple[KernelGraph, Graph, np.random.Generator]:
    """Some hundred operations on few rows."""
    random = np.random.default_rng(seed)
    kernel, twin = pair(width, directed=directed, epsilon=epsilon, alpha=alpha)
    weight = ten_orders if random.integers(2) else small_integers
    apply_both(kernel, twin, random_ops(random, twin, int(random.integers(1, 250)), rows, weight))
    return kernel, twin, random


def must_be_solved(kernel: KernelGraph, twin: Graph) -> None:
    """Nothing pending, R maintained = R recomputed, ‖H* − H‖∞ ≤ ‖R‖∞/α, and no row above ε by the definition."""
    assert kernel.pending() == {}
    must_keep_the_invariant(kernel)
    follow(kernel, twin)
    rounding = ROUNDING * scale(twin)
    assert largest_difference(kernel, twin) <= rounding
    norm = max([0.0, *(float(np.abs(r).max()) for r in twin.r.values())])
    assert norm <= kernel.epsilon + rounding
    assert error(kernel, twin) <= norm / kernel.alpha * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize("directed", SIDES)
@given(seed=st.integers(0, 2**32 - 1), width=st.sampled_from(WIDTHS), rows=st.integers(1, 20))
def test_one_push_is_the_push_of_the_twin(directed: bool, seed: int, width: int, rows: int) -> None:
    kernel, twin, random = random_pair(seed, width, rows, directed=directed)
    follow(kernel, twin)
    for u in random.choice(sorted(twin.x), 3).tolist() if twin.x else []:
        before = kernel.counter("pushes"), kernel.counter("arc_updates"), kernel.counter("visited")
        kernel.push_row(u)
        twin.push_row(u)
        degree = len(twin.columns()[u])
        after = kernel.counter("pushes"), kernel.counter("arc_updates"), kernel.counter("visited")
        assert [b - a for a, b in zip(before, after, strict=True)] == [1, degree, degree]
        for t in twin.x:
            np.testing.assert_allclose(kernel.h(t), twin.h[t], atol=ROUNDING * scale(twin))
            np.testing.assert_allclose(kernel.r(t), twin.r[t], atol=ROUNDING * scale(twin))
        assert u in kernel.moved()


@pytest.mark.parametrize("directed", SIDES)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.sampled_from(WIDTHS),
    rows=st.integers(1, 20),
    epsilon=st.sampled_from([1e-1, 1e-3, 2e-5]),
    alpha=st.sampled_from([0.05, 0.15, 0.7, 1.0]),
)
def test_push_solves_within_the_bound(
    directed: bool, seed: int, width: int, rows: int, epsilon: float, alpha: float
) -> None:
    kernel, twin, random = random_pair(seed, width, rows, directed=directed, epsilon=epsilon, alpha=alpha)
    assert kernel.push() == 0
    must_be_solved(kernel, twin)
    for _ in range(3):  # and again from there
        apply_both(kernel, twin, random_ops(random, twin, int(random.integers(1, 40)), rows))
        assert kernel.push() == 0
        must_be_solved(kernel, twin)
    must_be_the_same_graph(kernel, twin)


@pytest.mark.parametrize("directed", SIDES)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 20))
def test_push_and_its_twin_end_within_twice_the_bound(directed: bool, seed: int, rows: int) -> None:
    kernel, twin, _ = random_pair(seed, 3, rows, directed=directed)
    kernel.push()
    twin.push(kernel.epsilon)
    apart = max([0.0, *(float(np.abs(kernel.h(u) - twin.h[u]).max()) for u in twin.x)])
    assert apart <= 2 * kernel.epsilon / kernel.alpha + ROUNDING * scale(twin) / kernel.alpha


@pytest.mark.parametrize("directed", SIDES)
@given(seed=st.integers(0, 2**32 - 1), width=st.sampled_from([1, 3, 32]), budget=st.integers(0, 60))
def test_a_spent_budget_loses_nothing(directed: bool, seed: int, width: int, budget: int) -> None:
    kernel, twin, _ = random_pair(seed, width, 15, directed=directed, epsilon=1e-4)
    exact = twin.exact()
    turns = 0
    while True:
        spent = kernel.counter("arc_updates")
        left = kernel.push(budget)
        turns += 1
        assert left == len(kernel.pending())
        must_keep_the_invariant(kernel)
        top = max([0.0, *(float(np.abs(kernel.r(u)).max()) for u in kernel.pending())])
        assert kernel.max_pending() == np.float32(top)
        follow(kernel, twin)
        assert largest_difference(kernel, twin) <= ROUNDING * scale(twin)
        # H* = H + (I − (1−α)P)⁻¹ R: what is not yet in H is in R
        whole = twin.stacked(twin.h) + twin.resolvent() @ twin.stacked(twin.r)
        np.testing.assert_allclose(whole, exact, atol=1e-9)
        if not left:
            break
        row = max((len(own) for own in twin.columns().values()), default=0)
        assert kernel.counter("arc_updates") - spent >= budget
        assert kernel.counter("arc_updates") - spent < budget + row + 1
        if budget == 0:
            budget = 7
    must_be_solved(kernel, twin)


@pytest.mark.parametrize("directed", SIDES)
@pytest.mark.parametrize("inward", SIDES)
def test_a_star(directed: bool, inward: bool) -> None:
    leaves = 400
    kernel, twin = pair(2, directed=directed)
    random = np.random.default_rng(1)
    apply_both(
        kernel, twin, [Op("add", u, x=random.normal(size=2).astype(np.float32)) for u in range(leaves + 1)]
    )
    arcs = [(v, 0) if inward else (0, v) for v in range(1, leaves + 1)]
    apply_both(kernel, twin, [Op("set", u, v, small_integers(random)) for u, v in arcs])
    kernel.push()
    must_be_solved(kernel, twin)
    apply_both(kernel, twin, [Op("unset", *arcs[i]) for i in range(0, leaves, 3)])
    apply_both(kernel, twin, [Op("features", 0, x=np.ones(2, np.float32))])
    kernel.push()
    must_be_solved(kernel, twin)
    apply_both(kernel, twin, [Op("remove", 0)])
    kernel.push()
    must_be_solved(kernel, twin)
    assert twin.arcs == 0


@pytest.mark.parametrize("loop", [0.5, 1.0, 1e6])
def test_a_row_that_almost_only_knows_itself_is_pushed_once(loop: float) -> None:
    kernel, twin = pair(1, directed=True)
    apply_both(kernel, twin, [Op("add", 0, x=np.ones(1, np.float32)), Op("add", 1)])
    apply_both(kernel, twin, [Op("set", 0, 0, loop), Op("set", 0, 1, 1.0)])
    kernel.push()
    must_be_solved(kernel, twin)
    assert kernel.counter("pushes") <= 2


def test_absorbing_rows_follow_their_features() -> None:
    kernel, twin = pair(3, directed=False)
    x = np.array([1.0, -2.0, 0.5], np.float32)
    apply_both(kernel, twin, [Op("add", 0), Op("features", 0, x=x)])
    kernel.push()
    np.testing.assert_allclose(kernel.h(0), x, rtol=1e-6)


@pytest.mark.parametrize("directed", SIDES)
def test_a_heavy_edge_between_pushes(directed: bool) -> None:
    random = np.random.default_rng(3)
    kernel, twin = pair(4, directed=directed, epsilon=2e-5)
    apply_both(kernel, twin, random_ops(random, twin, 300, 12, small_integers))
    u, v = sorted(twin.x)[:2]
    for w in (1e8, 1e-8, 3e20):
        weight = float(np.float32(w))
        apply_both(kernel, twin, [Op("set", u, v, weight)])
        kernel.push()
        must_be_solved(kernel, twin)
        apply_both(kernel, twin, [Op("unset", u, v)])
        kernel.push()
        must_be_solved(kernel, twin)


@pytest.mark.parametrize("directed", SIDES)
@pytest.mark.parametrize("size", [1.0, 400.0, 1e6])
def test_the_float32_floor_can_be_kept(directed: bool, size: float) -> None:
    """Accuracy 2.5e-5·max|X| (DESIGN §2.2 d): push ends, and the error is within it."""
    random = np.random.default_rng(int(size))
    accuracy = 2.5e-5 * size
    kernel, twin = pair(4, directed=directed, epsilon=0.98 * 0.15 * accuracy / 2)
    for _ in range(20):
        ops = random_ops(random, twin, 30, 25, small_integers)
        sized = [
            op
            if op.x is None
            else op._replace(x=np.clip(op.x / 3, -1, 1).astype(np.float32) * np.float32(size))
            for op in ops
        ]
        apply_both(kernel, twin, sized)
        assert kernel.push(10_000_000) == 0
    follow(kernel, twin)
    must_keep_the_invariant(kernel)
    assert error(kernel, twin) <= accuracy / 2


def test_push_meets_the_fixed_point_of_a_large_sparse_graph() -> None:
    from scipy import sparse
    from scipy.sparse import linalg

    n, degree, width, alpha, epsilon = 3_000, 5, 8, 0.15, 1e-4
    random = np.random.default_rng(2)
    kernel = KernelGraph(width, alpha, epsilon, directed=True, room=n)
    x = random.normal(size=(n, width)).astype(np.float32)
    kernel.run([Op("add", u, x=x[u]) for u in range(n)])
    pairs = sorted(set(map(tuple, random.integers(0, n, (n * degree, 2)).tolist())))
    weights = random.uniform(0.1, 5, len(pairs)).astype(np.float32)
    kernel.run([Op("set", u, v, float(w)) for (u, v), w in zip(pairs, weights, strict=True)])
    assert kernel.push() == 0
    at = np.array(pairs)
    matrix = sparse.csr_array((weights.astype(np.float64), (at[:, 0], at[:, 1])), shape=(n, n))
    total = matrix.sum(axis=1)
    alone = (total == 0).astype(np.float64)
    p = sparse.diags_array(1 / np.where(total == 0, 1, total)) @ matrix + sparse.diags_array(alone)
    exact = linalg.splu((sparse.eye_array(n) - (1 - alpha) * p).tocsc()).solve(alpha * x.astype(np.float64))
    held = np.array([kernel.h(u) for u in range(n)])
    assert np.abs(exact - held).max() <= epsilon / alpha


def test_work_is_counted_where_it_is_done() -> None:
    """A change in one of many components visits that one alone."""
    kernel, twin = pair(1, directed=False)
    apply_both(kernel, twin, [Op("add", u, x=np.full(1, u % 7, np.float32)) for u in range(300)])
    apply_both(kernel, twin, [Op("set", u, u + 1, 1.0) for u in range(300) if u % 3 < 2])
    kernel.push()
    before = {u: kernel.h(u) for u in twin.x}
    visited = kernel.counter("visited")
    apply_both(kernel, twin, [Op("features", 30, x=np.full(1, 9.0, np.float32))])
    kernel.push()
    assert {u for u in twin.x if (kernel.h(u) != before[u]).any()} <= {30, 31, 32}
    assert kernel.counter("visited") - visited < 200
