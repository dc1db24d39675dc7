"""Latency as a consumer sees it: a node of its own gets new features, and its vector arrives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np

from dgdm.connections import connect_log
from dgdm.consumers.embeddings import EmbeddingStream
from dgdm.log.interface import Isolation, Log, Message
from dgdm.settings import Settings

from .causes import Probe
from .load import encode

NODES = 20  # nodes of the probes
PAUSE = 0.02  # seconds between two
AT_ONCE = 10_000  # records of one read


async def probe(settings: Settings, seen: list[Probe], isolation: Isolation, settling: float) -> None:
    """Until cancelled: from the moment a probe was due to the arrival of its vector, `settling` seconds on.

    Of the vectors of all others only the key is looked at: their consumers have machines of their own.
    """
    log = connect_log(settings)
    sent: dict[bytes | None, float] = {}
    reader = log.reader(settings.embeddings_topic, isolation)
    try:
        await reader.start()
        reader.seek(await reader.end_offsets())
        sending = asyncio.create_task(_send(settings, log, sent))
        settled = time.monotonic() + settling
        try:
            while True:
                arrived = await reader.poll(AT_ONCE, 0.05)
                now = time.monotonic()
                for record in arrived:
                    due = sent.pop(record.key, None)
                    if due is not None and due > settled:  # the first ones have made the nodes of the probes
                        seen.append(Probe(due, now - due))
                if sending.done():
                    sending.result()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    finally:
        await reader.close()
        await log.close()


async def _send(settings: Settings, log: Log, sent: dict[bytes | None, float]) -> None:
    writer = log.writer()
    await writer.start()
    try:
        begun, turn = time.monotonic(), 0
        while True:
            key = f"probe-{turn % NODES}".encode()
            features = np.full(settings.features or 1, (turn // NODES) % 2 + 1.0, np.float32)
            event = {"type": "SetFeatures", "id": key.decode(), "features": features.tobytes()}
            sent.setdefault(key, begun + turn * PAUSE)  # one that was never answered gets older and older
            await writer.append(settings.events_topic, 0, [Message(key, encode(event))])
            turn += 1
            await asyncio.sleep(max(0.0, begun + turn * PAUSE - time.monotonic()))
    finally:
        await writer.close()


async def fresh_vector(settings: Settings, crash: Callable[[], None]) -> float:
    """Seconds from the crash to the vector of an event that was sent after it."""
    log = connect_log(settings)
    writer = log.writer()
    try:
        async with EmbeddingStream(log, settings.embeddings_topic) as stream:
            await writer.start()
            crash()
            begun = time.monotonic()
            features = np.full(settings.features or 1, 3.0, np.float32)
            event = {"type": "SetFeatures", "id": "fresh", "features": features.tobytes()}
            await writer.append(settings.events_topic, 0, [Message(b"fresh", encode(event))])
            while not any(change.id == "fresh" for change in await stream.poll(0.05)):
                pass
            return time.monotonic() - begun
    finally:
        await writer.close()
        await log.close()
