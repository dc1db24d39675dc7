"""What every store promises; each test runs on Redis and on SQLite."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from stores import FEATURES, changes, contents, some_meta, written

from dgdm.state import open_store, packing
from dgdm.state.store import (
    GraphStore,
    LastRecord,
    Owner,
    StoreChanges,
    StoreConflictError,
    StoreError,
    StoreFormatError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ROOT = Path(__file__).parents[2]
EMPTY: dict[str, dict] = {"ids": {}, "features": {}, "vectors": {}, "arcs": {}, "raw": {}}
FIRST = changes(
    ids={"a": 0, "b": 1},
    features={0: [1, 2, 3], 1: [4, 5, 6]},
    vectors={0: [1, 1, 1], 1: [2, 2, 2]},
    arcs={(0, 0): {1: 0.5}, (1, 0): {0: 0.5}},
)
SECOND = changes(
    ids={"c": 2},
    features={2: [7, 8, 9]},
    vectors={2: [3, 3, 3]},
    arcs={(2, 0): {0: 2.0}},
)


def test_an_empty_store_holds_nothing(store: GraphStore) -> None:
    assert store.owner() is None
    assert store.meta() is None
    assert store.lease() is None
    assert contents(store) == EMPTY
    assert store.lookup(["a"]) == {}
    assert not any(finding.fatal for finding in store.check())
    store.drop()


def test_taking_keeps_the_sequence_and_writes_no_meta(store: GraphStore) -> None:
    assert store.take("A", None) == Owner("A", 0)
    assert store.meta() is None
    store.commit(Owner("A", 1), FIRST)
    assert store.take("B", Owner("A", 1)) == Owner("B", 1) == store.owner()
    assert store.meta() == FIRST.meta
    assert contents(store)["ids"] == {"a": 0, "b": 1}


@pytest.mark.parametrize("expected", [None, Owner("A", 0), Owner("A", 2), Owner("B", 1)])
def test_taking_what_another_changed_is_a_conflict(store: GraphStore, expected: Owner | None) -> None:
    written(store, FIRST)
    with pytest.raises(StoreConflictError) as conflict:
        store.take("Z", expected)
    assert conflict.value.stored == Owner("A", 1) == store.owner()


def test_of_many_tokens_racing_one_wins(store: GraphStore) -> None:
    before = written(store, FIRST)
    start = threading.Barrier(8)

    def attempt(token: str) -> bool:
        start.wait()
        try:
            store.take(token, before)
        except StoreConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(attempt, [f"T{number}" for number in range(8)]))
    assert wins.count(True) == 1
    assert store.owner() == Owner(f"T{wins.index(True)}", 1)


def test_a_zombie_can_neither_commit_nor_rewrite(
    store: GraphStore, count_leftovers: Callable[[], int]
) -> None:
    zombie = written(store, FIRST)
    store.take("B", zombie)
    before = contents(store)
    later = zombie._replace(sequence=2)
    with pytest.raises(StoreConflictError) as conflict:
        store.commit(later, SECOND)
    assert conflict.value.stored == Owner("B", 1)
    with pytest.raises(StoreConflictError):
        store.rewrite(later, zombie, [SECOND])
    assert contents(store) == before
    assert store.owner() == Owner("B", 1)
    assert count_leftovers() == 0


def test_an_owner_deposed_during_its_rewrite_is_refused(
    store: GraphStore, count_leftovers: Callable[[], int]
) -> None:
    owner = written(store, FIRST)

    def batches() -> Iterator[StoreChanges]:
        yield SECOND
        store.take("B", owner)
        yield SECOND

    before = contents(store)
    with pytest.raises(StoreConflictError):
        store.rewrite(Owner("A", 2), owner, batches())
    assert contents(store) == before
    assert count_leftovers() == 0


def test_a_commit_twice_is_refused_and_tells_that_it_is_there(store: GraphStore) -> None:
    owner = written(store, FIRST, SECOND)
    with pytest.raises(StoreConflictError) as conflict:
        store.commit(owner, SECOND)
    assert conflict.value.stored == owner


def test_a_commit_needs_an_owner_first(store: GraphStore) -> None:
    with pytest.raises(StoreConflictError) as conflict:
        store.commit(Owner("A", 1), FIRST)
    assert conflict.value.stored is None
    assert contents(store) == EMPTY


def test_everything_comes_back_bit_by_bit(store: GraphStore) -> None:
    tiny = float(np.float32(1e-45))
    long = "é" * 128
    ids = {"a": 0, "\x00": 65535, "": 65536, " 1": 2**31 - 1, long: 7, "日本": 131072}
    rows = {row: [float(row % 97), -0.0, tiny] for row in ids.values()}
    arcs = {(0, 0): {1: tiny, 2**31 - 1: 2.0**126}, (0, 1): {3: 1.0}, (65536, 70000): {0: 2.0}, (5, 0): {}}
    meta = some_meta(
        directed=True,
        aggregate="out",
        event_sequence=2**60,
        event_offsets={0: 5, 7: 2**62},
        output_offsets={3: 0},
        last_records={0: LastRecord(4, 1_700_000_000_000, 2**32 - 1)},
        owed_tombstones=["x", "\x00y", long],
        nodes=6,
        arcs=3,
    )
    written(store, changes(meta, ids=ids, features=rows, vectors=rows, arcs=arcs))
    found = contents(store)
    assert store.meta() == meta
    assert found["ids"] == ids
    assert found["features"] == found["vectors"] == rows
    assert all(np.signbit(row[1]) for row in found["vectors"].values())
    assert found["arcs"] == arcs
    assert {name: row.tolist() for name, row in store.lookup([*ids, "none"]).items()} == {
        name: rows[row] for name, row in ids.items()
    }


def test_a_freed_row_is_written_again_in_the_same_commit(store: GraphStore) -> None:
    written(
        store,
        FIRST,
        changes(
            freed_ids=["a"],
            freed_rows=[0],
            freed_chunks=[(0, 0), (1, 0)],
            ids={"new": 0},
            features={0: [9, 9, 9]},
            arcs={(0, 0): {0: 3.0}},
        ),
    )
    assert contents(store) == {
        "ids": {"b": 1, "new": 0},
        "features": {0: [9, 9, 9], 1: [4, 5, 6]},
        "vectors": {1: [2, 2, 2]},
        "arcs": {(0, 0): {0: 3.0}},
        "raw": {},
    }
    assert list(store.lookup(["a", "b", "new"])) == ["b"]


def test_freeing_everything_leaves_nothing_and_freeing_nothing_is_allowed(store: GraphStore) -> None:
    freed = {
        "freed_ids": ["a", "b", "none"],
        "freed_rows": [0, 1, 99],
        "freed_chunks": [(0, 0), (1, 0), (9, 9)],
    }
    written(store, FIRST, changes(**freed), changes(**freed))
    assert contents(store) == EMPTY


def test_a_rewrite_replaces_everything(store: GraphStore, count_leftovers: Callable[[], int]) -> None:
    owner = written(store, FIRST)
    last = changes(some_meta(event_sequence=8), features={3: [0, 0, 1]})
    store.rewrite(Owner("A", 5), owner, [SECOND, last])
    assert store.owner() == Owner("A", 5)
    assert store.meta() == last.meta
    assert contents(store)["features"] == {2: [7, 8, 9], 3: [0, 0, 1]}
    assert contents(store)["ids"] == {"c": 2}
    assert count_leftovers() == 0
    store.commit(Owner("A", 6), FIRST)
    assert contents(store)["ids"] == {"a": 0, "b": 1, "c": 2}


def test_an_emptied_store_is_rewritten(store: GraphStore) -> None:
    store.rewrite(Owner("A", 7), None, [FIRST])
    assert store.owner() == Owner("A", 7)
    assert contents(store)["ids"] == {"a": 0, "b": 1}


def test_a_rewrite_without_a_batch_is_refused(store: GraphStore) -> None:
    owner = written(store, FIRST)
    with pytest.raises(StoreError, match="at least one"):
        store.rewrite(Owner("A", 2), owner, [])
    assert store.owner() == owner


def test_of_two_rewriters_the_first_is_refused(store: GraphStore, count_leftovers: Callable[[], int]) -> None:
    owner = written(store, FIRST)

    def batches() -> Iterator[StoreChanges]:
        yield FIRST
        store.rewrite(Owner("A", 2), owner, [SECOND])
        yield FIRST

    with pytest.raises(StoreConflictError):
        store.rewrite(Owner("A", 2), owner, batches())
    assert contents(store)["ids"] == {"c": 2}
    assert count_leftovers() == 0


@pytest.mark.parametrize("kind", ["ids", "features", "vectors", "arcs"])
def test_reading_over_a_rewrite_is_told_so(store: GraphStore, kind: str) -> None:
    owner = written(store, FIRST)
    reading = getattr(store, kind)()
    next(reading)
    store.rewrite(Owner("A", 2), owner, [SECOND])
    with pytest.raises(StoreConflictError):
        list(reading)


def test_a_lookup_never_gives_another_nodes_vector(store: GraphStore) -> None:
    names = ["x", "y"]
    owner = written(store, changes(ids={"x": 0}, vectors={0: [0, 0, 0]}))
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            for name, vector in store.lookup(names).items():
                if vector.tolist() != [float(names.index(name))] * 3:
                    wrong.append((name, vector))

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(1, 150):
        old, new = names[(turn + 1) % 2], names[turn % 2]
        owner = owner._replace(sequence=owner.sequence + 1)
        one = changes(freed_ids=[old], freed_rows=[0], ids={new: 0}, vectors={0: [float(turn % 2)] * 3})
        store.commit(owner, one)
    stop.set()
    reader.join()
    assert wrong == []


def test_many_ids_are_looked_up(store: GraphStore) -> None:
    count = 5003
    ids = {f"n{row}": row for row in range(count)}
    written(store, changes(ids=ids, vectors={row: [row, 0, 0] for row in range(count)}))
    found = store.lookup([*ids, "none"])
    assert {name: int(vector[0]) for name, vector in found.items()} == ids


def test_two_graphs_share_a_store(store_url: str, store: GraphStore) -> None:
    other = open_store(store_url, "h")
    written(store, FIRST)
    written(other, SECOND, token="B")
    assert store.hold("A", "SERVING", 5)
    assert other.hold("B", "SERVING", 5)
    store.drop()
    assert store.owner() is None
    assert store.lease() is None
    assert contents(store) == EMPTY
    assert other.owner() == Owner("B", 1)
    assert contents(other)["ids"] == {"c": 2}
    other.close()


def test_threads_share_a_store(store: GraphStore) -> None:
    written(store, FIRST)
    expected = contents(store)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: contents(store), range(40))) == [expected] * 40


def test_a_closed_store_says_so(store_url: str) -> None:
    store = open_store(store_url, "g")
    store.owner()
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.owner()


def test_too_large_a_commit_writes_nothing(store: GraphStore, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = written(store, FIRST)
    monkeypatch.setattr(packing, "MAX_COMMIT_BYTES", SECOND.nbytes - 1)
    with pytest.raises(StoreError, match="checkpoint earlier"):
        store.commit(Owner("A", 2), SECOND)
    with pytest.raises(StoreError, match="checkpoint earlier"):
        store.rewrite(Owner("A", 2), owner, [SECOND])
    assert store.owner() == owner


def test_another_format_is_refused(store_url: str, store: GraphStore, request: pytest.FixtureRequest) -> None:
    written(store, FIRST)
    if store_url.startswith("sqlite"):
        with sqlite3.connect(store_url.removeprefix("sqlite:///")) as db:
            db.execute("UPDATE graphs SET format = 99")
        db.close()
    else:
        request.getfixturevalue("redis_server").command("HSET", "{dgdm:g}:meta", "format", "99")
    for attempt in (
        store.owner,
        store.meta,
        lambda: store.take("B", Owner("A", 1)),
        lambda: store.commit(Owner("A", 2), SECOND),
        lambda: store.rewrite(Owner("A", 2), Owner("A", 1), [SECOND]),
        lambda: contents(store),
        lambda: store.lookup(["a"]),
    ):
        with pytest.raises(StoreFormatError, match="format 99, this dgdm reads format 1"):
            attempt()
    store.drop()
    assert store.owner() is None


def test_a_large_commit_is_loaded_equal(store: GraphStore) -> None:
    count = 300_000
    random = np.random.default_rng(5)
    rows = random.permutation(count).astype(np.int32)
    lengths = random.integers(0, 5, count)
    total = int(lengths.sum())
    nothing = np.zeros(0, np.int32)
    ids = [f"node-{row}" for row in rows.tolist()]
    sent = StoreChanges(
        meta=some_meta(nodes=count),
        freed_ids=[],
        freed_rows=nothing,
        freed_chunks=nothing.reshape(0, 2),
        ids=ids,
        id_rows=rows,
        feature_rows=rows,
        features=random.random((count, FEATURES), np.float32),
        vector_rows=rows,
        vectors=random.random((count, FEATURES), np.float32),
        chunks=np.stack([rows, rows % 3], axis=1),
        chunk_ends=np.cumsum(lengths),
        targets=random.integers(0, count, total).astype(np.int32),
        weights=random.random(total, np.float32),
    )
    written(store, sent)

    found = {
        name: row for names, numbers in store.ids() for name, row in zip(names, numbers.tolist(), strict=True)
    }
    assert found == dict(zip(ids, rows.tolist(), strict=True))
    for batches, values in ((store.features(), sent.features), (store.vectors(), sent.vectors)):
        loaded = np.full((count, FEATURES), np.nan, np.float32)
        seen = 0
        for batch in batches:
            loaded[batch.rows] = batch.values
            seen += len(batch.rows)
        assert seen == count
        assert np.array_equal(loaded[rows], values)
    assert _arcs(store.arcs()) == _arcs([(sent.chunks, sent.chunk_ends, sent.targets, sent.weights)])


def _arcs(batches: Iterable[tuple]) -> dict[tuple[int, int], bytes]:
    found = {}
    for chunks, ends, targets, weights in batches:
        starts = [0, *ends[:-1].tolist()]
        for (row, chunk), start, end in zip(chunks.tolist(), starts, ends.tolist(), strict=True):
            found[row, chunk] = targets[start:end].tobytes() + weights[start:end].tobytes()
    return found
