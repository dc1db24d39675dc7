"""The next batch of events: read, and what an encoder makes of it, while the kernel works on the last one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from .consumers.events import EventBatch

if TYPE_CHECKING:
    from .consumers.events import EventSource
    from .state.encoding import Encoded, Encoding

IDLE = 0.2  # seconds one poll waits for the first record
FEW = 128  # records: a batch of fewer is worked off at once, a larger one read while the kernel works on the last


class Read(NamedTuple):
    """Records, their values, and what an encoder has made of them."""

    batch: EventBatch
    values: list[bytes | None]
    encoded: Encoded | None


NOTHING = Read(EventBatch((), {}, {}), [], None)


class Reading:
    """One batch ahead of who takes them."""

    def __init__(self, source: EventSource, most: int, encoding: Encoding | None) -> None:
        """A batch has `most` records at most, and FEW more."""
        self._source, self._most, self._encoding = source, most, encoding
        self._task: asyncio.Task[Read] | None = None

    @property
    def task(self) -> asyncio.Task[Read]:
        """The read under way, or done and not taken yet."""
        if self._task is None:
            self._task = asyncio.create_task(self._read())
        return self._task

    async def take(self) -> Read:
        """What has been read, of which the task is done; the next one is begun. Raises LogError.

        A batch of few was complete as soon as the kernel began with the last one: what has come since would wait for
        another turn.
        """
        read = self.task.result()
        if self._encoding is None and 0 < len(read.values) < FEW:
            read = _plain(await self._source.more(read.batch, FEW))
        self._task = asyncio.create_task(self._read())
        return read

    async def stop(self) -> None:
        """Drop what is under way."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _read(self) -> Read:
        read, encoding = _plain(await self._source.poll(self._most, IDLE)), self._encoding
        if encoding is None or not read.values:
            return read
        return read._replace(encoded=await asyncio.to_thread(encoding.encode, read.values))


def _plain(batch: EventBatch) -> Read:
    return Read(batch, [record.value for record in batch.records], None)
