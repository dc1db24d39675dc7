"""Any sequence of commits and rewrites leaves in a store what it leaves in a dict."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import changes, contents, some_meta

from dgdm.state import open_store
from dgdm.state.store import Owner, StoreConflictError

# Around the ends of Redis' buckets, and few, so that they meet again and again.
ROWS = st.sampled_from([0, 1, 2, 65535, 65536, 2**31 - 1])
NAMES = st.sampled_from(["a", "b", "c", "\x00", "é"])
CHUNKS = st.tuples(ROWS, st.integers(0, 2))
FLOATS = st.floats(width=32, allow_nan=False)
WORDS = st.integers(-(2**31), 2**31 - 1)  # a digest of two, one raw feature
VECTORS = st.lists(FLOATS, min_size=3, max_size=3)
ARCS = st.dictionaries(ROWS, FLOATS, max_size=3)


@dataclass
class Step:
    """One commit, or one rewrite, as plain data."""

    rewrite: bool
    stale: bool  # by a writer whose sequence is behind
    freed_ids: list[str]
    freed_rows: list[int]
    freed_chunks: list[tuple[int, int]]
    ids: dict[str, int]
    features: dict[int, list[float]]
    vectors: dict[int, list[float]]
    arcs: dict[tuple[int, int], dict[int, float]]
    raw: dict[int, list[int]]

    def arguments(self) -> dict:
        return {name: value for name, value in vars(self).items() if name not in ("rewrite", "stale")}


STEPS = st.builds(
    Step,
    st.integers(0, 5).map(lambda number: number == 0),
    st.integers(0, 5).map(lambda number: number == 0),
    st.lists(NAMES, max_size=3),
    st.lists(ROWS, max_size=3),
    st.lists(CHUNKS, max_size=3),
    st.dictionaries(NAMES, ROWS, max_size=3),
    st.dictionaries(ROWS, VECTORS, max_size=3),
    st.dictionaries(ROWS, VECTORS, max_size=3),
    st.dictionaries(CHUNKS, ARCS, max_size=3),
    st.dictionaries(ROWS, st.lists(WORDS, min_size=3, max_size=3), max_size=3),
)


@dataclass
class Twin:
    """The same promises on dicts."""

    ids: dict = field(default_factory=dict)
    features: dict = field(default_factory=dict)
    vectors: dict = field(default_factory=dict)
    arcs: dict = field(default_factory=dict)
    raw: dict = field(default_factory=dict)

    def apply(self, step: Step) -> None:
        if step.rewrite:
            self.__init__()  # type: ignore[misc]
        for name in step.freed_ids:
            self.ids.pop(name, None)
        for row in step.freed_rows:
            self.features.pop(row, None)
            self.vectors.pop(row, None)
            self.raw.pop(row, None)
        for chunk in step.freed_chunks:
            self.arcs.pop(chunk, None)
        self.ids |= step.ids
        self.features |= step.features
        self.vectors |= step.vectors
        self.arcs |= step.arcs
        self.raw |= step.raw

    def lookup(self) -> dict[str, list[float]]:
        return {name: self.vectors[row] for name, row in self.ids.items() if row in self.vectors}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=8))
def test_a_store_equals_its_twin(store_url: str, steps: list[Step]) -> None:
    store = open_store(store_url, "twin")
    try:
        store.drop()
        owner = store.take("A", None)
        twin = Twin()
        for number, step in enumerate(steps, 1):
            batch = changes(some_meta(event_sequence=number, raw_features=1), **step.arguments())
            after = Owner("A", owner.sequence + (0 if step.stale else 1))
            if step.stale:
                with pytest.raises(StoreConflictError):
                    store.commit(after, batch)
                continue
            if step.rewrite:
                store.rewrite(after, owner, [batch])
            else:
                store.commit(after, batch)
            owner = after
            twin.apply(copy.deepcopy(step))
            meta = store.meta()
            assert meta is not None
            assert meta.event_sequence == number
        assert store.owner() == owner
        assert contents(store) == vars(twin)
        found = store.lookup(["a", "b", "c", "\x00", "é"])
        assert {name: vector.tolist() for name, vector in found.items()} == twin.lookup()
    finally:
        store.close()
