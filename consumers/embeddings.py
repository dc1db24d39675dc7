"""EmbeddingStream: how programs read embeddings, as changes or as a table."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Literal, Self

from ..log import open_log
from ..log.interface import Isolation, Log, LogReader, Record
from ..schemas.embeddings import Embedding, Removed, decode_embedding
from ..schemas.reasons import InvalidEvent, Reason, shortened
from .progress import ProgressFollower
from .table import Change, EmbeddingTable

if TYPE_CHECKING:
    from types import TracebackType

    from ..log.security import KafkaSecurity

__all__ = ["Change", "Embedding", "EmbeddingStream", "EmbeddingTable", "Removed"]

logger = logging.getLogger("dgdm.consumers")

AT_ONCE = 10_000  # records of one read
IDLE = 0.5  # seconds one read waits for the first record


class EmbeddingStream:
    """Changes of embeddings, in the order of the log.

        async with EmbeddingStream("kafka://localhost:9092") as stream:
            async for change in stream:  # Embedding or Removed
                ...

    `start` is "now", "beginning", or the next offsets to read by partition (a missing one is read from its
    beginning). Records that are no embeddings are counted in `skipped` and logged. Every call raises LogError
    when the log says no; after LogUnavailableError it may be called again and goes on where it was.
    """

    def __init__(
        self,
        log: str | Log,
        topic: str = "dgdm.embeddings",
        *,
        isolation: Isolation = "read_uncommitted",
        start: Literal["now", "beginning"] | Mapping[int, int] = "now",
        progress_topic: str = "dgdm.progress",
        graph: str = "default",
        security: KafkaSecurity | None = None,
    ) -> None:
        self._own_log = isinstance(log, str)
        self._log: Log = open_log(log, security) if isinstance(log, str) else log
        self._reader: LogReader = self._log.reader(topic, isolation)
        self.progress = ProgressFollower(self._log, progress_topic, graph, isolation)
        self._start = start
        self._table: EmbeddingTable | None = None
        self.topic = topic
        self.skipped = 0  # records that are no embeddings

    async def __aenter__(self) -> Self:
        try:
            await self._reader.start()
            begin = await self._reader.beginning_offsets()
            if self._start == "now":
                self._reader.seek(await self._reader.end_offsets())
            else:
                self._reader.seek({**begin, **(self._start if isinstance(self._start, Mapping) else {})})
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        try:
            if self._table is not None:
                await self._table.close()
            await self.progress.close()
            await self._reader.close()
        finally:
            if self._own_log:
                await self._log.close()

    async def __aiter__(self) -> AsyncIterator[Change]:
        while True:
            if self._table is not None:
                raise RuntimeError(
                    "this stream feeds a table: iterate over table.changes(), or open a second one"
                )
            for change in await self.poll():
                yield change

    async def poll(self, timeout: float = IDLE) -> list[Change]:  # noqa: ASYNC109 - the longest wait
        """The next changes; [] when none came within `timeout` seconds. Raises LogError."""
        return [change for change, _ in await self.poll_records(timeout)]

    async def poll_records(self, timeout: float = IDLE) -> list[tuple[Change, Record]]:  # noqa: ASYNC109 - as poll
        """As `poll`, each with the record it came in."""
        changes: list[tuple[Change, Record]] = []
        bad: list[tuple[Record, InvalidEvent]] = []
        for record in await self._reader.poll(AT_ONCE, timeout):
            try:
                changes.append((_decode(record), record))
            except InvalidEvent as error:
                bad.append((record, error))
        if bad:
            self.skipped += len(bad)
            record, why = bad[-1]
            logger.warning(
                "%s: skipped offset %d of partition %d: %s (%d records skipped so far)",
                self.topic,
                record.offset,
                record.partition,
                why,
                self.skipped,
                extra={"event": "bad_embedding"},
            )
        return changes

    def positions(self) -> dict[int, int]:
        """Next offsets to read, by partition."""
        return self._reader.positions()

    async def end(self) -> dict[int, int]:
        """Where the topic ends now, by partition. Raises LogError."""
        return await self._reader.end_offsets()

    async def as_table(self) -> EmbeddingTable:
        """Everything the topic holds from its beginning to now; the table then follows it until the stream closes.

        What the stream reads goes into the table from then on: do not iterate or poll it. Raises LogError.
        """
        if self._table is not None:
            raise RuntimeError("this stream feeds a table already")
        self._reader.seek(await self._reader.beginning_offsets())
        table = EmbeddingTable(self)
        await table.start()
        self._table = table
        return table


def _decode(record: Record) -> Change:
    change = decode_embedding(record.key, record.value)
    if record.key != change.id.encode():  # the key decides what compaction keeps
        raise InvalidEvent(
            Reason.BAD_ID,
            f"the key {shortened(record.key)} is not the id {shortened(change.id)} of the value",
        )
    return change
