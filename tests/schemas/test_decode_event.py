"""Every kind of bad message, and round trips with independent codecs."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgdm.schemas.events import (
    AddEdge,
    AddNode,
    RemoveEdge,
    RemoveNode,
    SetFeatures,
    decode_event,
    encode_event,
    event_key,
)
from dgdm.schemas.reasons import InvalidEvent, Reason

EDGE = {"type": "AddEdge", "source": "a", "target": "b"}
NODE = {"type": "AddNode", "id": "a"}


def nested(depth: int) -> list[Any]:
    """Lists inside each other."""
    return [nested(depth - 1)] if depth > 1 else []


BAD: list[tuple[str, Any, Reason]] = [
    ("null", None, Reason.NULL_VALUE),
    ("empty", b"", Reason.UNDECODABLE),
    ("white space: a MessagePack number", b" ", Reason.WRONG_TYPE),
    ("half JSON", b'{"type":', Reason.UNDECODABLE),
    ("bad UTF-8 in JSON", b'{"type":"AddNode","id":"\xff"}', Reason.UNDECODABLE),
    ("bad UTF-8 in MessagePack", b"\x82\xa4type\xaaRemoveNode\xa2id\xa1\xff", Reason.UNDECODABLE),
    ("lone surrogate", b'{"type":"AddNode","id":"\\ud800"}', Reason.BAD_ID),
    ("deep nesting", b'{"x":' * 100_000, Reason.UNDECODABLE),
    ("65 deep", {**NODE, "x": nested(64)}, Reason.UNDECODABLE),
    ("trailing bytes", msgpack.packb(NODE) + b"\x00", Reason.UNDECODABLE),
    ("a list", [1, 2], Reason.WRONG_TYPE),
    ("a number", 7, Reason.WRONG_TYPE),
    ("no type", {"id": "a"}, Reason.WRONG_TYPE),
    ("unknown type", {"type": "Explode", "id": "a"}, Reason.WRONG_TYPE),
    ("unknown op", {**EDGE, "op": "multiply"}, Reason.WRONG_TYPE),
    ("text weight", {**EDGE, "weight": "2"}, Reason.WRONG_TYPE),
    ("text ts", {**EDGE, "ts": "now"}, Reason.WRONG_TYPE),
    ("missing target", {"type": "AddEdge", "source": "a"}, Reason.WRONG_TYPE),
    ("missing features", {"type": "SetFeatures", "id": "a"}, Reason.WRONG_TYPE),
    ("features of text", {**NODE, "features": ["1"]}, Reason.WRONG_TYPE),
    ("features of bools", {**NODE, "features": [True]}, Reason.WRONG_TYPE),
    ("nested features", {**NODE, "features": [[1.0]]}, Reason.WRONG_TYPE),
    ("a map of features", {**NODE, "features": {"a": 1}}, Reason.WRONG_TYPE),
    ("odd bytes", {**NODE, "features": b"123"}, Reason.WRONG_TYPE),
    ("not base64", {**NODE, "features": "?"}, Reason.WRONG_TYPE),
    ("base64 padded in excess", b'{"type":"AddNode","id":"a","features":"AACAPwAA==="}', Reason.WRONG_TYPE),
    ("empty id", {**NODE, "id": ""}, Reason.BAD_ID),
    ("id of 257 bytes", {**NODE, "id": "a" * 257}, Reason.BAD_ID),
    ("id of 257 bytes in Unicode", {**NODE, "id": "a" + "ü" * 128}, Reason.BAD_ID),
    ("bool id", {**NODE, "id": True}, Reason.BAD_ID),
    ("float id", {**NODE, "id": 1.0}, Reason.BAD_ID),
    ("binary id", {**NODE, "id": b"a"}, Reason.BAD_ID),
    ("null id", {**NODE, "id": None}, Reason.BAD_ID),
    ("NaN weight", {**EDGE, "weight": float("nan")}, Reason.NOT_FINITE),
    ("infinite weight", {**EDGE, "weight": float("inf")}, Reason.NOT_FINITE),
    ("weight beyond float32", {**EDGE, "weight": 1e39}, Reason.NOT_FINITE),
    ("integer weight beyond float32", json.dumps({**EDGE, "weight": 10**39}).encode(), Reason.NOT_FINITE),
    ("integer weight beyond a double", json.dumps({**EDGE, "weight": 10**399}).encode(), Reason.NOT_FINITE),
    ("NaN feature", {**NODE, "features": [float("nan")]}, Reason.NOT_FINITE),
    ("NaN feature bytes", {**NODE, "features": struct.pack("<f", float("nan"))}, Reason.NOT_FINITE),
    ("feature beyond float32", {**NODE, "features": [1e39]}, Reason.NOT_FINITE),
    ("weight 0", {**EDGE, "weight": 0}, Reason.BAD_WEIGHT),
    ("weight -0.0", {**EDGE, "weight": -0.0}, Reason.BAD_WEIGHT),
    ("negative weight", {**EDGE, "weight": -1}, Reason.BAD_WEIGHT),
    ("weight that rounds to 0", {**EDGE, "weight": 1e-46}, Reason.BAD_WEIGHT),
]


@pytest.mark.parametrize(("value", "reason"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_messages_have_their_reason(value: Any, reason: Reason) -> None:
    raw = value if value is None or isinstance(value, bytes) else msgpack.packb(value)
    with pytest.raises(InvalidEvent) as caught:
        decode_event(raw)
    assert caught.value.reason is reason
    assert len(str(caught.value)) < 400, "a message names the value, it does not repeat it"


def test_ten_megabytes_are_judged_like_any_other_value() -> None:
    huge = json.dumps({**NODE, "features": [0.5] * 2_000_000}).encode()
    assert len(huge) > 9_000_000
    event = decode_event(huge)
    assert isinstance(event, AddNode)
    assert len(event.features) == 2_000_000
    with pytest.raises(InvalidEvent):
        decode_event(b"\xc1" * 10_000_000)


@pytest.mark.parametrize("id_", ["a" * 256, "ü" * 128, "01", " 1", "1 ", "\x00", "日本", 1, -7, 10**30])
def test_ids_are_text_byte_for_byte(id_: Any) -> None:
    raw = json.dumps({"type": "RemoveNode", "id": id_}).encode()
    assert decode_event(raw) == RemoveNode(str(id_))


def test_64_lists_and_maps_inside_each_other_are_not_too_deep() -> None:
    assert decode_event(msgpack.packb({**EDGE, "more": nested(63)})) == AddEdge("a", "b")


@pytest.mark.parametrize("before", [b"", b" \n\t", b"\xef\xbb\xbf", b"\xef\xbb\xbf  "])
def test_json_is_told_by_its_first_brace(before: bytes) -> None:
    assert decode_event(before + json.dumps({**EDGE, "more": [1]}).encode()) == AddEdge("a", "b")


def test_features_come_as_numbers_bytes_or_base64() -> None:
    raw = np.array([1.5, -0.0], "<f4").tobytes()
    for value in (
        msgpack.packb({**NODE, "features": raw}),
        msgpack.packb({**NODE, "features": [1.5, -0.0]}),
        json.dumps({**NODE, "features": base64.b64encode(raw).decode()}).encode(),
        json.dumps({**NODE, "features": [1.5, -0.0]}).encode(),
    ):
        event = decode_event(value)
        assert isinstance(event, AddNode)
        assert event.features.tobytes() == raw


ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
features = st.lists(floats, max_size=8).map(lambda x: np.array(x, np.float32))
weights = st.floats(min_value=2.0**-100, max_value=2.0**100, width=32)
valid = st.one_of(
    st.builds(AddNode, ids, st.none() | features, st.none() | st.integers(0, 2**53)),
    st.builds(SetFeatures, ids, features),
    st.builds(RemoveNode, ids),
    st.builds(AddEdge, ids, ids, weights, st.sampled_from(["set", "add"])),
    st.builds(RemoveEdge, ids, ids),
)


@given(valid, st.sampled_from(["msgpack", "json"]))
def test_what_we_write_others_read_and_so_do_we(event: Any, encoding: Any) -> None:
    raw = encode_event(event, encoding)
    plain = json.loads(raw) if encoding == "json" else msgpack.unpackb(raw)
    assert plain["type"] == type(event).__name__
    back = decode_event(raw)
    for name in event.__struct_fields__:
        mine, theirs = getattr(event, name), getattr(back, name)
        if name == "features" and mine is not None:
            assert np.array_equal(mine, theirs)
        else:
            assert mine == theirs
    assert event_key(back).decode() == plain.get("id", plain.get("source"))


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda b: b"{" + b))
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    try:
        decode_event(raw)
    except InvalidEvent as error:
        assert error.reason in Reason  # noqa: PT017 - either outcome is right, another exception is not
