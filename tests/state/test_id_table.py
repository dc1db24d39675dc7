"""The id table against a dict: any order of ids that come, go and come back, through every growth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgdm.state import id_table
from dgdm.state.id_table import FREE, LOST, NOBODY, TEXT, USED, IdTable

IDS = st.lists(
    st.text(min_size=1, max_size=12).filter(lambda name: name.isprintable()),
    min_size=1,
    max_size=40,
    unique=True,
)


def take(table: IdTable, name: str) -> tuple[IdTable, int]:
    """As a batch does: grow until there is room, then take a row."""
    raw = np.frombuffer(name.encode(), np.uint8)
    if id_table.rows_left(table) < 1:
        table = id_table.grown_rows(table, 2 * len(table.place))
    if id_table.text_left(table) < len(raw):
        table = id_table.grown_text(table, len(raw))
    return table, id_table.enter_new(table, raw, 0, len(raw))


def require_equal(table: IdTable, twin: dict[str, int]) -> None:
    rows = np.array(list(twin.values()), np.int32)
    assert id_table.ids_of(table, rows) == list(twin)
    assert id_table.rows_of(table, list(twin)).tolist() == rows.tolist()
    assert table.counts[USED] - table.counts[FREE] == len(twin)
    free = table.free[: table.counts[FREE]].tolist()
    assert sorted([*free, *twin.values()]) == list(range(table.counts[USED])), "every row used once"
    assert table.counts[TEXT] - table.counts[LOST] == sum(len(name.encode()) for name in twin)
    assert int((table.slot != NOBODY).sum()) == len(twin)


@pytest.mark.parametrize("key", [None, 0], ids=["usual", "every id collides"])
@given(names=IDS, data=st.data())
def test_ids_that_come_and_go(names: list[str], data: Any, key: int | None) -> None:
    table = id_table.new_table(2, 4)
    if key is not None:
        table.key[0] = key
    twin: dict[str, int] = {}
    for number in data.draw(st.lists(st.integers(0, len(names) - 1), max_size=80)):
        name = names[number]
        if name in twin:
            id_table.give_row(table, twin.pop(name))
        else:
            table, twin[name] = take(table, name)
        assert (id_table.find_id(table, name) == NOBODY) == (name not in twin)
    require_equal(table, twin)


def test_a_freed_row_is_used_again_before_a_new_one() -> None:
    table = id_table.new_table(8, 64)
    for name in "abc":
        table, _ = take(table, name)
    id_table.give_row(table, 1)
    assert take(table, "d")[1] == 1
    assert take(table, "e")[1] == 3


def test_bytes_of_ids_that_went_are_given_up_when_room_is_short() -> None:
    table = id_table.new_table(8, 32)
    for turn in range(1_000):
        table, row = take(table, f"some-id-{turn}")
        id_table.give_row(table, row)
    assert len(table.text) < 200


@given(names=IDS, data=st.data())
def test_loading_takes_ids_on_their_rows_and_finds_the_gaps(names: list[str], data: Any) -> None:
    rows = data.draw(st.lists(st.integers(0, 100), min_size=len(names), max_size=len(names), unique=True))
    half = len(names) // 2
    table = id_table.new_table(2, 4)
    for part in (slice(None, half), slice(half, None)):
        table = id_table.add_ids(table, names[part], np.array(rows[part], np.int32))
    id_table.free_gaps(table)
    require_equal(table, dict(zip(names, rows, strict=True)))
    free = table.free[: table.counts[FREE]].tolist()
    assert free == sorted(free, reverse=True), "the lowest is used first"


@pytest.mark.parametrize(
    ("names", "rows"),
    [(["a", "a"], [0, 1]), (["a", "b"], [1, 1]), (["a"], [-1])],
    ids=["id", "row", "negative"],
)
def test_what_is_there_twice_is_refused(names: list[str], rows: list[int]) -> None:
    with pytest.raises(ValueError, match=r"twice|none"):
        id_table.add_ids(id_table.new_table(8, 64), names, np.array(rows, np.int32))
