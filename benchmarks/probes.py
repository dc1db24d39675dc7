"""Latency as a consumer sees it: a node of its own gets new features, and its vector arrives."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Self

import numpy as np

from dgdm.connections import connect_log
from dgdm.consumers.embeddings import EmbeddingStream
from dgdm.log.interface import Isolation, Log, Message
from dgdm.schemas.embeddings import Embedding
from dgdm.settings import Settings

from .load import encode

NODES = 20  # nodes of the probes
PAUSE = 0.02  # seconds between two
SETTLING = 2.0  # seconds before the first that counts


async def probe(settings: Settings, times: list[float], isolation: Isolation) -> None:
    """Until cancelled: seconds from the moment a probe was due to the arrival of its vector."""
    log = connect_log(settings)
    sent: dict[str, float] = {}
    try:
        async with EmbeddingStream(log, settings.embeddings_topic, isolation=isolation) as stream:
            sending = asyncio.create_task(_send(settings, log, sent))
            settled = time.monotonic() + SETTLING
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
                            times.append(now - due)
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


class FreshVector:
    """A consumer that waits for the vector of an event of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._log = settings, connect_log(settings)
        self._stream = EmbeddingStream(self._log, settings.embeddings_topic)

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stream.__aexit__(*error)
        await self._log.close()

    async def arrives(self) -> float:
        """Send the event; the moment its vector is there."""
        writer = self._log.writer()
        await writer.start()
        try:
            features = np.full(self._settings.features or 1, 3.0, np.float32)
            event = {"type": "SetFeatures", "id": "fresh", "features": features.tobytes()}
            await writer.append(self._settings.events_topic, 0, [Message(b"fresh", encode(event))])
        finally:
            await writer.close()
        while not any(change.id == "fresh" for change in await self._stream.poll(0.05)):
            pass
        return time.monotonic()
