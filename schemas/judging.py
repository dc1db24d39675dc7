"""The rules of an event, field by field: what `decode_event` asks when an event is not plainly good.

The rules are applied in a fixed order, so that an event with two faults always has the same reason.
"""

from __future__ import annotations

import binascii
import json
import math
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, NoReturn

import msgspec

from .ids import parse_id
from .reasons import InvalidEvent, Reason, shortened
from .values import Vector, as_features, as_weight

Op = Literal["set", "add"]

MAX_DEPTH: Final = 64
"""Lists and maps inside each other, the event itself included: a rule of its own, because the limit of a decoder
depends on how deep the stack happens to be, and a replay must judge as before."""

INT64: Final = 2**63
_BEFORE_JSON: Final = re.compile(rb"(?:[ \t\r\n]|\xef\xbb\xbf)*+(?=\{)")
_LONGEST_NUMBER: Final = 400  # digits: more than any double and any id has


class Field(NamedTuple):
    """A field of an event: how its value is checked, whether it must be there, whether null means absent."""

    check: Callable[[Any], Any]
    required: bool = True
    nullable: bool = False


def _op(value: object) -> Op:
    if value == "set":
        return "set"
    if value == "add":
        return "add"
    raise InvalidEvent(Reason.WRONG_TYPE, f'op is "set" or "add", not {shortened(value)}')


def _ts(value: object) -> int:
    if type(value) is int and -INT64 <= value < INT64:
        return value
    raise InvalidEvent(Reason.WRONG_TYPE, f"ts is whole milliseconds in 64 bits, not {shortened(value)}")


_TS = Field(_ts, required=False, nullable=True)
_EDGE = {"source": Field(parse_id), "target": Field(parse_id)}
FIELDS: Final[dict[str, dict[str, Field]]] = {
    "AddNode": {
        "id": Field(parse_id),
        "features": Field(as_features, required=False, nullable=True),
        "ts": _TS,
    },
    "SetFeatures": {"id": Field(parse_id), "features": Field(as_features), "ts": _TS},
    "RemoveNode": {"id": Field(parse_id), "ts": _TS},
    "AddEdge": {
        **_EDGE,
        "weight": Field(as_weight, required=False),
        "op": Field(_op, required=False),
        "ts": _TS,
    },
    "RemoveEdge": {**_EDGE, "ts": _TS},
}
"""Fields by event type, in the order in which they are checked."""


def judge(value: bytes) -> tuple[str, dict[str, Any]]:
    """The type of an event and its fields, checked, without those that are absent. Raises InvalidEvent."""
    text = json_text(value)
    fields = _unpacked(value) if text is None else _parsed(text)
    if not isinstance(fields, dict):
        raise InvalidEvent(Reason.WRONG_TYPE, f"an event is a map, not {shortened(fields)}")
    kind = fields.get("type")
    if not isinstance(kind, str) or kind not in FIELDS:
        raise InvalidEvent(Reason.WRONG_TYPE, f"type is one of {', '.join(FIELDS)}, not {shortened(kind)}")
    if text is not None and isinstance(fields.get("features"), str):
        fields["features"] = _Base64(fields["features"])
    return kind, check_fields(kind, fields)


def check_fields(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of an event, checked, without those that are absent. Raises InvalidEvent."""
    checked = {}
    for name, field in FIELDS[kind].items():
        if name not in fields or (field.nullable and fields[name] is None):
            if field.required:
                raise InvalidEvent(Reason.WRONG_TYPE, f"{kind} has no {name}")
        elif isinstance(fields[name], _Base64):
            checked[name] = _from_base64(fields[name])
        else:
            checked[name] = field.check(fields[name])
    return checked


def json_text(value: bytes) -> bytes | None:
    """The text from its `{` on, when that is the first byte that is not white space or a BOM; else None."""
    before = _BEFORE_JSON.match(value)
    return None if before is None else value[before.end() :]


class _Base64(str):
    """Text that stands for bytes."""

    __slots__ = ()


def _from_base64(value: str) -> Vector:
    try:
        if len(value) % 4:  # Python 3.11 takes padding where none belongs
            raise binascii.Error
        raw = binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        raise InvalidEvent(Reason.WRONG_TYPE, f"features {shortened(value)} are not base64") from None
    return as_features(raw)


def _undecodable(value: bytes, why: object) -> NoReturn:
    raise InvalidEvent(
        Reason.UNDECODABLE, f"{shortened(value, 40)} cannot be decoded: {shortened(str(why), 160)}"
    )


class _ExtensionError(ValueError):
    """MessagePack's way to carry what JSON has not."""


def _no_extension(code: int, _data: memoryview) -> NoReturn:
    raise _ExtensionError(f"extension types ({code}) are not part of the format")


_UNPACK: Final = msgspec.msgpack.Decoder(ext_hook=_no_extension)


def _unpacked(value: bytes) -> Any:
    try:
        found = _UNPACK.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError) as error:
        _undecodable(value, error)
    if isinstance(found, dict) and len(found) != map_size(value):
        _undecodable(value, "a field is given twice")
    _require_plain(found, value)
    return found


def map_size(value: bytes) -> int:
    """How many keys the map at the start of MessagePack bytes says it has; -1 when it is no map."""
    first = value[0] if value else 0
    if first & 0xF0 == 0x80:
        return first & 0x0F
    return int.from_bytes(value[1 : 3 if first == 0xDE else 5]) if first in (0xDE, 0xDF) else -1


class _Twice(dict[str, Any]):
    """An object with a key that is given twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Twice(found)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_NUMBER else math.inf


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_JSON: Final = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_constant=_no_constant)


def _parsed(text: bytes) -> Any:
    try:
        found = _JSON.decode(text.decode())
    except (ValueError, RecursionError, MemoryError) as error:
        _undecodable(text, error)
    if isinstance(found, _Twice):
        _undecodable(text, "a field is given twice")
    _require_plain(found, text)
    return found


def _require_plain(found: Any, value: bytes) -> None:
    """Text keys, no time stamps, not too deep."""
    level = [found]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, datetime):
                _undecodable(value, "extension types (time stamps) are not part of the format")
            if isinstance(item, dict):
                if not all(type(key) is str for key in item):
                    _undecodable(value, "a key is not text")
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        level = [item for item in inner if isinstance(item, dict | list | datetime)]
        if not level:
            return
    _undecodable(value, f"lists and maps more than {MAX_DEPTH} deep")
