"""The wire contract of events, written a second time on top of `msgpack` and `json`."""

from __future__ import annotations

import base64
import json
import re
from typing import Any, NamedTuple, NoReturn

import msgpack
import numpy as np

DEEPEST = 64
LONGEST_ID = 256
BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


class Event(NamedTuple):
    """A valid event."""

    kind: str
    nodes: tuple[str, ...]  # the id, or source and target
    features: np.ndarray | None = None  # float32 [F]
    weight: np.float32 = np.float32(1)
    op: str = "set"
    ts: int | None = None


class _RefusedError(Exception):
    pass


def read(value: bytes | None) -> Event | str:
    """The event of one record, or the slug that says why it is none."""
    try:
        return _read(value)
    except _RefusedError as refused:
        return str(refused)


def _refuse(slug: str) -> NoReturn:
    raise _RefusedError(slug)


def _read(value: bytes | None) -> Event:
    if value is None:
        _refuse("null-value")
    start = 0
    while True:
        if value[start : start + 1] in (b" ", b"\t", b"\r", b"\n"):
            start += 1
        elif value[start : start + 3] == b"\xef\xbb\xbf":
            start += 3
        else:
            break
    is_json = value[start : start + 1] == b"{"
    try:
        tree = _json(value[start:]) if is_json else _msgpack(value)
    except (ValueError, RecursionError, msgpack.UnpackException):
        _refuse("undecodable")
    if not _well_formed(tree):
        _refuse("undecodable")
    if not isinstance(tree, _Map):
        _refuse("wrong-type")
    fields = dict(tree)
    if len(fields) < len(tree):
        _refuse("undecodable")
    return _event(fields, is_json)


class _Map(list):  # type: ignore[type-arg]
    """Pairs as they came, so that nothing is lost and nothing needs to be hashable."""


def _fail(*_: Any) -> NoReturn:
    raise ValueError


def _json(text: bytes) -> Any:
    return json.loads(
        text.decode("utf-8"),
        object_pairs_hook=_Map,
        parse_constant=_fail,
        parse_int=lambda digits: int(digits) if len(digits) < 1_000 else float(digits),
    )


def _msgpack(value: bytes) -> Any:
    return msgpack.unpackb(value, strict_map_key=False, object_pairs_hook=_Map, ext_hook=_fail)


def _well_formed(tree: Any) -> bool:
    waiting = [(tree, 1)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, msgpack.Timestamp):
            return False
        if isinstance(item, list):
            if depth > DEEPEST:
                return False
            if isinstance(item, _Map):
                if any(type(key) is not str for key, _ in item):
                    return False
                waiting += [(inner, depth + 1) for _, inner in item]
            else:
                waiting += [(inner, depth + 1) for inner in item]
    return True


def _event(fields: dict[str, Any], is_json: bool) -> Event:
    kind = fields.get("type")
    if kind == "AddNode":
        nodes = (_id(fields, "id"),)
        given = fields.get("features")
        return Event(kind, nodes, None if given is None else _features(given, is_json), ts=_ts(fields))
    if kind == "SetFeatures":
        nodes = (_id(fields, "id"),)
        return Event(kind, nodes, _features(fields.get("features"), is_json), ts=_ts(fields))
    if kind == "RemoveNode":
        return Event(kind, (_id(fields, "id"),), ts=_ts(fields))
    if kind == "RemoveEdge":
        return Event(kind, (_id(fields, "source"), _id(fields, "target")), ts=_ts(fields))
    if kind == "AddEdge":
        nodes = (_id(fields, "source"), _id(fields, "target"))
        weight = _weight(fields.get("weight", 1.0))
        op = fields.get("op", "set")
        if op not in ("set", "add"):
            _refuse("wrong-type")
        return Event(kind, nodes, None, weight, op, _ts(fields))
    _refuse("wrong-type")


def _id(fields: dict[str, Any], name: str) -> str:
    if name not in fields:
        _refuse("wrong-type")
    given = fields[name]
    if type(given) is int:
        if abs(given) >= 10**LONGEST_ID:
            _refuse("bad-id")
        given = str(given)
    if type(given) is not str:
        _refuse("bad-id")
    try:
        length = len(given.encode("utf-8"))
    except UnicodeEncodeError:
        _refuse("bad-id")
    if length < 1 or length > LONGEST_ID:
        _refuse("bad-id")
    return given


def _float32(number: float) -> np.float32:
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = np.float32(float(number))
    except OverflowError:
        _refuse("not-finite")
    if not np.isfinite(rounded):
        _refuse("not-finite")
    return rounded


def _features(given: Any, is_json: bool) -> np.ndarray:
    if is_json and type(given) is str:
        if not BASE64.fullmatch(given):
            _refuse("wrong-type")
        given = base64.b64decode(given)
    if type(given) is bytes:
        if len(given) % 4 != 0:
            _refuse("wrong-type")
        vector = np.frombuffer(given, "<f4")
        if not np.isfinite(vector).all():
            _refuse("not-finite")
        return vector
    if type(given) is not list or any(type(number) not in (int, float) for number in given):
        _refuse("wrong-type")
    return np.array([_float32(number) for number in given], np.float32)


def _weight(given: Any) -> np.float32:
    if type(given) not in (int, float):
        _refuse("wrong-type")
    weight = _float32(given)
    if not weight > 0:
        _refuse("bad-weight")
    return weight


def _ts(fields: dict[str, Any]) -> int | None:
    given = fields.get("ts")
    if given is None:
        return None
    if type(given) is not int or not -(2**63) <= given <= 2**63 - 1:
        _refuse("wrong-type")
    return given
