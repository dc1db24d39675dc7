"""Prediction records: an embedding record's fields with a head's outputs as `vector`, and which head it was.

A reader of embeddings reads them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from .embeddings import Removed, decode_embedding
from .events import Encoding
from .records import RecordDecoder


class Prediction(NamedTuple):
    """What a head made of one node's vector as published. It has no bound."""

    id: str
    vector: NDArray[np.float32]  # [out]
    sequence: int  # events applied when the vector was computed
    ts: int  # milliseconds since the epoch
    model: str  # name of the head's file
    digest: str  # of its content


class _Wire(msgspec.Struct):
    id: str
    vector: list[float] | bytes
    sequence: int
    ts: int
    model: str
    digest: str


class _Model(msgspec.Struct):
    model: str
    digest: str


_PACK: Final = msgspec.msgpack.Encoder()
_JSON: Final = msgspec.json.Encoder()
_MODELS: Final = RecordDecoder(_Model, "a prediction record")


def encode_predictions(
    ids: Sequence[str],
    outputs: NDArray[np.float32],
    model: tuple[str, str],
    sequence: int,
    ts: int,
    encoding: Encoding = "msgpack",
) -> list[bytes]:
    """Values of many records at once; outputs [k, out] belong to ids [k], `model` is name and digest."""
    rows = np.ascontiguousarray(outputs, "<f4")
    if encoding == "json":
        return [
            _JSON.encode(_Wire(i, y.tolist(), sequence, ts, *model)) for i, y in zip(ids, rows, strict=True)
        ]
    return [_PACK.encode(_Wire(i, y.tobytes(), sequence, ts, *model)) for i, y in zip(ids, rows, strict=True)]


def decode_prediction(key: bytes | None, value: bytes | None) -> Prediction | Removed:
    """One record, either encoding. Raises InvalidEvent."""
    found = decode_embedding(key, value)
    if isinstance(found, Removed) or value is None:
        return Removed(found.id)
    return Prediction(*found, *msgspec.structs.astuple(_MODELS.decode(value)))
