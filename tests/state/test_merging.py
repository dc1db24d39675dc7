"""Parts of a checkpoint as one, against a store that is given them one after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphtools import Replica, feed, graph_of
from hypothesis import given
from hypothesis import strategies as st
from stores import changes, some_meta

from dgdm.schemas.events import AddEdge, AddNode, GraphEvent, RemoveEdge, RemoveNode
from dgdm.state.collecting import collect
from dgdm.state.merging import merged
from dgdm.state.store import StoreChanges

META = some_meta(raw_features=1)
ROWS = st.integers(0, 4)
CHUNKS = st.tuples(ROWS, st.integers(0, 2))
VALUES = st.lists(st.integers(-9, 9).map(float), min_size=3, max_size=3)


def applied(found: dict[str, dict[Any, Any]], part: StoreChanges) -> None:
    """As a store does it: deletions first."""
    for name in part.freed_ids:
        found["ids"].pop(name, None)
    for row in part.freed_rows.tolist():
        for kind in ("features", "vectors", "raw"):
            found[kind].pop(row, None)
    for row, chunk in part.freed_chunks.tolist():
        found["arcs"].pop((row, chunk), None)
    found["ids"].update(zip(part.ids, part.id_rows.tolist(), strict=True))
    found["features"].update(zip(part.feature_rows.tolist(), part.features.tolist(), strict=True))
    found["vectors"].update(zip(part.vector_rows.tolist(), part.vectors.tolist(), strict=True))
    found["raw"].update(zip(part.raw_rows.tolist(), part.raw.tolist(), strict=True))
    begin = 0
    for (row, chunk), end in zip(part.chunks.tolist(), part.chunk_ends.tolist(), strict=True):
        found["arcs"][row, chunk] = part.targets[begin:end].tolist(), part.weights[begin:end].tolist()
        begin = end


def nothing() -> dict[str, dict[Any, Any]]:
    """An empty store."""
    return {kind: {} for kind in ("ids", "features", "vectors", "raw", "arcs")}


@st.composite
def parts_of_ids(draw: st.DrawFn) -> list[tuple[list[str], dict[str, int]]]:
    """Deleted and written ids, part by part: one that is there is written again only after it was deleted."""
    there: set[str] = set()
    parts = []
    for _ in range(draw(st.integers(1, 5))):
        freed = draw(st.lists(st.sampled_from("abcd"), unique=True))
        there -= set(freed)
        born = [name for name in draw(st.lists(st.sampled_from("abcd"), unique=True)) if name not in there]
        there |= set(born)
        parts.append((freed, {name: draw(ROWS) for name in born}))
    return parts


@given(ids=parts_of_ids(), data=st.data())
def test_parts_as_one_are_the_parts_one_after_another(
    ids: list[tuple[list[str], dict[str, int]]], data: st.DataObject
) -> None:
    parts = [
        changes(
            some_meta(raw_features=1, event_sequence=number),
            freed_ids=freed,
            ids=born,
            freed_rows=data.draw(st.lists(ROWS, unique=True)),
            freed_chunks=data.draw(st.lists(CHUNKS, unique=True)),
            features=data.draw(st.dictionaries(ROWS, VALUES)),
            vectors=data.draw(st.dictionaries(ROWS, VALUES)),
            arcs=data.draw(
                st.dictionaries(CHUNKS, st.dictionaries(ROWS, st.sampled_from([1.0, 2.0]), min_size=1))
            ),
            raw=data.draw(st.dictionaries(ROWS, st.lists(st.integers(0, 9), min_size=3, max_size=3))),
        )
        for number, (freed, born) in enumerate(ids)
    ]
    former = changes(
        META,
        ids={"a": 0, "e": 1},
        features={row: [7.0] * 3 for row in range(5)},
        vectors={row: [8.0] * 3 for row in range(5)},
        arcs={(row, 0): {9: 9.0} for row in range(5)},
        raw={row: [6] * 3 for row in range(5)},
    )
    one_by_one, at_once = nothing(), nothing()
    for part in (former, *parts):
        applied(one_by_one, part)
    whole = merged(parts)
    for part in (former, whole):
        applied(at_once, part)
    assert at_once == one_by_one
    assert whole.meta == parts[-1].meta
    for keys in (whole.feature_rows, whole.vector_rows, whole.raw_rows, whole.id_rows, whole.chunks):
        assert keys.dtype == np.int32
    for rows in (whole.feature_rows, whole.vector_rows, whole.raw_rows):
        assert len(set(rows.tolist())) == len(rows), "what is overwritten is not written"
    assert len(set(map(tuple, whole.chunks.tolist()))) == len(whole.chunks)


@pytest.mark.parametrize("seed", range(5))
def test_a_graph_gathered_in_parts_is_the_graph(seed: int) -> None:
    random = np.random.default_rng(seed)
    graph = graph_of(directed=bool(seed % 2), aggregate="in")
    replica = Replica(graph)
    found: list[StoreChanges] = []
    stored, whole = nothing(), nothing()
    for turn in range(40):
        names = [str(name) for name in random.integers(0, 30, 12)]
        events: list[GraphEvent] = []
        for a, b in zip(names[::2], names[1::2], strict=True):
            what = random.integers(6)
            if what == 0:
                events.append(RemoveNode(a))
            elif what == 1:
                events.append(RemoveEdge(a, b))
            elif what == 2:
                events.append(AddNode(a, random.normal(size=graph.rules.features).astype(np.float32)))
            else:
                events.append(AddEdge(a, b, float(random.integers(1, 9))))
        feed(graph, events)
        graph.acknowledge(graph.gather(20))
        found.append(collect(graph, replica.meta))
        if turn % 7 == 6 or turn == 39:
            for part in found:
                applied(stored, part)
            applied(whole, merged(found))
            found.clear()
            assert whole == stored
    rows = {graph.row_of(name) for name in whole["ids"]}
    assert whole["ids"] == {name: graph.row_of(name) for name in whole["ids"]}
    assert whole["features"].keys() == rows
    assert len(rows) == graph.nodes
