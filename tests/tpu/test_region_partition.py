"""Regions: every row in one, none too large, few arcs between them."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from dgdm.diffusion.exact import transition
from dgdm.tpu.errors import MissingRuntimeError, ModelError
from dgdm.tpu.partition import PartitionStrategy, cut_weight, given_regions, partition


def random_p(random: np.random.Generator, n: int, arcs: int) -> sparse.csr_array:
    rows, targets = random.integers(0, n, (2, arcs))
    return transition(rows, targets, random.random(arcs) + 0.01, n)


@settings(max_examples=30)
@given(
    n=st.integers(0, 300),
    degree=st.integers(0, 6),
    max_rows=st.integers(1, 120),
    strategy=st.sampled_from(PartitionStrategy),
    seed=st.integers(0, 2**32 - 1),
)
def test_each_row_is_in_one_region(
    n: int, degree: int, max_rows: int, strategy: PartitionStrategy, seed: int
) -> None:
    random = np.random.default_rng(seed)
    p = random_p(random, n, n * degree) if n else sparse.csr_array((0, 0))
    regions = partition(p, max_rows, strategy)
    together = np.concatenate([*regions, np.empty(0, np.int64)])
    assert sorted(together) == list(range(n))
    assert all(0 < len(rows) <= max_rows for rows in regions)
    assert all((np.diff(rows) > 0).all() for rows in regions)


def test_metis_finds_towns_that_a_road_connects() -> None:
    random = np.random.default_rng(5)
    towns, size = 6, 80
    label = random.permutation(np.repeat(np.arange(towns), size))
    rows, targets = random.integers(0, len(label), (2, 40_000))
    near = label[rows] == label[targets]
    rows, targets = (
        np.concatenate([rows[near], rows[~near][:20]]),
        np.concatenate([targets[near], targets[~near][:20]]),
    )
    p = transition(rows, targets, np.ones(len(rows)), len(label))
    regions = partition(p, 90)
    assert len(regions) == towns
    assert all(len(set(label[part])) == 1 for part in regions)
    assert cut_weight(p, regions) < 0.01
    assert cut_weight(p, partition(p, 90, PartitionStrategy.ROWS)) > 0.5
    assert all((a == b).all() for a, b in zip(regions, partition(p, 90), strict=True)), "the same each time"


def test_cut_weight() -> None:
    p = sparse.csr_array(np.array([[0, 0.5, 0.5], [1, 0, 0], [0.25, 0.75, 0]]))
    assert cut_weight(p, [np.array([0, 1]), np.array([2])]) == pytest.approx(1.5 / 3)
    assert cut_weight(p, [np.array([0, 1])]) == pytest.approx(1.5 / 3)
    assert cut_weight(p, [np.arange(3)]) == 0


def test_without_metis_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymetis", None)
    p = random_p(np.random.default_rng(1), 50, 200)
    with pytest.raises(MissingRuntimeError, match=r"pip install 'graph-diffusion-edge-serving\[tpu\]'.*ROWS"):
        partition(p, 20)
    assert len(partition(p, 50)) == 1, "one region needs no cutting"
    assert len(partition(p, 20, PartitionStrategy.ROWS)) == 3


def test_a_users_own_regions() -> None:
    regions = given_regions([[3, 1, 1], np.array([0])], 5)
    assert [rows.tolist() for rows in regions] == [[1, 3], [0]]


@pytest.mark.parametrize(
    ("regions", "says"),
    [
        ([[]], "region 0 has 0 rows; want 1 to 4"),
        ([[0, 1, 2, 3, 4]], "region 0 has 5 rows; want 1 to 4"),
        ([[0], [9]], "region 1 names rows 9 to 9 of 6"),
        ([[-1]], "region 0 names rows -1 to -1 of 6"),
        ([[0, 1], [1, 2]], "region 1 shares row 1 with another"),
    ],
)
def test_bad_regions_are_named(regions: list[list[int]], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        given_regions(regions, 6, 4)
    with pytest.raises(ModelError, match="regions of at most 0 rows"):
        partition(sparse.csr_array((3, 3)), 0)
