"""Rows, vectors and chunks of arcs as bytes, the same in every store. All numbers are little-endian.

A vector is F float32; a chunk of k arcs is k targets (int32) and then their k weights (float32); raw features are the 8
bytes of their encoder's digest and then float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ..diffusion.compile import kernel
from .store import (
    MAX_COMMIT_BYTES,
    Meta,
    StoreChanges,
    StoredArcs,
    StoredRaw,
    StoredRows,
    StoreError,
    StoreFormatError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..diffusion.arrays import Ints, Rows

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Meta).decode


def pack_meta(meta: Meta) -> bytes:
    """The meta as MessagePack."""
    return _encode(meta)


def unpack_meta(data: bytes) -> Meta:
    """The meta from `pack_meta`. Raises StoreFormatError."""
    try:
        return _decode(data)
    except msgspec.DecodeError as error:
        raise StoreFormatError(
            f"the stored meta cannot be read ({error}): drop the graph and replay"
        ) from error


def pack_fields(numbers: NDArray[np.int32]) -> list[bytes]:
    """Each row of `numbers` ([k] or [k, m]) as bytes."""
    return _split(np.ascontiguousarray(numbers, dtype="<i4"))


def pack_vectors(vectors: NDArray[np.float32]) -> list[bytes]:
    """Each row of `vectors` ([k, F]) as bytes."""
    return _split(np.ascontiguousarray(vectors, dtype="<f4"))


def _split(array: NDArray[np.int32] | NDArray[np.float32]) -> list[bytes]:
    if not array.size:
        return []
    width = array.nbytes // len(array)
    # A void dtype, unlike "S", keeps trailing zero bytes.
    pieces: list[bytes] = array.reshape(-1).view(f"V{width}").tolist()
    return pieces


def pack_chunks(
    ends: NDArray[np.int64], targets: NDArray[np.int32], weights: NDArray[np.float32]
) -> list[bytes]:
    """Each chunk's targets and weights as bytes; `ends` ([f]) cuts the two columns."""
    data = chunk_words(ends, targets, weights).tobytes()
    stops = (8 * ends).tolist()
    return [data[start:stop] for start, stop in zip([0, *stops[:-1]], stops, strict=True)] if stops else []


def chunk_words(
    ends: NDArray[np.int64], targets: NDArray[np.int32], weights: NDArray[np.float32]
) -> NDArray[np.int32]:
    """The same end to end, in words of four bytes: a chunk ends at twice its entry in `ends`."""
    words = np.empty(2 * len(targets), np.int32)
    _take_turns(ends, targets, np.ascontiguousarray(weights).view(np.int32), words)
    return words.astype("<i4", copy=False)


@kernel
def _take_turns(ends: Ints, targets: Rows, weights: Rows, words: Rows) -> None:
    begin = 0
    for end in ends:
        for k in range(begin, end):
            words[begin + k] = targets[k]
        for k in range(begin, end):
            words[end + k] = weights[k]
        begin = end


def _target_words(ends: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position, in words, of every arc's target when all chunks lie end to end."""
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(ends - lengths, lengths)


def unpack_rows(fields: Sequence[bytes], values: Sequence[bytes], features: int) -> StoredRows:
    """Rows and their vectors. Raises StoreFormatError."""
    return StoredRows(unpack_fields(fields, 1).reshape(-1), unpack_vectors(values, features))


def unpack_raw(rows: NDArray[np.int32], values: Sequence[bytes], raw_features: int) -> StoredRaw:
    """Rows and their raw features. Raises StoreFormatError when one has another width."""
    width = 2 + raw_features
    if any(len(value) != 4 * width for value in values):
        raise StoreFormatError(
            f"a stored row has not the {raw_features} raw features that the graph's meta promises"
        )
    return StoredRaw(rows, unpack_fields(values, width))


def unpack_vectors(values: Sequence[bytes], features: int) -> NDArray[np.float32]:
    """Vectors, [k, features]. Raises StoreFormatError when one has another width."""
    data = b"".join(values)
    if len(data) != 4 * features * len(values) or any(len(value) != 4 * features for value in values):
        raise StoreFormatError(
            f"a stored vector has not the {features} columns that the graph's meta promises"
        )
    return np.frombuffer(data, "<f4").astype(np.float32).reshape(-1, features)


def unpack_fields(fields: Sequence[bytes], numbers: int) -> NDArray[np.int32]:
    """Fields of `numbers` int32 each: [k, numbers]. Raises StoreFormatError."""
    data = b"".join(fields)
    if len(data) != 4 * numbers * len(fields):
        raise StoreFormatError(
            "a stored field is not a row number: another program writes into this graph's keys"
        )
    return np.frombuffer(data, "<i4").astype(np.int32).reshape(-1, numbers)


def unpack_chunks(chunks: NDArray[np.int32], values: Sequence[bytes]) -> StoredArcs:
    """Arcs of chunks ([f, 2]: row, chunk). Raises StoreFormatError."""
    sizes = np.fromiter(map(len, values), np.int64, len(values))
    if (sizes % 8).any():
        raise StoreFormatError("a stored chunk of arcs is torn: drop the graph and replay")
    lengths = sizes // 8
    ends = np.cumsum(lengths)
    words = np.frombuffer(b"".join(values), "<i4")
    where = _target_words(ends, lengths)
    weights = words[where + np.repeat(lengths, lengths)].view("<f4").astype(np.float32)
    return StoredArcs(chunks, ends, words[where].astype(np.int32), weights)


def require_size(changes: StoreChanges) -> None:
    """Raises StoreError when one transaction would be too large."""
    if changes.nbytes > MAX_COMMIT_BYTES:
        raise StoreError(
            f"a checkpoint of {changes.nbytes >> 20} MiB is over the {MAX_COMMIT_BYTES >> 20} MiB that one"
            " transaction may hold: checkpoint earlier (fewer dirty rows), or rewrite in batches"
        )
