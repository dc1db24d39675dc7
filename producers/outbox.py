"""Messages on their way to one topic: bounded, in order, written in batches by one task."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING

from ..consumers.progress import Bell, again
from ..log import partition_of
from ..log.interface import LogError

if TYPE_CHECKING:
    from ..log.interface import LogWriter, Message

AHEAD = 4  # batches that may wait before `put` does
LONGEST_BATCH = 4 << 20  # bytes
ROOM = 4 * LONGEST_BATCH  # bytes that may wait before `put` does


class Outbox:
    """The first failure is final: what was written of the batch is unknown, so nothing is written again."""

    def __init__(self, writer: LogWriter, topic: str, *, batch: int, linger: float) -> None:
        self.offsets: dict[int, int] = {}  # after the last acknowledged message, by partition
        self.accepted = self.acknowledged = 0  # messages
        self._writer, self._topic = writer, topic
        self._batch, self._linger = batch, linger
        self._partitions = 1
        self._waiting: deque[Message] = deque()
        self._bytes = 0  # of those that wait
        self._hurried = 0  # flushes under way
        self._something, self._moved = asyncio.Event(), Bell()
        self._failure: Exception | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look the topic up and begin to write. Raises LogError."""
        self._partitions = await self._writer.partitions(self._topic)
        self._task = asyncio.create_task(self._write_all())

    async def put(self, message: Message) -> None:
        """Hand a message over; waits while too many wait already. Raises what writing raised."""
        self.require_alive()
        while len(self._waiting) >= AHEAD * self._batch or self._bytes >= ROOM:
            await self._moved.wait()
            self.require_alive()
        self._waiting.append(message)
        self._bytes += _size(message)
        self.accepted += 1
        self._something.set()

    async def flush(self) -> dict[int, int]:
        """Wait until everything put so far is acknowledged: the offsets after it, by partition."""
        wanted = self.accepted
        self._hurried += 1
        try:
            self.require_alive()
            while self.acknowledged < wanted:
                await self._moved.wait()
                self.require_alive()
        finally:
            self._hurried -= 1
        return dict(self.offsets)

    async def close(self) -> None:
        """Stop writing at once; may be called twice."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._moved.ring()

    def require_alive(self) -> None:
        """Raise what ended the writing."""
        if self._failure is not None:
            raise again(self._failure)
        if self._task is None or self._task.done():
            raise LogError("this producer is not started, or closed: use `async with`, or await start()")

    async def _write_all(self) -> None:
        try:
            while True:
                await self._something.wait()
                if len(self._waiting) < self._batch and not self._hurried:
                    await asyncio.sleep(self._linger)
                messages = self._next_batch()
                for partition, part in self._by_partition(messages).items():
                    self.offsets[partition] = await self._writer.append(self._topic, partition, part)
                self.acknowledged += len(messages)
                self._moved.ring()
        except Exception as error:  # noqa: BLE001 - given to those who send and wait
            self._failure = error
        finally:
            self._moved.ring()

    def _next_batch(self) -> list[Message]:
        messages: list[Message] = []
        size = 0
        while self._waiting and len(messages) < self._batch and size < LONGEST_BATCH:
            messages.append(self._waiting.popleft())
            size += _size(messages[-1])
        self._bytes -= size
        if not self._waiting:
            self._something.clear()
        return messages

    def _by_partition(self, messages: list[Message]) -> dict[int, list[Message]]:
        if self._partitions == 1:
            return {0: messages}
        parts: dict[int, list[Message]] = {}
        for message in messages:
            parts.setdefault(partition_of(message.key or b"", self._partitions), []).append(message)
        return parts


def _size(message: Message) -> int:
    return len(message.key or b"") + len(message.value or b"")
