"""Latency as a consumer sees it: a node of its own gets new features, and its vector arrives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np

from dgdm.connections import connect_log
from dgdm.consumers.embeddings import EmbeddingStream
from dgdm.log.interface import Isolation, Log, Message
from dgdm.schemas.embeddings import Embedding
from dgdm.settings import Settings

from .causes import Probe
from .load import encode

NODES = 20  # nodes of the probes
PAUSE = 0.02  # seconds between two


async def probe(settings: Settings, seen: list[Probe], isolation: Isolation, settling: float) -> None:
    """Until cancelled: from the moment a probe was due to the arrival of its vector, `settling` seconds on."""
    log = connect_log(settings)
    sent: dict[str, float] = {}
    try:
        async with EmbeddingStream(log, settings.embeddings_topic, isolation=isolation) as stream:
            sending = asyncio.create_task(_send(settings, log, sent))
            settled = time.monotonic() + settling
            try:
                while True:
                    arrived = [
                        change.id for change in await stream.poll(0.05) if isinstance(change, Embedding)
                    ]
                    now = time.monotonic()
                    for name in arrived:
                        due = sent.pop(name, None)
                        if (
                            due is not None and due > settled
                        ):  # the first ones have made the nodes of the probes
                            seen.append(Probe(due, now - due))
                    if sending.done():
                        sending.result()
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
    finally:
        await log.close()


async def _send(settings: Settings, log: Log, sent: dict[str, float]) -> None:
    writer = log.writer()
    await writer.start()
    try:
        begun, turn = time.monotonic(), 0
        while True:
            name = f"probe-{turn % NODES}"
            features = np.full(settings.features or 1, (turn // NODES) % 2 + 1.0, np.float32)
            event = {"type": "SetFeatures", "id": name, "features": features.tobytes()}
            sent.setdefault(name, begun + turn * PAUSE)  # one that was never answered gets older and older
            await writer.append(settings.events_topic, 0, [Message(name.encode(), encode(event))])
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
