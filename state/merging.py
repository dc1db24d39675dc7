"""Several parts of a checkpoint as one: what a later part writes or deletes is not written for an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .store import StoreChanges

Array = NDArray[Any]
Kept = list[NDArray[np.bool_]]  # for each part, which of what it writes


def merged(parts: Sequence[StoreChanges]) -> StoreChanges:
    """What the parts come to when they are applied one after another; at least one."""
    if len(parts) == 1:
        return parts[0]
    freed = [part.freed_rows for part in parts]
    features = _kept([part.feature_rows for part in parts], freed)
    vectors = _kept([part.vector_rows for part in parts], freed)
    raw = _kept([part.raw_rows for part in parts], freed)
    chunks = _kept([_keys(part.chunks) for part in parts], [_keys(part.freed_chunks) for part in parts])
    lengths = [np.diff(part.chunk_ends, prepend=0) for part in parts]
    arcs = [np.repeat(kept, length) for kept, length in zip(chunks, lengths, strict=True)]
    ids = _kept_ids(parts)
    return StoreChanges(
        meta=parts[-1].meta,
        freed_ids=list(dict.fromkeys(chain.from_iterable(part.freed_ids for part in parts))),
        freed_rows=np.unique(np.concatenate(freed)),
        freed_chunks=np.unique(np.concatenate([part.freed_chunks for part in parts]), axis=0),
        ids=list(
            chain.from_iterable(compress(part.ids, kept) for part, kept in zip(parts, ids, strict=True))
        ),
        id_rows=_joined([part.id_rows for part in parts], ids),
        feature_rows=_joined([part.feature_rows for part in parts], features),
        features=_joined([part.features for part in parts], features),
        vector_rows=_joined([part.vector_rows for part in parts], vectors),
        vectors=_joined([part.vectors for part in parts], vectors),
        chunks=_joined([part.chunks for part in parts], chunks),
        chunk_ends=np.cumsum(_joined(lengths, chunks)),
        targets=_joined([part.targets for part in parts], arcs),
        weights=_joined([part.weights for part in parts], arcs),
        raw_rows=_joined([part.raw_rows for part in parts], raw),
        raw=_joined([part.raw for part in parts], raw),
    )


def _keys(chunks: NDArray[np.int32]) -> NDArray[np.int64]:
    """Row and chunk [k, 2] as one number."""
    pairs = chunks.astype(np.int64)
    return pairs[:, 0] << 32 | pairs[:, 1]


def _kept(written: list[Array], deleted: list[Array]) -> Kept:
    """Of the keys that each part writes, those that no later part writes or deletes; a part deletes first."""
    _, place = np.unique(np.concatenate([*written, *deleted]), return_inverse=True)
    places = np.split(place, np.cumsum([len(keys) for keys in (*written, *deleted)])[:-1])
    latest = np.zeros(len(place), np.int32)
    for part, both in enumerate(zip(places[: len(written)], places[len(written) :], strict=True)):
        for at in both:
            latest[at] = part
    return [latest[at] == part for part, at in enumerate(places[: len(written)])]


def _kept_ids(parts: Sequence[StoreChanges]) -> Kept:
    """An id is written again only after it was deleted."""
    latest: dict[str, int] = {}
    for number, part in enumerate(parts):
        latest |= dict.fromkeys(part.freed_ids, number)
    return [
        np.array([latest.get(name, -1) <= number for name in part.ids], np.bool_)
        for number, part in enumerate(parts)
    ]


def _joined(columns: list[Array], kept: Kept) -> Array:
    return np.concatenate([column[rows] for column, rows in zip(columns, kept, strict=True)])
