"""Events of a graph as a log holds them: node and edge records with text ids, made a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

PIECE = 10_000  # records


def name_of(row: int) -> str:
    """Ids as people give them."""
    return f"node-{row}"


def node_records(x: Any, first: int = 0) -> Iterator[list[bytes]]:
    """AddNode of every row of x [n, F], numbered from `first` on."""
    encode = msgspec.msgpack.encode
    for start in range(0, len(x), PIECE):
        yield [
            encode({"type": "AddNode", "id": name_of(first + start + i), "features": row.tobytes()})
            for i, row in enumerate(x[start : start + PIECE])
        ]


def edge_records(edges: Any, weights: Any, piece: int = PIECE) -> Iterator[list[bytes]]:
    """AddEdge of every pair of rows [k, 2]."""
    encode = msgspec.msgpack.encode
    for start in range(0, len(edges), piece):
        pairs = edges[start : start + piece].tolist()
        yield [
            encode({"type": "AddEdge", "source": name_of(u), "target": name_of(v), "weight": w})
            for (u, v), w in zip(pairs, weights[start : start + piece].tolist(), strict=True)
        ]
