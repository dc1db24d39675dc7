"""What only a file can do to a store. These run on SQLite alone: Redis has no file that dgdm opens."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

import pytest
from stores import changes, contents

from dgdm.state import open_store
from dgdm.state.store import Owner, StoreError, StoreFormatError, StoreUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from dgdm.state.store import GraphStore

FIRST = changes(ids={"a": 0}, features={0: [1, 2, 3]})


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("this is not a database, it is a shopping list " * 40)
    store = open_store(f"sqlite:///{tmp_path / 'notes.txt'}", "g")
    with pytest.raises(StoreFormatError, match=r"notes\.txt is not a dgdm store"):
        store.owner()
    store.close()


def test_first_openers_do_not_shut_each_other_out(tmp_path: Path) -> None:
    """They all set the file up; SQLite itself lets only one of them wait."""
    openers = 6
    for turn in range(150):
        stores = [open_store(f"sqlite:///{tmp_path / f'{turn}.db'}", "g") for _ in range(openers)]
        gate = Barrier(openers)

        def ask(store: GraphStore, gate: Barrier = gate) -> object:
            gate.wait()
            return store.lease()

        with ThreadPoolExecutor(openers) as pool:
            assert list(pool.map(ask, stores)) == [None] * openers
        for store in stores:
            store.close()


def test_tables_of_another_program_are_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("CREATE TABLE graphs (name TEXT)")
    db.close()
    store = open_store(f"sqlite:///{tmp_path / 'other.db'}", "g")
    with pytest.raises(StoreFormatError, match="is not a dgdm store"):
        store.owner()
    store.close()


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'none' / 'store.db'}", "g")
    with pytest.raises(StoreError, match="directory must exist"):
        store.owner()
    store.close()


def test_a_locked_file_is_unavailable_for_writing_and_readable(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}", "g", timeout=0.1)
    store.take("A", None)
    store.commit(Owner("A", 1), FIRST)
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="locked"):
        store.commit(Owner("A", 2), FIRST)
    assert contents(store)["features"] == {0: [1, 2, 3]}
    other.close()
    store.commit(Owner("A", 2), FIRST)
    store.close()


def test_a_relative_path_is_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///my%20store.db", "g")
    assert store.owner() is None
    store.close()
    assert (tmp_path / "my store.db").exists()


def test_commits_survive_a_power_cut(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}", "g")
    with store._writer.transaction("IMMEDIATE") as db:  # type: ignore[attr-defined]
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: fsync at every commit
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()
