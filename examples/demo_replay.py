"""Replaying the year: events out through GraphProducer, embeddings and progress in, and what was measured."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Awaitable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..consumers.embeddings import EmbeddingStream
from ..consumers.progress import follow_progress
from ..producers.graph import GraphProducer
from ..schemas.embeddings import Embedding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..log.interface import Log
    from ..schemas.events import GraphEvent
    from ..schemas.progress import Progress
    from ..settings import Settings

T = TypeVar("T")

WINDOW = 4_000
"""Events the producer may be ahead of the embeddings: the back-pressure. Smaller is sooner, larger is faster."""


@dataclass
class Meter:
    """What the demo measures; the screen reads it."""

    sent: int = 0
    covered: int = 0  # events the embeddings reflect, as the progress topic says
    published: int = 0  # records read from the embeddings topic
    minute: int = 0  # simulated, since 2013-01-01 00:00 UTC
    started: float = 0.0  # monotonic: first event sent
    ended: float = 0.0  # monotonic: last event covered
    kills: int = 0
    recovery: float = 0.0  # seconds from SIGKILL to the first progress record of the successor
    state: str = "starting"
    progress: Progress | None = None
    sent_at: array[float] = field(default_factory=lambda: array("d"))
    latency: array[float] = field(default_factory=lambda: array("d"))  # seconds, of each covered event

    @property
    def elapsed(self) -> float:
        """Seconds since the first event."""
        return ((self.ended or time.monotonic()) - self.started) if self.started else 0.0

    @property
    def rate(self) -> float:
        """Events per second, from the first sent to the last covered."""
        return self.covered / self.elapsed if self.elapsed else 0.0

    def percentile(self, q: float, last: int | None = None) -> float:
        """Milliseconds from sending an event to reading the progress that covers it, of all or the last ones."""
        values = self.latency[-last:] if last else self.latency
        return float(np.percentile(np.frombuffer(values), q)) * 1000 if values else 0.0


class Replay:
    """One producer, one reader of embeddings, one of progress; `run` keeps the readers going meanwhile."""

    def __init__(self, log: Log, settings: Settings) -> None:
        self.meter = Meter()
        self._log, self._settings = log, settings
        self._producer = GraphProducer(log, settings.events_topic)
        self._stream = EmbeddingStream(log, settings.embeddings_topic, start="beginning")
        self.table: dict[str, NDArray[np.float32]] = {}  # what a consumer holds, live
        self.changed: dict[str, NDArray[np.float32] | None] = {}  # as it was before, since last cleared
        self._progressed, self._read = asyncio.Event(), asyncio.Event()
        self._after = 0  # progress records older than this (ms since 1970) are the dead worker's

    async def run(self, body: Awaitable[T], *others: Coroutine[Any, Any, None]) -> T:
        """Await `body` while the readers and `others` run; whoever fails first fails it."""
        async with self._producer, self._stream:
            main = asyncio.ensure_future(body)
            aside = (self._follow_progress(), self._follow_table(), *others)
            tasks = [asyncio.create_task(coroutine) for coroutine in aside]
            everything: set[asyncio.Future[Any]] = {main, *tasks}
            try:
                await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    if task.done():
                        task.result()
                return await main
            finally:
                for future in everything:
                    future.cancel()
                await asyncio.gather(*everything, return_exceptions=True)

    async def send(self, event: GraphEvent, minute: int) -> None:
        """Send one event as soon as the window allows."""
        meter = self.meter
        while meter.sent - meter.covered >= WINDOW:
            await self._wait(self._progressed)
        now = time.monotonic()
        meter.started = meter.started or now
        meter.minute = minute
        meter.sent_at.append(now)
        meter.sent += 1
        await self._producer.send(event)

    async def settle(self) -> Progress:
        """Wait until the table reflects every event sent: the progress record that says so."""
        await self._producer.flush()
        while self.meter.covered < self.meter.sent or self.meter.progress is None:
            await self._wait(self._progressed)
        progress = self.meter.progress
        while not reached(self._stream.positions(), progress.output_offsets):
            await self._wait(self._read)
        return progress

    def forget_worker(self) -> None:
        """It is dead: what progress says from now on is its successor's."""
        self.meter.progress, self._after = None, int(time.time() * 1000)

    async def first_progress(self) -> None:
        """Wait for a sign of life of the worker that was started last, which may have come before."""
        while self.meter.progress is None:
            await self._wait(self._progressed)

    async def _follow_progress(self) -> None:
        meter = self.meter
        async for progress in follow_progress(self._log, self._settings.progress_topic, self._settings.graph):
            if progress.ts < self._after:
                continue
            meter.progress = progress
            covered, now = progress.event_offsets.get(0, 0), time.monotonic()
            if covered > meter.covered:
                meter.latency.extend(now - sent for sent in meter.sent_at[meter.covered : covered])
                meter.covered = covered
            self._progressed.set()

    async def _follow_table(self) -> None:
        while True:
            changes = await self._stream.poll(0.1)
            for change in changes:
                if change.id not in self.changed:
                    self.changed[change.id] = self.table.get(change.id)
                if isinstance(change, Embedding):
                    self.table[change.id] = change.vector
                    self.meter.published += 1
                else:
                    self.table.pop(change.id, None)
            self._read.set()

    @staticmethod
    async def _wait(event: asyncio.Event) -> None:
        event.clear()
        await event.wait()


def reached(positions: Mapping[int, int], offsets: Mapping[int, int]) -> bool:
    """Whether a reader has come to these offsets."""
    return all(positions.get(p, 0) >= end for p, end in offsets.items())


async def log_values(log: Log, topic: str, end: int) -> list[bytes | None]:
    """The values of the first `end` records of a one-partition topic, as bytes. Raises LogError."""
    reader = log.reader(topic, "read_committed")
    await reader.start()
    try:
        reader.seek(await reader.beginning_offsets())
        values: list[bytes | None] = []
        while reader.positions().get(0, 0) < end:
            values += [r.value for r in await reader.poll(20_000, 1.0) if r.offset < end]
        return values
    finally:
        await reader.close()
