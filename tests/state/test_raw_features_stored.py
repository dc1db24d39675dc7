"""Raw features in a store: every word comes back, and a store of before has none."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import numpy as np
import pytest
from stores import changes, contents, some_meta, written

from dgdm.state import packing
from dgdm.state.sqlite_store import SqliteStore
from dgdm.state.store import GraphStore, Owner, StoreFormatError

META = some_meta(raw_features=3, encoders={"00": 2})
NAN = 0x7FA00001  # a number that is none, and that arithmetic would change
RAW = {0: [1, -1, 5, 6, NAN], 65536: [2**31 - 1, 0, 0, 0, -(2**31)]}


def test_every_word_comes_back(store: GraphStore) -> None:
    written(store, changes(META, raw=RAW))
    assert contents(store)["raw"] == RAW
    assert store.meta() == META


def test_a_freed_row_loses_its_raw_features_unless_it_is_written_again(store: GraphStore) -> None:
    again = {65536: [0] * 5}
    written(store, changes(META, raw=RAW), changes(META, freed_rows=[0, 65536], raw=again))
    assert contents(store)["raw"] == again


def test_a_rewrite_replaces_them(store: GraphStore) -> None:
    owner = written(store, changes(META, raw=RAW))
    store.rewrite(Owner("A", 2), owner, [changes(META, raw={7: [7] * 5})])
    assert contents(store)["raw"] == {7: [7] * 5}


def test_another_width_than_that_of_the_meta_is_refused(store: GraphStore) -> None:
    wider = some_meta(raw_features=4)
    written(store, changes(META, raw=RAW), changes(wider))
    with pytest.raises(StoreFormatError, match="4 raw features that the graph's meta promises"):
        list(store.raw())


def test_a_meta_of_before_is_one_without_an_encoder() -> None:
    known = msgspec.msgpack.decode(packing.pack_meta(META))
    for name in ("raw_features", "encoders"):
        del known[name]
    old = packing.unpack_meta(msgspec.msgpack.encode(known))
    assert (old.raw_features, old.encoders) == (0, {})


def test_a_file_of_before_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    store = SqliteStore(path, "g")
    owner = written(store, changes(features={0: [1, 2, 3]}))
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE raw")
    db.close()
    store = SqliteStore(path, "g")
    assert contents(store)["features"] == {0: [1, 2, 3]}
    store.commit(owner._replace(sequence=2), changes(META, freed_rows=[0], raw={0: [0] * 5}))
    assert np.array_equal(next(iter(store.raw())).words, [[0] * 5])
    store.close()
