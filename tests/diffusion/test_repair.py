"""Repairs against the definition of the residual: what an event does to R, on the rows it touches and no other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kerneltools import (
    ROUNDING,
    WIDTHS,
    apply_both,
    follow,
    largest_difference,
    must_be_the_same_graph,
    must_keep_the_invariant,
    pair,
    random_ops,
    scale,
)
from naive import ARCS_CHANGED, FEATURES_CHANGED, Op, theta_form

SIDES = [False, True]  # directed


@pytest.mark.parametrize("directed", SIDES)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.sampled_from(WIDTHS),
    rows=st.integers(1, 25),
    count=st.integers(1, 200),
)
def test_any_operations_leave_the_same_graph_and_its_residuals(
    directed: bool, seed: int, width: int, rows: int, count: int
) -> None:
    random = np.random.default_rng(seed)
    kernel, twin = pair(width, directed=directed)
    while count > 0:
        ops = random_ops(random, twin, min(count, int(random.integers(1, 30))), rows)
        count -= len(ops)
        apply_both(kernel, twin, ops)
        if random.integers(3) == 0:
            kernel.compact()
        must_be_the_same_graph(kernel, twin)
        assert kernel.dirty() == {u: bits for u, bits in twin.dirty.items() if bits}
        assert kernel.moved() >= twin.moved & set(twin.x)
        for u in twin.x:
            np.testing.assert_array_equal(kernel.h(u), twin.h[u])
        must_keep_the_invariant(kernel)
    assert largest_difference(kernel, twin) <= ROUNDING * scale(twin)


@pytest.mark.parametrize("directed", SIDES)
@pytest.mark.parametrize("width", [1, 5, 31, 33, 100, 512])
def test_any_width(directed: bool, width: int) -> None:
    random = np.random.default_rng(width)
    kernel, twin = pair(width, directed=directed)
    apply_both(kernel, twin, random_ops(random, twin, 300, 20))
    kernel.push()
    apply_both(kernel, twin, random_ops(random, twin, 30, 20))
    must_be_the_same_graph(kernel, twin)
    follow(kernel, twin)
    assert largest_difference(kernel, twin) <= ROUNDING * scale(twin)


def star(width: int, leaves: int, *, directed: bool, weight: float = 1.0) -> tuple:
    """Row 0 points at the leaves 1…; vectors are anything, as after some pushes."""
    random = np.random.default_rng(leaves)
    kernel, twin = pair(width, directed=directed)
    ops = [Op("add", u, x=random.normal(size=width).astype(np.float32)) for u in range(leaves + 2)]
    ops += [Op("set", 0, v, weight) for v in range(1, leaves + 1)]
    apply_both(kernel, twin, ops)
    for u in twin.x:
        kernel.set_h(u, random.normal(size=width))
    kernel.rebuild()
    follow(kernel, twin)
    return kernel, twin


@pytest.mark.parametrize("kind", ["set", "grow", "unset"])
@pytest.mark.parametrize("leaves", [2, 3, 10, 300])
@pytest.mark.parametrize("new", [False, True])
def test_the_theta_form_the_kernel_and_the_definition_agree(kind: str, leaves: int, new: bool) -> None:
    kernel, twin = star(4, leaves, directed=True)
    alpha, v = twin.alpha, leaves + 1 if new else leaves
    if new and kind == "unset":
        return
    before = twin.w[0].get(v, 0.0)
    op = Op(kind, 0, v, 2.5)
    x, h, r, total = twin.x[0], twin.h[0], twin.r[0], sum(twin.w[0].values())
    apply_both(kernel, twin, [op])
    rho = alpha * (x - h) + (1 - alpha) * (twin.h[v] - h)
    by_theta = theta_form(r, rho, total, before, twin.w[0].get(v, 0.0), len(twin.w[0]) - (v in twin.w[0]))
    np.testing.assert_allclose(by_theta, twin.residual(0), atol=1e-12)
    np.testing.assert_allclose(kernel.r(0), twin.residual(0), atol=3e-7)


@pytest.mark.parametrize("directed", SIDES)
def test_the_first_arc_and_the_last(directed: bool) -> None:
    kernel, twin = star(3, 1, directed=directed)
    v = 1
    x, h = twin.x[0], twin.h[0]
    rho = twin.alpha * (x - h) + (1 - twin.alpha) * (twin.h[v] - h)
    np.testing.assert_allclose(kernel.r(0), rho, atol=3e-7)
    apply_both(kernel, twin, [Op("unset", 0, 1)])
    np.testing.assert_allclose(kernel.r(0), twin.alpha * (x - h), atol=3e-7)
    apply_both(kernel, twin, [Op("set", 0, 0, 3.0)])
    np.testing.assert_allclose(kernel.r(0), twin.alpha * (x - h), atol=3e-7)
    must_be_the_same_graph(kernel, twin)


@pytest.mark.parametrize("directed", SIDES)
@pytest.mark.parametrize("heavy", [1e3, 1e8, 1e20])
def test_a_heavy_edge_that_comes_and_goes_leaves_no_error(directed: bool, heavy: float) -> None:
    kernel, twin = star(8, 40, directed=directed)
    w = float(np.float32(heavy))
    for _ in range(3):
        apply_both(kernel, twin, [Op("set", 0, 7, w)])
        apply_both(kernel, twin, [Op("set", 0, 9, 1.5), Op("unset", 0, 3), Op("set", 0, 3, 1.0)])
        apply_both(kernel, twin, [Op("unset", 0, 7), Op("set", 0, 7, 1.0)])
        must_be_the_same_graph(kernel, twin)
        assert largest_difference(kernel, twin) <= 1e-6


@pytest.mark.parametrize("directed", SIDES)
def test_a_heavy_edge_that_goes_with_its_node(directed: bool) -> None:
    kernel, twin = star(8, 40, directed=directed)
    apply_both(kernel, twin, [Op("set", 0, 7, 1e8), Op("remove", 7)])
    must_be_the_same_graph(kernel, twin)
    assert largest_difference(kernel, twin) <= 1e-6


@pytest.mark.parametrize("directed", SIDES)
@pytest.mark.parametrize("seed", range(3))
def test_a_hub_whose_edges_change_ten_thousand_times_drifts_little(directed: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    kernel, twin = star(2, 300, directed=directed)
    leaves = random.integers(1, 301, 10_000).tolist()
    weights = random.uniform(0.5, 2, 10_000).astype(np.float32).tolist()
    ops = [Op("set", 0, v, w) for v, w in zip(leaves, weights, strict=True)]
    kernel.run(ops)
    for op in ops:
        twin.w[0][op.v] = op.w
    assert float(np.abs(kernel.r(0) - twin.residual(0)).max()) <= 1e-4
    assert kernel.weight_sum(0) == pytest.approx(sum(twin.w[0].values()), rel=1e-9)


def test_only_the_rows_of_an_event_are_touched() -> None:
    kernel, twin = star(4, 30, directed=False)
    before = {u: kernel.r(u) for u in twin.x}
    apply_both(kernel, twin, [Op("set", 0, 5, 9.0), Op("features", 9, x=np.ones(4, np.float32))])
    changed = {u for u in twin.x if (kernel.r(u) != before[u]).any()}
    assert changed == {0, 9}, "the leaf 5 has one neighbour, whatever its weight"


@pytest.mark.parametrize("directed", SIDES)
def test_a_removed_row_is_as_new_when_it_comes_back(directed: bool) -> None:
    kernel, twin = star(3, 20, directed=directed)
    kernel.select_moved(0.0, 100)
    kernel.acknowledge([0], [0], np.ones((1, 3)))
    kernel.mark_unknown(0)
    apply_both(kernel, twin, [Op("set", 0, 0, 2.0), Op("remove", 0), Op("add", 0)])
    must_be_the_same_graph(kernel, twin)
    for part in (kernel.x(0), kernel.h(0), kernel.r(0), kernel.p(0)):
        assert not part.any()
    assert not kernel.is_announced(0)
    assert 0 in kernel.moved()
    assert kernel.generation(0) == 1
    apply_both(kernel, twin, [Op("set", 0, 3, 1.0)])
    must_be_the_same_graph(kernel, twin)
    assert kernel.weight_sum(0) == 1.0


def test_what_changes_nothing_is_told_apart() -> None:
    kernel, twin = star(2, 3, directed=False)
    x = twin.x[1].astype(np.float32)
    ops = [Op("set", 0, 1, 1.0), Op("unset", 1, 2), Op("features", 1, x=x), Op("set", 0, 1, 1e8)]
    ops += [Op("grow", 1, 0, 1.0), Op("grow", 0, 1, 3e38), Op("grow", 0, 1, 3e38), Op("set", 0, 1, 1.0)]
    outcomes = kernel.run(ops)
    assert outcomes == [twin.apply(op) for op in ops]
    assert outcomes == ["NOTHING"] * 3 + ["APPLIED", "LOST", "APPLIED", "OVERFLOW", "APPLIED"]
    assert largest_difference(kernel, twin) <= 1e-6


def test_what_the_store_must_hear_of() -> None:
    kernel, twin = star(2, 3, directed=True)
    kernel.clean()
    twin.dirty.clear()
    assert kernel.dirty() == {}
    apply_both(
        kernel,
        twin,
        [Op("set", 0, 1, 1.0), Op("set", 2, 1, 1.0), Op("features", 3, x=np.ones(2, np.float32))],
    )
    assert kernel.dirty() == {2: ARCS_CHANGED, 3: FEATURES_CHANGED}
    apply_both(kernel, twin, [Op("remove", 1)])
    assert kernel.dirty() == {
        0: ARCS_CHANGED,
        1: ARCS_CHANGED | FEATURES_CHANGED,
        2: ARCS_CHANGED,
        3: FEATURES_CHANGED,
    }
