"""Events in: records of the events topic, in batches. What they say is for others to read."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..log.interface import Isolation, Log, LogReader, Record


class EventBatch(NamedTuple):
    """Records in log order, and where the log stands behind them."""

    records: Sequence[Record]
    offsets: Mapping[int, int]  # next to read, after this batch
    last: Mapping[int, tuple[int, int, int]]  # by partition: offset, timestamp, crc32


class EventSource:
    """All partitions of the events topic."""

    def __init__(self, log: Log, topic: str, isolation: Isolation) -> None:
        self.topic = topic
        self.reader: LogReader = log.reader(topic, isolation)
        self.lag = 0  # records not read yet, as far as `poll` knows
        self._asked: dict[int, int] = {}

    async def start(self) -> None:
        """Connect."""
        await self.reader.start()

    async def close(self) -> None:
        """Disconnect."""
        await self.reader.close()

    def seek(self, positions: Mapping[int, int]) -> None:
        """Where to go on."""
        self.reader.seek(positions)

    async def poll(self, max_records: int, timeout: float) -> EventBatch:  # noqa: ASYNC109 - as of the log
        """The next events; an empty batch when none came within `timeout` seconds. Raises LogError."""
        records = await self.reader.poll(max_records, timeout)
        newest = {record.partition: record for record in records}
        last = {p: (r.offset, r.timestamp, self.checksum(r)) for p, r in newest.items()}
        batch = EventBatch(records, self.reader.positions(), last)
        self.lag = self.behind(batch.offsets)
        return batch

    async def more(self, batch: EventBatch, most: int) -> EventBatch:
        """The batch and what has come since, at most so many records more, without waiting. Raises LogError."""
        later = await self.poll(most, 0.0)
        return EventBatch([*batch.records, *later.records], later.offsets, {**batch.last, **later.last})

    def behind(self, offsets: Mapping[int, int]) -> int:
        """Records between these offsets and the end, as far as it is known."""
        ends = self.reader.known_ends()
        return sum(max(0, end, self._asked.get(p, 0)) - offsets.get(p, 0) for p, end in ends.items())

    async def ask_for_the_end(self) -> None:
        """Who does not poll knows nothing of it. Raises LogError."""
        self._asked = await self.reader.end_offsets()

    @staticmethod
    def checksum(record: Record) -> int:
        """What tells a record from another at the same offset."""
        return zlib.crc32(record.value or b"", zlib.crc32(record.key or b""))
