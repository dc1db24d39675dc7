"""Embedding records: key = id, value = {id, vector (float32 bytes), sequence, ts}; null when the node is gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from .events import Encoding, as_features
from .ids import parse_id
from .reasons import InvalidEvent, Reason


class Embedding(NamedTuple):
    """One node's vector as published."""

    id: str
    vector: NDArray[np.float32]  # [F]
    sequence: int  # events applied when it was computed
    ts: int  # milliseconds since the epoch


class Removed(NamedTuple):
    """A node that is gone."""

    id: str


class _Wire(msgspec.Struct):
    id: str
    vector: Any  # float32 bytes, or a list of numbers in JSON
    sequence: int
    ts: int


_PACK = msgspec.msgpack.Encoder()
_JSON = msgspec.json.Encoder()
_UNPACK = msgspec.msgpack.Decoder(_Wire)
_UNJSON = msgspec.json.Decoder(_Wire)


def encode_embeddings(
    ids: Sequence[str], vectors: NDArray[np.float32], sequence: int, ts: int, encoding: Encoding = "msgpack"
) -> list[bytes]:
    """Values of many records at once; vectors [k, F] belong to ids [k]."""
    if encoding == "json":
        return [_JSON.encode(_Wire(i, v.tolist(), sequence, ts)) for i, v in zip(ids, vectors, strict=True)]
    raw, width = memoryview(np.ascontiguousarray(vectors, "<f4").tobytes()), 4 * vectors.shape[1]
    encode = _PACK.encode
    return [
        encode(_Wire(node, raw[at : at + width], sequence, ts))
        for node, at in zip(ids, range(0, len(raw), width), strict=True)
    ]


def decode_embedding(key: bytes | None, value: bytes | None) -> Embedding | Removed:
    """One record, either encoding. Raises InvalidEvent."""
    try:
        if value is None:
            return Removed(parse_id((key or b"").decode()))
        wire = _UNJSON.decode(value) if value[:1] == b"{" else _UNPACK.decode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidEvent(Reason.UNDECODABLE, f"not an embedding record: {error}") from None
    return Embedding(parse_id(wire.id), as_features(wire.vector), wire.sequence, wire.ts)


class _Sequence(msgspec.Struct):
    sequence: int


_SEQUENCE: dict[Literal[True, False], Any] = {
    True: msgspec.json.Decoder(_Sequence),
    False: msgspec.msgpack.Decoder(_Sequence),
}


def decode_sequence(value: bytes) -> int:
    """Only the sequence of a record: all that recovery needs of it. Raises InvalidEvent."""
    try:
        sequence: int = _SEQUENCE[value[:1] == b"{"].decode(value).sequence
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidEvent(Reason.UNDECODABLE, f"not an embedding record: {error}") from None
    return sequence
