"""Load for the whole pipeline: events as bytes, sent at a rate whatever comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from dgdm.log.interface import Log, Message

encode = msgspec.msgpack.Encoder().encode
AT_ONCE = 20_000  # messages of one write when nothing is to be late


def graph_events(random: np.random.Generator, nodes: int, edges: int, width: int) -> Iterator[Message]:
    """Nodes 0 … with features of length 1, then edges between any two."""
    for begin in range(0, nodes, AT_ONCE):
        x = random.standard_normal((min(AT_ONCE, nodes - begin), width), np.float32)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        for node, features in enumerate(x, begin):
            yield _message(node, {"type": "AddNode", "id": node, "features": features.tobytes()})
    yield from edge_events(random, nodes, edges)


def edge_events(random: np.random.Generator, nodes: int, count: int) -> Iterator[Message]:
    """New edges, or new weights of edges that are there."""
    for begin in range(0, count, AT_ONCE):
        size = min(AT_ONCE, count - begin)
        pairs = random.integers(0, nodes, (size, 2)).tolist()
        weights = random.uniform(0.5, 2, size).tolist()
        for (a, b), w in zip(pairs, weights, strict=True):
            yield _message(a, {"type": "AddEdge", "source": a, "target": b, "weight": w})


def _message(node: int, event: dict[str, Any]) -> Message:
    return Message(str(node).encode(), encode(event))


async def send_all(log: Log, topic: str, messages: Iterable[Message]) -> int:
    """As fast as the log takes them; how many."""
    writer, sent, left = log.writer(), 0, iter(messages)
    await writer.start()
    try:
        while part := list(islice(left, AT_ONCE)):
            await writer.append(topic, 0, part)
            sent += len(part)
    finally:
        await writer.close()
    return sent


async def send_at(log: Log, topic: str, messages: list[Message], rate: float, pause: float) -> float:
    """At a fixed rate, whatever comes back: what is due goes out as soon as the last write is acknowledged.

    Returns how many were sent per second.
    """
    writer = log.writer()
    await writer.start()
    begun, sent = time.monotonic(), 0
    try:
        while sent < len(messages):
            due = min(len(messages), int((time.monotonic() - begun) * rate) + 1)
            if due > sent:
                await writer.append(topic, 0, messages[sent:due])
                sent = due
            await asyncio.sleep(pause)
        return sent / (time.monotonic() - begun)
    finally:
        await writer.close()
