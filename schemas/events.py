"""Graph events: the wire format of the events topic, both ways.

A value is a MessagePack map, or JSON when its first byte that is not white space or a BOM is `{`.
Unknown fields are ignored. Ids come out as text, features as finite float32, weights rounded to float32.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from .ids import parse_id
from .reasons import InvalidEvent, Reason, shortened

Op = Literal["set", "add"]
Encoding = Literal["msgpack", "json"]
Vector = NDArray[np.float32]


class AddNode(msgspec.Struct, frozen=True, tag_field="type", tag="AddNode"):
    """A node appears; features default to zeros."""

    id: str
    features: Any = None  # NDArray[np.float32] [F], or None
    ts: int | None = None  # milliseconds since the epoch; the record's timestamp by default


class SetFeatures(msgspec.Struct, frozen=True, tag_field="type", tag="SetFeatures"):
    """A node's features change."""

    id: str
    features: Any  # NDArray[np.float32] [F]
    ts: int | None = None


class RemoveNode(msgspec.Struct, frozen=True, tag_field="type", tag="RemoveNode"):
    """A node disappears with its edges."""

    id: str
    ts: int | None = None


class AddEdge(msgspec.Struct, frozen=True, tag_field="type", tag="AddEdge"):
    """An edge's weight is set, or added to."""

    source: str
    target: str
    weight: float = 1.0
    op: Op = "set"
    ts: int | None = None


class RemoveEdge(msgspec.Struct, frozen=True, tag_field="type", tag="RemoveEdge"):
    """An edge disappears."""

    source: str
    target: str
    ts: int | None = None


GraphEvent = AddNode | SetFeatures | RemoveNode | AddEdge | RemoveEdge
GraphUpdate = GraphEvent


class _WireAddNode(msgspec.Struct, tag_field="type", tag="AddNode"):
    id: str | int
    features: Any = None  # a list of numbers, float32 bytes or their base64: told apart in as_features
    ts: int | None = None


class _WireSetFeatures(msgspec.Struct, tag_field="type", tag="SetFeatures"):
    id: str | int
    features: Any
    ts: int | None = None


class _WireRemoveNode(msgspec.Struct, tag_field="type", tag="RemoveNode"):
    id: str | int
    ts: int | None = None


class _WireAddEdge(msgspec.Struct, tag_field="type", tag="AddEdge"):
    source: str | int
    target: str | int
    weight: float | int = 1.0
    op: Op = "set"
    ts: int | None = None


class _WireRemoveEdge(msgspec.Struct, tag_field="type", tag="RemoveEdge"):
    source: str | int
    target: str | int
    ts: int | None = None


_Wire = _WireAddNode | _WireSetFeatures | _WireRemoveNode | _WireAddEdge | _WireRemoveEdge
_MSGPACK: Final = msgspec.msgpack.Decoder(_Wire)
_JSON: Final = msgspec.json.Decoder(_Wire)
_NUMBERS: Final = frozenset({int, float, np.float32, np.float64, np.int64, np.int32})
_BOM: Final = b"\xef\xbb\xbf"
_WHITE: Final = b" \t\r\n"


def decode_event(value: bytes | None) -> GraphEvent:
    """One event from the bytes of one record. Raises InvalidEvent, and nothing else, for any bytes."""
    if value is None:
        raise InvalidEvent(Reason.NULL_VALUE, "the record has no value; to remove a node send RemoveNode")
    try:
        if (
            value[:1] in (b"{", b" ", b"\t", b"\r", b"\n", b"\xef")
            and (text := _json_text(value)) is not None
        ):
            return _checked(_JSON.decode(text))
        return _checked(_MSGPACK.decode(value))
    except InvalidEvent:
        raise
    except msgspec.ValidationError as error:
        raise _refused(error, value) from None
    except (
        msgspec.DecodeError,
        UnicodeError,
        RecursionError,
        MemoryError,
        ValueError,
        OverflowError,
    ) as error:
        raise InvalidEvent(
            Reason.UNDECODABLE,
            f"neither MessagePack nor JSON: {shortened(value, 40)} ({type(error).__name__})",
        ) from None


def encode_event(event: GraphEvent, encoding: Encoding = "msgpack") -> bytes:
    """The bytes of one event, validated as a reader would. Raises InvalidEvent."""
    wire: dict[str, Any] = {"type": type(event).__name__}
    for name in event.__struct_fields__:
        field = getattr(event, name)
        if name in ("id", "source", "target"):
            wire[name] = parse_id(field)
        elif name == "features":
            if field is not None:
                vector = as_features(field)
                wire[name] = vector.tobytes() if encoding == "msgpack" else vector.tolist()
        elif name == "weight":
            wire[name] = as_weight(field)
        elif field is not None:
            wire[name] = field
    return msgspec.msgpack.encode(wire) if encoding == "msgpack" else msgspec.json.encode(wire)


def event_key(event: GraphEvent) -> bytes:
    """Key of the event's record: the id it is about, the source for edges."""
    return (event.source if isinstance(event, AddEdge | RemoveEdge) else event.id).encode()


def as_features(value: object) -> Vector:
    """Features as finite float32 [F]: from numbers, from little-endian float32 bytes, or from their base64.

    Raises InvalidEvent.
    """
    if isinstance(value, str):
        try:
            value = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidEvent(Reason.WRONG_TYPE, f"features {shortened(value)} are not base64") from None
    if isinstance(value, bytes):
        if len(value) % 4:
            raise InvalidEvent(
                Reason.WRONG_TYPE, f"features of {len(value)} bytes are not float32 (4 bytes each)"
            )
        vector = np.frombuffer(value, "<f4").astype(np.float32)
    else:
        numbers = isinstance(value, np.ndarray) or (
            isinstance(value, list | tuple) and _NUMBERS.issuperset(map(type, value))
        )
        if not numbers:
            raise InvalidEvent(Reason.WRONG_TYPE, f"features are one list of numbers, not {shortened(value)}")
        try:
            with np.errstate(over="ignore"):
                vector = np.asarray(value, np.float64).astype(np.float32)
        except (TypeError, ValueError, OverflowError):
            raise InvalidEvent(
                Reason.NOT_FINITE, f"features {shortened(value)} are not finite in float32"
            ) from None
        if vector.ndim != 1:
            raise InvalidEvent(Reason.WRONG_TYPE, f"features are one list of numbers, not {shortened(value)}")
    if not np.isfinite(vector).all():
        raise InvalidEvent(Reason.NOT_FINITE, f"features {shortened(value)} are not finite in float32")
    return vector


def as_weight(value: float) -> float:
    """A weight rounded to float32, finite and above 0. Raises InvalidEvent."""
    try:
        with np.errstate(over="ignore", under="ignore"):
            weight = float(np.float32(value))
    except OverflowError:
        weight = math.inf
    if math.isnan(weight) or math.isinf(weight):
        raise InvalidEvent(Reason.NOT_FINITE, f"the weight {shortened(value)} is not finite in float32")
    if weight <= 0:
        raise InvalidEvent(
            Reason.BAD_WEIGHT,
            f"the weight {shortened(value)} is not above 0 in float32; remove an edge by RemoveEdge",
        )
    return weight


def _json_text(value: bytes) -> bytes | None:
    """The text without BOM and white space before it, when it opens a JSON object."""
    text = value.removeprefix(_BOM).lstrip(_WHITE).removeprefix(_BOM).lstrip(_WHITE)
    return text if text[:1] == b"{" else None


def _checked(wire: _Wire) -> GraphEvent:
    match wire:
        case _WireAddEdge():
            return AddEdge(
                parse_id(wire.source), parse_id(wire.target), as_weight(wire.weight), wire.op, wire.ts
            )
        case _WireRemoveEdge():
            return RemoveEdge(parse_id(wire.source), parse_id(wire.target), wire.ts)
        case _WireRemoveNode():
            return RemoveNode(parse_id(wire.id), wire.ts)
        case _WireSetFeatures():
            return SetFeatures(parse_id(wire.id), as_features(wire.features), wire.ts)
        case _:
            features = None if wire.features is None else as_features(wire.features)
            return AddNode(parse_id(wire.id), features, wire.ts)


def _refused(error: msgspec.ValidationError, value: bytes) -> InvalidEvent:
    """A shape msgspec refused: what it says names the field."""
    text = str(error)
    if any(f"$.{name}" in text for name in ("id", "source", "target")):
        return InvalidEvent(Reason.BAD_ID, f"an id is text or an integer: {text}")
    return InvalidEvent(Reason.WRONG_TYPE, f"{text} in {shortened(value, 40)}")
