"""Arrays that grow: in place where addresses are free, piece by piece where they are not; the graph is the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kernelgraph import KernelLists
from kerneltools import (
    apply_both,
    follow,
    largest_difference,
    must_be_the_same_graph,
    must_keep_the_invariant,
    pair,
    random_ops,
    scale,
)

from dgdm.diffusion import arrays, memory

HERE = Path(__file__).resolve()


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_an_array_grows_where_it_is() -> None:
    array = memory.zeros((3, 8), np.float32, 1_000_000)
    array[:] = 7
    grown = memory.longer(array, 900_000)
    assert grown.shape == (900_000, 8)
    assert address(grown) == address(array)
    assert (grown[:3] == 7).all()
    assert not grown[3:100].any()


@pytest.mark.parametrize("free", [True, False])
def test_one_that_must_move_takes_all_with_it_and_leaves_no_second_copy(
    free: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "address_space_is_free", lambda: free)
    monkeypatch.setattr(memory, "PIECE", 1 << 16)
    random = np.random.default_rng(1)
    rows = 50_000
    array = memory.zeros((rows, 8), np.float32, rows)
    array[:] = random.normal(size=array.shape)
    copy = array.copy()
    grown = memory.longer(array, 3 * rows)
    assert address(grown) != address(array)
    np.testing.assert_array_equal(grown[:rows], copy)
    assert not grown[rows:].any()
    pages_of_both_pieces = array.nbytes // (1 << 16)
    assert np.count_nonzero(array) <= pages_of_both_pieces * 4096 // 4


def test_what_is_given_back_is_gone_and_its_neighbours_are_not() -> None:
    array = memory.zeros((100_000,), np.int32, 100_000)
    array[:] = 5
    memory.give_back(array, 1_000, 90_000)
    assert (array[:1_000] == 5).all()
    assert (array[90_000:] == 5).all()
    assert np.count_nonzero(array[1_000:90_000]) <= 2 * 4096 // 4


@pytest.mark.parametrize("directed", [False, True])
def test_a_graph_whose_arrays_move_is_the_same(directed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "address_space_is_free", lambda: False)
    monkeypatch.setattr(arrays, "FIRST_SLABS", 1)
    random = np.random.default_rng(2)
    kernel, twin = pair(3, directed=directed, room=1)
    for rows in (2, 5, 30, 60):
        apply_both(kernel, twin, random_ops(random, twin, 150, rows))
        kernel.push()
        must_be_the_same_graph(kernel, twin)
        must_keep_the_invariant(kernel)
        follow(kernel, twin)
        assert largest_difference(kernel, twin) <= 2e-6 * scale(twin)


def test_a_pool_that_moves_keeps_lists_marks_and_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "address_space_is_free", lambda: False)
    monkeypatch.setattr(arrays, "FIRST_SLABS", 1)
    kernel = KernelLists(3)
    for count in (300, 3_000, 300_000):
        kernel.load([0] * count, range(count), [1.0] * count)
        kernel.gather([0])
        kernel.change(0, 257, 2.0)
        kernel.load([1] * 100, range(count, count + 100), [1.0] * 100)
        assert set(kernel.gather([0])[0]) == {(0, 1)}
        assert [kernel.find(0, v) for v in (0, 257, count - 1, count)] == [0, 257, count - 1, None]
        kernel.check()
        kernel.free(0)
        kernel.free(1)


PROGRAM = """
import hashlib, json, resource, sys
sys.path[:0] = sys.argv[1:3]
if sys.argv[3] == "limited":
    limit = 1_500 << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
import numpy as np
from kernelgraph import KernelGraph
from naive import Op
from dgdm.diffusion.memory import address_space_is_free
random = np.random.default_rng(3)
kernel = KernelGraph(2, 0.15, 1e-3, directed=True, room=1)
digest = hashlib.sha256()
for rows in (10, 1_000, 30_000):
    x = random.normal(size=(rows, 2)).astype(np.float32)
    kernel.run([Op("add", u, x=x[u]) for u in range(kernel.used, rows)])
    arcs = random.integers(0, rows, (2 * rows, 2)).tolist()
    kernel.run([Op("set", u, v, 1.0 + u % 3) for u, v in arcs] + [Op("set", 0, v, 2.0) for v in range(rows)])
    kernel.push()
    kernel.compact()
    for part in (kernel.g.X, kernel.g.H, kernel.g.R):
        digest.update(part[:rows].tobytes())
digest.update(json.dumps(kernel.w()).encode())
print(json.dumps({"free": address_space_is_free(), "digest": digest.hexdigest()}))
"""


def run(limited: str) -> dict[str, object]:
    """What a fresh process makes of a growing graph."""
    tests = HERE.parents[1]
    command = [sys.executable, "-c", PROGRAM, str(tests), str(tests.parent / ".path"), limited]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, "NUMBA_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_limit_on_addresses_changes_nothing_but_how_arrays_grow() -> None:
    free, limited = run("free"), run("limited")
    assert (free["free"], limited["free"]) == (True, False)
    assert free["digest"] == limited["digest"]
