"""Pairs as the kernel packs them against hiredis, a foreign reader of Redis' wire format."""

from __future__ import annotations

import itertools

import hiredis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgdm.state import redis_wire
from dgdm.state.redis_resp import joined, spans_of, write_pairs

SIZES = [0, 1, 9, 10, 11, 99, 100, 101, 999, 1000, 1001, 9999, 10_000, 100_000]


def read(packed: bytes) -> list[bytes]:
    """The byte strings of a whole number of replies."""
    reader = hiredis.Reader()
    reader.feed(packed)
    found = []
    while (reply := reader.gets()) is not False:
        found.append(reply)
    assert not reader.has_data(), "the rest is no whole string"
    return found


@given(pairs=st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=40)), max_size=20), data=st.data())
def test_pairs_of_any_bytes_in_any_order(pairs: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(pairs))))
    fields, values = joined([field for field, _ in pairs]), joined([value for _, value in pairs])
    packed = write_pairs(np.array(order, np.int64), fields, values)
    text = packed.text.tobytes()
    assert read(text) == [part for i in order for part in pairs[i]]
    begin = 0
    for i, end in zip(order, packed.ends.tolist(), strict=True):
        assert read(text[begin:end]) == list(pairs[i])
        begin = end


@pytest.mark.parametrize("size", SIZES)
def test_a_length_has_as_many_digits_as_it_needs(size: int) -> None:
    value = bytes(range(256)) * (size // 256) + bytes(size % 256)
    packed = write_pairs(np.zeros(1, np.int64), joined([b"field"]), joined([value]))
    assert read(packed.text.tobytes()) == [b"field", value]


def test_rows_of_an_array_are_values() -> None:
    rows = np.arange(12, dtype="<f4").reshape(3, 4)
    packed = write_pairs(np.array([2, 0], np.int64), joined([b"a", b"b", b"c"]), spans_of(rows))
    assert read(packed.text.tobytes()) == [b"c", rows[2].tobytes(), b"a", rows[0].tobytes()]


@given(sizes=st.lists(st.integers(0, 200), max_size=40))
def test_what_is_sent_in_pieces_is_the_same(sizes: list[int]) -> None:
    parts = [bytes([i]) * size for i, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis_wire, "PIECE", 64)
        pieces = redis_wire.pieces_of([memoryview(part) for part in parts])
    assert b"".join(bytes(bit) for piece in pieces for bit in piece) == b"".join(parts)
    lengths = [sum(map(len, piece)) for piece in pieces]
    assert max(lengths) <= 64
    assert all(a + b > 64 for a, b in itertools.pairwise(lengths)), "a rest for nothing"
