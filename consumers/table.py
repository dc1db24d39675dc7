"""EmbeddingTable: the compacted embeddings topic as a mapping that follows it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..log.interface import LogError, LogUnavailableError
from ..schemas.embeddings import Embedding, Removed
from ..schemas.progress import Progress
from .progress import RETRY, Bell, again, reached

if TYPE_CHECKING:
    from .embeddings import EmbeddingStream

logger = logging.getLogger("dgdm.consumers")

Change = Embedding | Removed

IDLE = 0.1  # seconds one read waits: markers of transactions are noticed when it ends
AHEAD = 64  # progress records kept while the table has not read as far as they speak of


class EmbeddingTable(Mapping[str, NDArray[np.float32]]):
    """Id → vector [F] (read-only), as the embeddings topic says; made by `EmbeddingStream.as_table`.

    It follows the topic by itself while its stream is open. When the log stays away it tries again; any other
    fault ends the following, is logged, and is raised by every method that waits.
    """

    def __init__(self, stream: EmbeddingStream) -> None:
        self._stream = stream
        self._embeddings: dict[str, Embedding] = {}
        self._positions: dict[int, int] = {}  # of what is in the table
        self._ahead: deque[Progress] = deque()
        self._progress: Progress | None = None
        self._listeners: list[dict[str, Change]] = []
        self._bell = Bell()
        self._failure: Exception | None = None
        self._task: asyncio.Task[None] | None = None

    def __getitem__(self, node: str) -> NDArray[np.float32]:
        return self._embeddings[node].vector

    def __iter__(self) -> Iterator[str]:
        return iter(self._embeddings)

    def __len__(self) -> int:
        return len(self._embeddings)

    def embedding(self, node: str) -> Embedding:
        """A node's whole record. Raises KeyError."""
        return self._embeddings[node]

    def update(self, changes: list[Change]) -> None:
        """Take in what `EmbeddingStream.poll` gave: for those who feed a table themselves."""
        for change in changes:
            if isinstance(change, Removed):
                self._embeddings.pop(change.id, None)
            else:
                change.vector.setflags(write=False)
                self._embeddings[change.id] = change
            for waiting in self._listeners:
                waiting.pop(change.id, None)
                waiting[change.id] = change
        self._positions = self._stream.positions()
        self._advance()

    @property
    def progress(self) -> Progress | None:
        """The latest progress record that the table has caught up with: its sequence, and its bound.

        As of this record every vector here was within `bound` of the exact answer; those that changed since are
        newer. None while there is no such record.
        """
        return self._progress

    def positions(self) -> dict[int, int]:
        """Next offsets, by partition: what is before them is in the table."""
        return dict(self._positions)

    async def ready(self) -> None:
        """Wait until the table holds what the topic held when this was called. Raises LogError."""
        end = await self._stream.end()
        await self._until(lambda: reached(self._positions, end))

    async def wait_for(
        self,
        target: Progress | Mapping[int, int] | int,
        timeout: float = 30.0,  # noqa: ASYNC109 - the user's patience
    ) -> None:
        """Wait until the table reflects a sequence, event offsets (of `GraphProducer.flush`) or a progress record.

        Raises TimeoutError, LogError.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._until(
                    lambda: self._reflects(target), needs_progress=not isinstance(target, Progress)
                )
        except TimeoutError:
            at = "no progress record" if self._progress is None else f"sequence {self._progress.sequence}"
            if isinstance(target, Mapping):
                what = f"event offsets {dict(target)}"
            else:
                what = f"sequence {target.sequence if isinstance(target, Progress) else target}"
            raise TimeoutError(
                f"{self._stream.topic} did not reach {what} in {timeout:g} s, the table is at {at}: "
                "is a worker running (`dgdm doctor`)?"
            ) from None

    def _reflects(self, target: Progress | Mapping[int, int] | int) -> bool:
        if isinstance(target, Progress):
            return reached(self._positions, target.output_offsets)
        if self._progress is None:
            return False
        if isinstance(target, Mapping):
            return reached(self._progress.event_offsets, target)
        return self._progress.sequence >= target

    async def changes(self) -> AsyncIterator[Change]:
        """What changes from the first step on; while you are busy, a node's later change replaces the earlier one.

        Ends when the stream is closed. Raises LogError.
        """
        waiting: dict[str, Change] = {}
        self._listeners.append(waiting)
        try:
            while not self._closed:
                while waiting:
                    yield waiting.pop(next(iter(waiting)))
                self._require_alive()
                await self._bell.wait()
        finally:
            self._listeners = [one for one in self._listeners if one is not waiting]

    async def start(self) -> None:
        """Read to the end as of now, then follow. Raises LogError."""
        self._stream.progress.heard = self._take_progress
        self._stream.progress.start()
        end = await self._stream.end()
        self._positions = self._stream.positions()
        while not reached(self._positions, end):
            self.update(await self._stream.poll(IDLE))
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stop following; may be called twice."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._bell.ring()

    @property
    def _closed(self) -> bool:
        return self._task is not None and self._task.cancelled()

    async def _until(self, done: Callable[[], bool], *, needs_progress: bool = False) -> None:
        while not done():
            self._require_alive()
            if needs_progress:
                self._stream.progress.require_alive()
            await self._bell.wait()

    def _require_alive(self) -> None:
        if self._failure is not None:
            raise again(self._failure)
        if self._closed:
            raise LogError(f"the table of {self._stream.topic} is no longer followed: its stream is closed")

    def _take_progress(self, progress: Progress) -> None:
        ends = progress.output_offsets
        # One that speaks of more than this one does is of a topic that is no more.
        self._ahead = deque(earlier for earlier in self._ahead if reached(ends, earlier.output_offsets))
        if len(self._ahead) == AHEAD:
            self._ahead.pop()  # not the oldest, which is reached first
        self._ahead.append(progress)
        self._advance()

    def _advance(self) -> None:
        while self._ahead and reached(self._positions, self._ahead[0].output_offsets):
            self._progress = self._ahead.popleft()
        self._bell.ring()

    async def _follow(self) -> None:
        away = False
        try:
            while True:
                try:
                    changes = await self._stream.poll(IDLE)
                except LogUnavailableError as error:
                    if not away:
                        logger.warning("%s: trying again", error, extra={"event": "table_unavailable"})
                    away = True
                    await asyncio.sleep(RETRY)
                else:
                    away = False
                    self.update(changes)
        except Exception as error:  # noqa: BLE001 - given to those who wait
            self._failure = error
            logger.error(  # noqa: TRY400 - a sentence, not a traceback
                "the table of %s is no longer followed: %s",
                self._stream.topic,
                error,
                extra={"event": "table_lost"},
            )
        finally:
            self._bell.ring()
