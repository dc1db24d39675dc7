"""Embedding records: key = id, value = {id, vector (float32 bytes), sequence, ts}; null when the node is gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from .events import Encoding
from .ids import parse_id
from .reasons import InvalidEvent, Reason, shortened
from .records import RecordDecoder
from .values import as_features


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
    vector: list[float] | bytes | memoryview  # float32; numbers in JSON
    sequence: int
    ts: int


class _Sequence(msgspec.Struct):
    sequence: int


class _Read(msgspec.Struct):
    id: str
    vector: list[float] | bytes
    sequence: int
    ts: int


_PACK: Final = msgspec.msgpack.Encoder()
_JSON: Final = msgspec.json.Encoder()
_RECORDS: Final = RecordDecoder(_Read, "an embedding record")
_SEQUENCES: Final = RecordDecoder(_Sequence, "an embedding record")


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


def encode_embedding(embedding: Embedding, encoding: Encoding = "msgpack") -> bytes:
    """The value of one record; its key is the id."""
    node, vector, sequence, ts = embedding
    return encode_embeddings([node], vector[np.newaxis], sequence, ts, encoding)[0]


def decode_embedding(key: bytes | None, value: bytes | None) -> Embedding | Removed:
    """One record, either encoding. Raises InvalidEvent."""
    if value is None:
        try:
            return Removed(parse_id((key or b"").decode()))
        except UnicodeDecodeError:
            raise InvalidEvent(Reason.BAD_ID, f"the key {shortened(key)} is not UTF-8") from None
    read = _RECORDS.decode(value)
    return Embedding(parse_id(read.id), as_features(read.vector), read.sequence, read.ts)


def decode_sequence(value: bytes) -> int:
    """Only the sequence of a record: all that recovery needs of it. Raises InvalidEvent."""
    return _SEQUENCES.decode(value).sequence
