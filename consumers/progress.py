"""Progress records: the last one of a graph, and those that follow."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
from typing import TYPE_CHECKING

from ..log.interface import LogError, LogUnavailableError
from ..schemas.progress import Progress, decode_progress
from ..schemas.reasons import InvalidEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from ..log.interface import Isolation, Log, LogReader, Record

logger = logging.getLogger("dgdm.consumers")

BEHIND = 200  # records before the end where the search for the last one begins
WIDER = 32  # times further back for each search in vain
MARKERS = 0.02  # seconds one read waits near the end: what stands there may be markers, which are no records
RETRY = 0.5  # seconds until a log that did not answer is asked again


async def follow_progress(
    log: Log, topic: str, graph: str, isolation: Isolation = "read_uncommitted"
) -> AsyncIterator[Progress]:
    """The last record of the graph, then each new one; what came in one read is one, its last. Raises LogError."""
    reader = log.reader(topic, isolation)
    await reader.start()
    try:
        latest = await _last(reader, graph)
        while True:
            if latest is not None:
                yield latest
            latest = _latest(await reader.poll(1_000, 0.5), graph)
    finally:
        await reader.close()


async def read_progress(
    log: Log, topic: str, graph: str, isolation: Isolation = "read_uncommitted"
) -> Progress | None:
    """The last record of the graph, or None. Raises LogError."""
    reader = log.reader(topic, isolation)
    await reader.start()
    try:
        return await _last(reader, graph)
    finally:
        await reader.close()


async def require_own_topic(
    log: Log, topic: str, graph: str, isolation: Isolation = "read_uncommitted"
) -> None:
    """Raise LogError when the last record of the topic is of another graph: topics belong to one."""
    reader = log.reader(topic, isolation)
    await reader.start()
    try:
        latest = await _last(reader, None)
    finally:
        await reader.close()
    if latest is not None and latest.graph != graph:
        raise LogError(
            f"{topic} speaks of graph {latest.graph!r}, and this is graph {graph!r}: topics belong to one graph. "
            "Name other topics, or set graph to the one they belong to"
        )


def reached(offsets: Mapping[int, int], wanted: Mapping[int, int]) -> bool:
    """Whether all of these next offsets are at or past the wanted ones."""
    return all(offsets.get(partition, 0) >= end for partition, end in wanted.items())


async def _last(reader: LogReader, graph: str | None) -> Progress | None:
    """Look back from the end, further each time: a compacted topic may not have been cleaned for days."""
    begin, end = await reader.beginning_offsets(), await reader.end_offsets()
    span = BEHIND
    while True:
        start = {p: max(first, end[p] - span) for p, first in begin.items()}
        reader.seek(start)
        latest = None
        while not reached(reader.positions(), end):
            latest = _latest(await reader.poll(10_000, MARKERS), graph) or latest
        if latest is not None or start == begin:
            return latest
        span *= WIDER


def _latest(records: Iterable[Record], graph: str | None) -> Progress | None:
    """The last record of a graph; of any with None."""
    latest = None
    for record in records:
        if (graph is None or record.key == graph.encode()) and record.value is not None:
            try:
                latest = decode_progress(record.value)
            except InvalidEvent as error:
                logger.warning(
                    "skipped progress record %d: %s",
                    record.offset,
                    error,
                    extra={"event": "bad_progress_record"},
                )
    return latest


def again(error: Exception) -> Exception:
    """The same error, new: one that is raised again and again grows its traceback."""
    return copy.copy(error)


class Bell:
    """Wakes everybody who waits, once per ring."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake them."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def wait(self) -> None:
        """Until the next ring."""
        await self._event.wait()


class ProgressFollower:
    """The latest progress record of a graph, kept by a task of its own; a log that is away is asked again."""

    def __init__(self, log: Log, topic: str, graph: str, isolation: Isolation = "read_uncommitted") -> None:
        self.latest: Progress | None = None
        self.problem: Exception | None = None  # why no record comes, for now or for good
        self.heard: Callable[[Progress], None] = lambda _progress: None
        self.topic = topic
        self._arguments: tuple[Log, str, str, Isolation] = (log, topic, graph, isolation)
        self._bell = Bell()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow; may be called again."""
        if self._task is None:
            self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stop following; may be called twice."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def require_alive(self) -> None:
        """Raise what ended the following: a topic that is not there, or must not be read, or `close`."""
        if self._task is not None and self._task.done():
            raise again(self.problem or LogError(f"{self.topic} is no longer followed: closed"))

    async def wait_until(self, enough: Callable[[Progress], bool]) -> Progress:
        """The first record, the latest one included, that is enough. Raises LogError."""
        while self.latest is None or not enough(self.latest):
            self.require_alive()
            await self._bell.wait()
        return self.latest

    async def _follow(self) -> None:
        try:
            while True:
                try:
                    async for progress in follow_progress(*self._arguments):
                        self.latest, self.problem = progress, None
                        self.heard(progress)
                        self._bell.ring()
                except LogUnavailableError as error:
                    if self.problem is None:
                        logger.warning("%s: trying again", error, extra={"event": "progress_unavailable"})
                    self.problem = error
                await asyncio.sleep(RETRY)
        except Exception as error:  # noqa: BLE001 - given to those who wait
            self.problem = error
            logger.warning("no progress is known: %s", error, extra={"event": "progress_lost"})
        finally:
            self._bell.ring()
