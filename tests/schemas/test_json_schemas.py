"""The schemas in docs: what they say of events is what the decoder does, and what is written fits them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis.extra.numpy as arrays
import jsonschema
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dgdm.docs.json_schemas import BEYOND, MEANINGS, UNSAID, VANISHES, json_schemas
from dgdm.log import Record
from dgdm.producers.dead_letters import DeadLetterSink
from dgdm.schemas.embeddings import decode_embedding, encode_embeddings
from dgdm.schemas.events import (
    AddEdge,
    AddNode,
    RemoveEdge,
    RemoveNode,
    SetFeatures,
    decode_event,
    encode_event,
)
from dgdm.schemas.progress import Progress, decode_progress, encode_progress
from dgdm.schemas.reasons import InvalidEvent, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dgdm.log import Message

FOLDER = Path(__file__).parents[2] / "docs" / "schemas"


def schema(name: str) -> jsonschema.Draft202012Validator:
    """The file in docs, as somebody else would use it."""
    found = json.loads((FOLDER / name).read_text())
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


EVENT = schema("event.json")
EMBEDDING, PROGRESS = schema("embedding.json"), schema("progress.json")
HEADERS = schema("dead-letter-headers.json")

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64)
float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = arrays.arrays(np.float32, st.integers(0, 5), elements=float32)
times = st.none() | st.integers(-(2**63), 2**63 - 1)
weights = st.floats(min_value=2.0**-149, max_value=float(np.finfo(np.float32).max), width=32)
events = st.one_of(
    st.builds(AddNode, ids | st.integers(), st.none() | vectors, times),
    st.builds(SetFeatures, ids, vectors, times),
    st.builds(RemoveNode, ids, times),
    st.builds(AddEdge, ids, ids, weights, st.sampled_from(["set", "add"]), times),
    st.builds(RemoveEdge, ids, ids, times),
)


def test_the_files_are_the_schemas() -> None:
    assert {path.name for path in FOLDER.iterdir()} == json_schemas().keys()


@given(events)
def test_every_event_that_is_written_fits(event: Any) -> None:
    EVENT.validate(json.loads(encode_event(event, "json")))


# -- what the schema refuses the decoder refuses, and the other way round

NUMBERS = [0, -0.0, 1, -1, 0.5, 1e300, -1e300, 10**400, VANISHES, np.nextafter(VANISHES, 1), BEYOND, -BEYOND]
NUMBERS += [np.nextafter(BEYOND, 0), np.nextafter(-BEYOND, 0), 2**63, 2**63 - 1, -(2**63), -(2**63) - 1]
NUMBERS += [10**256 - 1, 10**256, 1 - 10**255, -(10**255)]
TEXTS = [
    "",
    "a",
    "set",
    "add",
    "SET",
    "a" * 256,
    "a" * 257,
    "AAAA",
    "AAAAAA==",
    "AAAAAAAAAAA=",
    "AAAAAAAAAAAAAAAA",
    "?",
]
plain = st.sampled_from([*(x.item() if isinstance(x, np.generic) else x for x in NUMBERS), *TEXTS])
junk = st.recursive(
    st.none() | st.booleans() | plain | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
base64s = vectors.map(lambda vector: base64.b64encode(vector.astype("<f4").tobytes()).decode())
FIELDS = ["type", "id", "features", "source", "target", "weight", "op", "ts", "more"]


@st.composite
def nearly_events(draw: st.DrawFn) -> Any:
    """An event in which a few fields are replaced, added or left out; now and then something else altogether."""
    if draw(st.integers(0, 19)) == 0:
        return draw(junk)
    value: dict[str, Any] = json.loads(encode_event(draw(events), "json"))
    for name in draw(st.lists(st.sampled_from(FIELDS), max_size=2)):
        if draw(st.booleans()):
            value.pop(name, None)
        else:
            kinds = st.sampled_from([*MEANINGS, "Explode"]) if name == "type" else base64s | junk
            value[name] = draw(kinds)
    return value


def beyond_the_schema(value: Any) -> bool:
    """Whether one of the rules that JSON Schema cannot express decides; each has an example below."""
    if not isinstance(value, dict):
        return False
    given_ids = [value.get(name) for name in ("id", "source", "target")]
    texts = [one for one in given_ids if isinstance(one, str)]
    if any("\ud800" <= c <= "\udfff" for text in texts for c in text):
        return True
    if any(len(text) <= 256 < len(text.encode()) for text in texts):
        return True
    if any(isinstance(one, float) and one.is_integer() for one in [*given_ids, value.get("ts")]):
        return True
    features = value.get("features")
    if isinstance(features, str):
        # `$` of JSON Schema is the end of the text; Python's is also before a last newline.
        return features.endswith("\n") or (len(features) % 4 == 0 and not finite(features))
    return False


def finite(text: str) -> bool:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return True
    return len(raw) % 4 != 0 or bool(np.isfinite(np.frombuffer(raw, "<f4")).all())


def decodes(text: str) -> bool:
    try:
        decode_event(text.encode())
    except InvalidEvent:
        return False
    return True


@given(nearly_events())
def test_schema_and_decoder_agree(value: Any) -> None:
    assume(not beyond_the_schema(value))
    assert EVENT.is_valid(value) == decodes(json.dumps(value))


EDGE = {"type": "AddEdge", "source": "a", "target": "b"}
AGREE: list[tuple[Any, bool]] = [
    *(({**EDGE, "weight": number}, ok) for number, ok in [
        (VANISHES, False), (float(np.nextafter(VANISHES, 1)), True),
        (BEYOND, False), (float(np.nextafter(BEYOND, 0)), True), (10**400, False), (True, False), (None, False),
    ]),
    *(({"type": "AddNode", "id": "a", "features": [number]}, ok) for number, ok in [
        (BEYOND, False), (-BEYOND, False), (float(np.nextafter(-BEYOND, 0)), True), (False, False), ("1", False),
    ]),
    *(({"type": "AddNode", "id": "a", "features": features}, ok) for features, ok in [
        (None, True), ([], True), ("", True), ("AAAAAA==", True), ("AAAA", False), ("AAAAAAAA", False), ("AAAAAAA=", False),
    ]),
    *(({"type": "RemoveNode", "id": name}, ok) for name, ok in [
        (10**256 - 1, True), (10**256, False), (1 - 10**255, True), (-(10**255), False), ("a" * 256, True),
        ("a" * 257, False), ("", False), (True, False), (1.5, False), (None, False),
    ]),
    *(({**EDGE, "ts": ts}, ok) for ts, ok in [
        (2**63 - 1, True), (2**63, False), (-(2**63), True), (-(2**63) - 1, False), (None, True), ("1", False),
    ]),
    ({**EDGE, "op": "add", "more": {"any": [1]}}, True), ({**EDGE, "op": None}, False),
    ({"type": "SetFeatures", "id": "a", "features": None}, False), ({"type": "SetFeatures", "id": "a"}, False),
    ({"id": "a"}, False), ([], False), (7, False),
]  # fmt: skip


@pytest.mark.parametrize(("value", "ok"), AGREE, ids=[str(value)[:60] for value, _ in AGREE])
def test_at_the_edges_both_say_the_same(value: Any, ok: bool) -> None:
    assert (EVENT.is_valid(value), decodes(json.dumps(value))) == (ok, ok)


NOT_FINITE = base64.b64encode(np.array([np.nan], "<f4").tobytes()).decode()
NOT_SAID = [
    ('{"type": "RemoveNode", "id": "' + "ü" * 129 + '"}', "counts bytes of UTF-8"),
    ('{"type": "RemoveNode", "id": "\\ud800"}', "no lone surrogates"),
    ('{"type": "RemoveNode", "id": 1.0}', "written without fraction and exponent"),
    ('{"type": "RemoveNode", "id": "a", "ts": 1e3}', "written without fraction and exponent"),
    (json.dumps({**EDGE, "weight": int(BEYOND) - 1}), "rounded to a double before"),
    (json.dumps({"type": "AddNode", "id": "a", "features": NOT_FINITE}), "base64 features are finite"),
    ('{"type": "RemoveNode", "id": "a", "id": "a"}', "no field is given twice"),
    ('{"type": "RemoveNode", "id": "a", "more": ' + "[" * 65 + "]" * 65 + "}", "at most 64 deep"),
]


@pytest.mark.parametrize(("text", "rule"), NOT_SAID, ids=[rule for _, rule in NOT_SAID])
def test_what_a_schema_cannot_say_is_said_in_words(text: str, rule: str) -> None:
    assert EVENT.is_valid(json.loads(text))
    assert not decodes(text)
    assert rule in EVENT.schema["description"]


def test_every_rule_in_words_has_an_example_above_or_is_of_the_graph() -> None:
    assert [one for one in UNSAID if not any(rule in one for _, rule in NOT_SAID)] == [UNSAID[-1]]


# -- what dgdm itself writes

wide = arrays.arrays(np.float32, st.integers(1, 5), elements=float32)


@given(ids, wide, st.integers(0, 2**63 - 1), st.integers(0, 2**53))
def test_every_embedding_that_is_written_fits(node: str, vector: Any, sequence: int, ts: int) -> None:
    (value,) = encode_embeddings([node], vector[np.newaxis], sequence, ts, "json")
    EMBEDDING.validate(json.loads(value))
    assert decode_embedding(node.encode(), value).id == node


@given(st.sampled_from(["id", "vector", "sequence", "ts"]), junk)
def test_no_embedding_that_cannot_be_read_fits(name: str, value: Any) -> None:
    record = {"id": "a", "vector": [1.0], "sequence": 1, "ts": 1, name: value}
    assume(not isinstance(value, float) or not value.is_integer())
    assume(name != "id" or not isinstance(value, str) or len(value.encode(errors="replace")) <= 256)
    assume(name != "id" or not isinstance(value, str) or not any("\ud800" <= c <= "\udfff" for c in value))
    if EMBEDDING.is_valid(record):
        decode_embedding(b"a", json.dumps(record).encode())  # raises when it cannot be read
    assert not EMBEDDING.is_valid({key: one for key, one in record.items() if key != name})


offsets = st.dictionaries(st.integers(0, 100), st.integers(0, 2**62), max_size=3)
bounds = st.lists(st.floats(min_value=1e-12, max_value=1e12), min_size=1, max_size=4)


counts = st.integers(0)
records = st.builds(
    Progress, ids, counts, offsets, offsets, bounds, bounds, counts, counts, st.integers(0, 2**53)
)


@given(records)
def test_every_progress_record_that_is_written_fits(progress: Progress) -> None:
    value = encode_progress(progress, "json")
    PROGRESS.validate(json.loads(value))
    assert decode_progress(value) == progress


class Kept:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def append(self, _topic: str, _partition: int, messages: Sequence[Message]) -> int:
        self.messages += messages
        return len(self.messages)


async def test_the_headers_of_every_dead_letter_fit() -> None:
    kept: Any = Kept()
    sink = DeadLetterSink(kept, "letters")
    for reason in Reason:
        for value in (b"v", b"v" * 1_000_000):
            record = Record(3, 41, 0, b"k", value, [("trace", b"1")])
            await sink.put("dgdm.events", [(record, InvalidEvent(reason, "what was wrong: ü"))])
    await sink.flush()
    letters = [{name: content.decode() for name, content in one.headers} for one in kept.messages]
    assert {letter["dgdm-error"] for letter in letters} == set(Reason)
    assert sum("dgdm-truncated" in letter for letter in letters) == len(Reason)
    for letter in letters:
        HEADERS.validate(letter)
        for name in letter.keys() - {"trace", "dgdm-truncated"}:
            assert not HEADERS.is_valid({key: one for key, one in letter.items() if key != name}), name
    assert not HEADERS.is_valid({**letters[0], "dgdm-error": "unheard-of"})
