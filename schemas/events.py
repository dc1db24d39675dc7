"""Graph events: the wire format of the events topic, both ways.

A value is a MessagePack map, or JSON when its first byte that is not white space or a BOM is `{`.
Unknown fields are ignored. Ids come out as text, features as finite float32, weights rounded to float32.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from .ids import parse_id
from .judging import INT64, Op, check_fields, json_text, judge
from .reasons import InvalidEvent, Reason
from .values import Vector, as_features, as_weight

__all__ = [
    "AddEdge",
    "AddNode",
    "Encoding",
    "GraphEvent",
    "GraphUpdate",
    "Op",
    "RemoveEdge",
    "RemoveNode",
    "SetFeatures",
    "Vector",
    "as_features",
    "as_weight",
    "decode_event",
    "encode_event",
    "event_key",
]

Encoding = Literal["msgpack", "json"]


class AddNode(msgspec.Struct, frozen=True, tag_field="type", tag="AddNode"):
    """A node appears; features default to zeros."""

    id: str
    features: Vector | None = None  # [F]
    ts: int | None = None  # milliseconds since the epoch; the record's timestamp by default


class SetFeatures(msgspec.Struct, frozen=True, tag_field="type", tag="SetFeatures"):
    """A node's features change."""

    id: str
    features: Vector  # [F]
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


_BY_NAME: Final[dict[str, type[GraphEvent]]] = {
    kind.__name__: kind for kind in (AddNode, SetFeatures, RemoveNode, AddEdge, RemoveEdge)
}


def decode_event(value: bytes | None) -> GraphEvent:
    """One event from the bytes of one record. Raises InvalidEvent, and nothing else, for any bytes."""
    if value is None:
        raise InvalidEvent(Reason.NULL_VALUE, "the record has no value; to remove a node send RemoveNode")
    try:
        event = _plain(value)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, MemoryError):
        event = None
    if event is None:
        kind, fields = judge(value)
        event = _BY_NAME[kind](**fields)
    return event


def encode_event(event: GraphEvent, encoding: Encoding = "msgpack") -> bytes:
    """The bytes of one event, checked as a reader would. Raises InvalidEvent."""
    kind = type(event).__name__
    given = {name: getattr(event, name) for name in event.__struct_fields__}
    wire: dict[str, Any] = {"type": kind, **check_fields(kind, given)}
    if "features" in wire:
        vector = wire["features"]
        wire["features"] = vector.astype("<f4").tobytes() if encoding == "msgpack" else vector.tolist()
    return msgspec.msgpack.encode(wire) if encoding == "msgpack" else msgspec.json.encode(wire)


def event_key(event: GraphEvent) -> bytes:
    """Key of the event's record: the id it is about, the source for edges. Raises InvalidEvent."""
    return parse_id(event.source if isinstance(event, AddEdge | RemoveEdge) else event.id).encode()


# The way of ordinary events. It may give up on any event, which is then judged by the rules; what it takes
# must be right: no unknown fields, no field twice (known by counting), values checked like everywhere else.

_Id = str | int
_Ts = Annotated[int, Meta(ge=-INT64, le=INT64 - 1)] | None | UnsetType


class _Wire(msgspec.Struct, tag_field="type", forbid_unknown_fields=True):
    def given(self) -> int:
        """How many different keys there were."""
        return 1 + sum(getattr(self, name) is not UNSET for name in self.__struct_fields__)

    def texts(self) -> int:
        """How many values were text in JSON."""
        return 1 + sum(isinstance(getattr(self, name), str | bytes) for name in self.__struct_fields__)


class _WireAddNode(_Wire, tag="AddNode"):
    id: _Id
    features: list[float] | bytes | UnsetType | None = UNSET
    ts: _Ts = UNSET

    def event(self) -> AddNode:
        features = None if self.features is None or self.features is UNSET else as_features(self.features)
        return AddNode(parse_id(self.id), features, None if self.ts is UNSET else self.ts)


class _WireSetFeatures(_Wire, tag="SetFeatures"):
    id: _Id
    features: list[float] | bytes
    ts: _Ts = UNSET

    def event(self) -> SetFeatures:
        return SetFeatures(
            parse_id(self.id), as_features(self.features), None if self.ts is UNSET else self.ts
        )


class _WireRemoveNode(_Wire, tag="RemoveNode"):
    id: _Id
    ts: _Ts = UNSET

    def event(self) -> RemoveNode:
        return RemoveNode(parse_id(self.id), None if self.ts is UNSET else self.ts)


class _WireAddEdge(_Wire, tag="AddEdge"):
    source: _Id
    target: _Id
    weight: float | UnsetType = UNSET
    op: Op | UnsetType = UNSET
    ts: _Ts = UNSET

    def given(self) -> int:  # most events are edges: no loop
        return 3 + (self.weight is not UNSET) + (self.op is not UNSET) + (self.ts is not UNSET)

    def texts(self) -> int:
        return 1 + (type(self.source) is str) + (type(self.target) is str) + (self.op is not UNSET)

    def event(self) -> AddEdge:
        return AddEdge(
            parse_id(self.source),
            parse_id(self.target),
            1.0 if self.weight is UNSET else as_weight(self.weight),
            "set" if self.op is UNSET else self.op,
            None if self.ts is UNSET else self.ts,
        )


class _WireRemoveEdge(_Wire, tag="RemoveEdge"):
    source: _Id
    target: _Id
    ts: _Ts = UNSET

    def event(self) -> RemoveEdge:
        return RemoveEdge(parse_id(self.source), parse_id(self.target), None if self.ts is UNSET else self.ts)


_AnyWire = _WireAddNode | _WireSetFeatures | _WireRemoveNode | _WireAddEdge | _WireRemoveEdge
_MSGPACK: Final = msgspec.msgpack.Decoder(_AnyWire)
_JSON: Final = msgspec.json.Decoder(_AnyWire)


def _plain(value: bytes) -> GraphEvent | None:
    """The event, when it is plainly good; None, or any exception of a decoder, when the rules must judge."""
    first = value[0] if value else 0
    if first & 0xF0 == 0x80:  # a map of up to 15 keys
        wire = _MSGPACK.decode(value)
        return wire.event() if wire.given() == first & 0x0F else None
    text = value if first == 0x7B else json_text(value)
    if text is None:
        return None
    wire = _JSON.decode(text)
    # Every key and every text has two quotes, so that a key given twice, or a quote in an id, shows.
    return wire.event() if 2 * (wire.given() + wire.texts()) == text.count(b'"') else None
