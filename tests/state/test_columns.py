"""Columns against the foreign decoder: whatever the bytes, the same events with the same values, or the same reason."""

from __future__ import annotations

import json
import struct
from typing import Any

import msgpack
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgdm.state import columns
from dgdm.state.columns import Columns, columns_of, text_of

KINDS = {
    columns.ADD_NODE: "AddNode",
    columns.SET_FEATURES: "SetFeatures",
    columns.REMOVE_NODE: "RemoveNode",
    columns.SET_EDGE: "AddEdge",
    columns.ACCUMULATE_EDGE: "AddEdge",
    columns.REMOVE_EDGE: "RemoveEdge",
}
INTEGERS = st.integers(-(2**63) - 2, 2**64 - 1) | st.sampled_from(
    [0, 127, 128, -32, -33, 2**63 - 1, 2**63, -(2**63)]
)
IDS = st.text(min_size=0, max_size=5) | st.sampled_from(["a", "ü" * 128, "x" * 256, "x" * 257]) | INTEGERS
ODD = st.none() | st.booleans() | st.floats() | st.binary(max_size=3) | st.just([1]) | st.just({})
NUMBERS = st.floats(allow_subnormal=True) | st.integers(-3, 2**64 - 1)
FEATURES = st.binary(max_size=9) | st.lists(NUMBERS, max_size=3) | st.just(struct.pack("<f", float("inf")))
VALUES = {
    "type": st.sampled_from(["AddNode", "SetFeatures", "RemoveNode", "AddEdge", "RemoveEdge", "Addnode", ""]),
    "id": IDS,
    "source": IDS,
    "target": IDS,
    "features": FEATURES,
    "weight": NUMBERS,
    "op": st.sampled_from(["set", "add", "sub"]),
    "ts": INTEGERS,
}
TYPES: tuple[Any, ...] = (
    None, True, 0, 1, -1, 2**63, 1.0, -0.5, "", "AAAAAAAA", b"", b"a", bytes(4), bytes(6), [], [1.0], {},
)  # fmt: skip
USUAL = {
    "AddNode": ["id", "features"],
    "SetFeatures": ["id", "features"],
    "RemoveNode": ["id"],
    "AddEdge": ["source", "target", "weight", "op"],
    "RemoveEdge": ["source", "target"],
}


@st.composite
def messages(draw: Any) -> bytes | None:
    """A map as producers write it, now and then with something wrong, then now and then with a byte changed."""
    kind = draw(st.sampled_from(list(USUAL)))
    names = [*USUAL[kind], *draw(st.lists(st.sampled_from(["ts", "op", "id", "more"]), max_size=1))]
    fields = {"type": kind}
    for name in names:
        fields[name] = draw(ODD if draw(st.integers(0, 30)) == 0 else VALUES.get(name, ODD))
    pairs = draw(st.permutations(list(fields.items())))
    if draw(st.integers(0, 20)) == 0:
        pairs = pairs[:-1]
    try:
        if draw(st.integers(0, 4)) == 0:
            return json.dumps(dict(pairs)).encode()
        packer = msgpack.Packer(use_single_float=draw(st.booleans()))
        raw = bytes(packer.pack(dict(pairs)))
    except (TypeError, OverflowError, ValueError, UnicodeEncodeError):
        return None
    what = draw(st.integers(0, 9))
    if what < 2:
        at, byte = draw(st.integers(0, len(raw) - 1)), draw(st.binary(min_size=1, max_size=1))
        raw = raw[:at] + byte + raw[at + (what == 0) :]
    elif what == 2:
        raw = raw[: draw(st.integers(0, len(raw)))]
    return raw


def require_same(c: Columns, i: int, truth: oracle.Event) -> None:
    assert KINDS[int(c.kind[i])] == truth.kind
    nodes = [text_of(c, c.first[i], c.first_size[i])]
    if truth.kind.endswith("Edge"):
        nodes.append(text_of(c, c.second[i], c.second_size[i]))
    assert tuple(nodes) == truth.nodes
    if truth.kind == "AddEdge":
        assert c.weight[i] == truth.weight
        assert (c.kind[i] == columns.ACCUMULATE_EDGE) == (truth.op == "add")
    if truth.features is None:
        assert c.features[i] == -1
    else:
        raw = c.text[c.features[i] : c.features[i] + 4 * c.width[i]].tobytes()
        assert raw == truth.features.astype("<f4").tobytes()


def require_alike(values: list[bytes | None]) -> None:
    """What the foreign decoder makes of each record."""
    c, invalid = columns_of(values)
    reasons = {i: error.reason.value for i, error in invalid}
    assert len(c.kind) == len(values)
    for i, value in enumerate(values):
        truth = oracle.read(value)
        if isinstance(truth, str):
            assert reasons.get(i) == truth
            assert c.kind[i] == columns.UNREAD
        else:
            assert i not in reasons
            require_same(c, i, truth)


@given(st.lists(messages() | st.binary(max_size=20), max_size=12))
def test_the_same_events_or_the_same_reasons(values: list[bytes | None]) -> None:
    require_alike(values)


def test_a_field_of_every_other_type_is_judged_alike() -> None:
    """One field at a time, so that nothing else is wrong with the message."""
    usual = {"id": "a", "source": "a", "target": "b", "weight": 2.0, "op": "add", "features": bytes(8)}
    values = []
    for kind, names in USUAL.items():
        plain = {"type": kind, **{name: usual[name] for name in names}, "ts": 7}
        values += [msgpack.packb({**plain, name: value}) for name in plain for value in TYPES]
    require_alike(values)


@pytest.mark.parametrize("single", [False, True])
def test_plain_messages_never_take_the_long_way(single: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What usual producers write, in any order of fields, is read by the kernel alone."""
    random = np.random.default_rng(1)
    packer = msgpack.Packer(use_single_float=single)
    values = []
    for _ in range(300):
        a, b = random.integers(0, 10**9, 2).tolist()
        fields: list[dict[str, Any]] = [
            {
                "type": "AddEdge",
                "source": str(a),
                "target": str(b),
                "weight": float(random.uniform(0.1, 5)),
                "op": "add",
            },
            {"type": "AddEdge", "source": a, "target": -b, "ts": 1_700_000_000_000},
            {"type": "RemoveEdge", "source": str(a), "target": str(b)},
            {"type": "AddNode", "id": "n" * 40, "features": random.normal(size=64).astype("<f4").tobytes()},
            {"type": "SetFeatures", "id": a, "features": b"\x00" * 2048},
            {"type": "RemoveNode", "id": a},
        ]
        chosen = list(fields[int(random.integers(len(fields)))].items())
        random.shuffle(chosen)  # type: ignore[arg-type]
        values.append(packer.pack(dict(chosen)))
    monkeypatch.setattr(columns, "decode_event", None)
    c, invalid = columns_of(values)
    assert not invalid
    for i, value in enumerate(values):
        truth = oracle.read(value)
        assert isinstance(truth, oracle.Event)
        require_same(c, i, truth)


def test_no_records_are_no_columns() -> None:
    c, invalid = columns_of([])
    assert (len(c.kind), invalid) == (0, [])
