"""Dead letters out: at least once, by a plain writer of their own, acknowledged before the checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..log.interface import Message
from ..schemas.deadletters import TRUNCATED, dead_letter_headers

if TYPE_CHECKING:
    from ..log.interface import LogWriter, Record
    from ..schemas.reasons import InvalidEvent

LONGEST = 256 * 1024  # bytes of a value kept: below any topic's default limit
LONGEST_KEY = 16 * 1024
LONGEST_HEADERS = 64 * 1024
BUFFERED = 1_000


class DeadLetterSink:
    """Collects bad records and writes them in batches."""

    def __init__(self, writer: LogWriter, topic: str) -> None:
        self._writer, self._topic = writer, topic
        self._waiting: list[Message] = []

    async def start(self) -> None:
        """See that the topic exists. Raises UnknownTopicError."""
        await self._writer.partitions(self._topic)

    async def put(self, source: str, record: Record, error: InvalidEvent) -> None:
        """Keep a record of topic `source` for the next flush; a full buffer is flushed at once."""
        headers = dead_letter_headers(error, source, record.partition, record.offset)
        value, key = record.value, record.key
        if value is not None and len(value) > LONGEST:
            headers.append((TRUNCATED, str(len(value)).encode()))
            value = value[:LONGEST]
        room = LONGEST_HEADERS
        for name, content in record.headers:
            room -= len(name) + len(content or b"")
            if room >= 0:
                headers.append((name, content or b""))
        self._waiting.append(Message(key[:LONGEST_KEY] if key is not None else None, value, headers))
        if len(self._waiting) >= BUFFERED:
            await self.flush()

    async def flush(self) -> None:
        """Wait until everything put is acknowledged. Raises LogError."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            await self._writer.append(self._topic, 0, waiting)
