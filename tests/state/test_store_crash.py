"""Stores whose process is killed: a rewrite at each of its steps, and commits under load."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from stores import changes, contents, written

from dgdm.state.store import GraphStore, Owner, RewriteStep

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
EMPTY: dict[str, dict] = {"ids": {}, "features": {}, "vectors": {}, "arcs": {}, "raw": {}}
FIRST = changes(ids={"a": 0}, features={0: [1, 2, 3]}, vectors={0: [1, 1, 1]}, arcs={(0, 0): {0: 0.5}})
SECOND = changes(ids={"c": 2}, features={2: [7, 8, 9]})


def crasher(store_url: str, *words: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(ROOT / ".path"), str(ROOT / "tests")])
    command = [sys.executable, str(Path(__file__).with_name("crasher.py")), store_url, *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths}
    )


@pytest.mark.parametrize("step", list(RewriteStep))
def test_a_rewrite_killed_at_any_step_leaves_the_old_graph_or_the_new(
    store_url: str, store: GraphStore, step: RewriteStep, count_leftovers: Callable[[], int]
) -> None:
    old = written(store, FIRST)
    before = contents(store)
    with crasher(store_url, "rewrite", step) as process:
        process.communicate()
    assert process.returncode == -signal.SIGKILL

    switched = step in (RewriteStep.SWITCHED, RewriteStep.PARTLY_DROPPED, RewriteStep.DROPPED)
    now = Owner("A", 2) if switched else old
    assert store.owner() == now
    assert contents(store) == ({**EMPTY, "features": {5: [5, 5, 5], 6: [6, 6, 6]}} if switched else before)
    left = {RewriteStep.BATCH_WRITTEN, RewriteStep.ALL_WRITTEN, RewriteStep.SWITCHED}
    assert count_leftovers() > 0 or step not in left
    store.take("B", now)
    assert count_leftovers() == 0


def test_the_next_rewrite_cleans_up_after_a_crashed_one(
    store_url: str, store: GraphStore, count_leftovers: Callable[[], int]
) -> None:
    owner = written(store, FIRST)
    with crasher(store_url, "rewrite", RewriteStep.ALL_WRITTEN) as process:
        process.communicate()
    assert count_leftovers() == 1
    store.rewrite(Owner("A", 2), owner, [SECOND])
    assert count_leftovers() == 0
    assert contents(store)["ids"] == {"c": 2}


def test_a_writer_killed_under_load_has_lost_no_acknowledged_commit(
    store_url: str, store: GraphStore
) -> None:
    with crasher(store_url, "commits") as process:
        assert process.stdout is not None
        acknowledged = 0
        while acknowledged < 20:
            acknowledged = int(process.stdout.readline())
        process.kill()
        whole_lines = process.stdout.read().split("\n")[:-1]
    acknowledged = max([acknowledged, *map(int, whole_lines)])
    owner = store.owner()
    assert owner is not None
    assert owner.sequence >= acknowledged
    meta = store.meta()
    assert meta is not None
    assert meta.event_sequence == owner.sequence
    assert contents(store)["features"] == {row: [owner.sequence] * 3 for row in range(50)}
