"""Events in: records of the events topic, decoded in batches."""

from __future__ import annotations

import math
import time
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..schemas.events import GraphEvent, decode_event
from ..schemas.reasons import InvalidEvent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..log.interface import Isolation, Log, LogReader, Record

LOOK = 0.5  # seconds between two looks for the end of the topic


@dataclass(slots=True)
class EventBatch:
    """Events in log order, and where the log stands behind them."""

    events: list[GraphEvent] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)  # of `events`
    invalid: list[tuple[Record, InvalidEvent]] = field(default_factory=list)
    offsets: dict[int, int] = field(default_factory=dict)  # next to read, after this batch
    last: dict[int, tuple[int, int, int]] = field(default_factory=dict)  # offset, timestamp, crc32


class EventSource:
    """All partitions of the events topic."""

    def __init__(self, log: Log, topic: str, isolation: Isolation) -> None:
        self.topic = topic
        self.reader: LogReader = log.reader(topic, isolation)
        self.lag = 0  # records not read yet, as of the last look
        self._ends: dict[int, int] = {}
        self._ends_at = -math.inf

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
        await self.look_for_the_end()  # first: a look that fails must not lose a batch
        records = await self.reader.poll(max_records, timeout)
        batch = EventBatch()
        newest: dict[int, Record] = {}
        for record in records:
            newest[record.partition] = record
            try:
                event = decode_event(record.value)
            except InvalidEvent as error:
                batch.invalid.append((record, error))
            else:
                batch.events.append(event)
                batch.records.append(record)
        for partition, record in newest.items():
            batch.last[partition] = (record.offset, record.timestamp, self.checksum(record))
        batch.offsets = self.reader.positions()
        self.lag = self.behind(batch.offsets)
        return batch

    def behind(self, offsets: Mapping[int, int]) -> int:
        """Records between these offsets and the end, as of the last look."""
        return sum(max(0, end - offsets.get(p, 0)) for p, end in self._ends.items())

    @staticmethod
    def checksum(record: Record) -> int:
        """What tells a record from another at the same offset."""
        return zlib.crc32(record.value or b"", zlib.crc32(record.key or b""))

    async def look_for_the_end(self) -> None:
        """At most every half second: asking is a round trip. Raises LogError."""
        now = time.monotonic()
        if now - self._ends_at > LOOK:
            self._ends, self._ends_at = await self.reader.end_offsets(), now
