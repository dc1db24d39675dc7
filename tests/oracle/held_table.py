"""What a consumer holds, read from raw records, and how far it is from the truth."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgpack
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def table(
    records: Iterable[tuple[bytes, bytes | None]], held: dict[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Vectors float32 [F] by id after (key, value) records in log order: the last one per key counts.

    `held` is what was held before them, and is changed.
    """
    held = {} if held is None else held
    for key, value in records:
        node = key.decode("utf-8")
        if value is None:
            held.pop(node, None)
            continue
        record = json.loads(value) if value[:1] == b"{" else msgpack.unpackb(value)
        if record["id"] != node:
            raise ValueError(f"the key {node!r} carries a value of {record['id']!r}")
        vector = record["vector"]
        held[node] = (
            np.frombuffer(vector, "<f4") if isinstance(vector, bytes) else np.array(vector, np.float32)
        )
    return held


def largest_error(exact: Mapping[str, np.ndarray], held: Mapping[str, np.ndarray]) -> float:
    """L∞ over all nodes; infinite when one is missing or too many, or a vector is not a number."""
    if exact.keys() != held.keys():
        return float("inf")
    error = max((float(np.abs(held[node] - h).max(initial=0)) for node, h in exact.items()), default=0.0)
    return error if np.isfinite(error) else float("inf")
