"""Embedding and progress records as bytes, made by another library than the one under test."""

from __future__ import annotations

import msgpack
import numpy as np

from dgdm.log import Message


def vector(node: str, numbers: list[float], sequence: int = 1) -> Message:
    value = {
        "id": node,
        "vector": np.array(numbers, "<f4").tobytes(),
        "sequence": sequence,
        "ts": 1_700_000_000_000,
    }
    return Message(node.encode(), msgpack.packb(value))


def gone(node: str) -> Message:
    return Message(node.encode(), None)


def progress(sequence: int, *, events: int, output: int, graph: str = "default") -> Message:
    value = {
        "graph": graph,
        "sequence": sequence,
        "event_offsets": {0: events},
        "output_offsets": {0: output},
        "bound": [0.01],
        "accuracy": [0.01],
        "nodes": 2,
        "arcs": 2,
        "ts": 1_700_000_000_000,
    }
    return Message(graph.encode(), msgpack.packb(value))
