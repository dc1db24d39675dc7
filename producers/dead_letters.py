"""Dead letters out: at least once, by a plain writer of their own, acknowledged before the checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..log.interface import Message, RecordRejectedError
from ..schemas.deadletters import ERROR, MESSAGE, OFFSET, PARTITION, TOPIC, TRUNCATED, dead_letter_headers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..log.interface import LogWriter, Record
    from ..schemas.reasons import InvalidEvent

LONGEST = 256 * 1024  # bytes of a value kept: below any topic's default limit
SHORTEST = 256  # a topic that takes less than a letter of this size is of no use
BUFFERED = 1_000  # letters
BUFFERED_BYTES = 8 << 20
OURS = frozenset({ERROR, MESSAGE, TOPIC, PARTITION, OFFSET, TRUNCATED})
HEADER = 16  # bytes a header takes at least


class DeadLetterSink:
    """Collects bad records and writes them in batches.

    A letter is the original record with headers that say what was wrong and where it stood. What of the original
    is too large for the topic is cut, and the header dgdm-truncated gives the length the value had.
    """

    def __init__(self, writer: LogWriter, topic: str) -> None:
        self._writer, self._topic = writer, topic
        self._longest = LONGEST  # halved until the topic takes it
        self._waiting: list[Message] = []
        self._bytes = 0

    async def start(self) -> None:
        """See that the topic exists. Raises UnknownTopicError."""
        await self._writer.partitions(self._topic)

    async def use(self, writer: LogWriter) -> None:
        """Write through another writer from now on: what the last one did not have acknowledged is kept."""
        self._writer = writer
        await self.start()

    async def put(self, source: str, refused: Iterable[tuple[Record, InvalidEvent]]) -> None:
        """Keep records of topic `source` for the next flush; a full buffer is flushed at once.

        All of them are kept before the log is asked for anything: when it does not answer none is lost.
        """
        for record, error in refused:
            ours = dead_letter_headers(error, source, record.partition, record.offset)
            # A letter that was sent again and is bad again: what was wrong the last time no longer is of interest.
            theirs = [(name, content or b"") for name, content in record.headers if name not in OURS]
            letter = _cut(Message(record.key, record.value, [*theirs, *ours]), self._longest)
            self._waiting.append(letter)
            self._bytes += len(letter.value or b"") + len(letter.key or b"")
        if len(self._waiting) >= BUFFERED or self._bytes >= BUFFERED_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Wait until everything put is acknowledged; what is not is kept for the next flush. Raises LogError."""
        while self._waiting:
            count = len(self._waiting)
            try:
                await self._writer.append(self._topic, 0, self._waiting[:count])
            except RecordRejectedError:
                if self._longest <= SHORTEST:
                    raise
                self._longest //= 2
                self._waiting = [_cut(letter, self._longest) for letter in self._waiting]
            else:
                del self._waiting[:count]
        self._bytes = 0


def _cut(letter: Message, longest: int) -> Message:
    """At most `longest` bytes of value, a quarter of that of key, and as much of the original's headers."""
    value, key, quarter = letter.value, letter.key, longest // 4
    theirs = [header for header in letter.headers if header[0] not in OURS]
    ours = [(name, content[:quarter]) for name, content in letter.headers if name in OURS]
    kept = _first(theirs, quarter)
    cut = kept != theirs or len(value or b"") > longest or len(key or b"") > quarter
    if cut and not any(name == TRUNCATED for name, _ in ours):
        ours.append((TRUNCATED, str(len(value or b"")).encode()))
    if longest < LONGEST and key is None:
        key = b""  # the topic has refused letters: a compacted one refuses those without a key
    return Message(
        key[:quarter] if key is not None else None,
        value[:longest] if value is not None else None,
        [*kept, *ours],
    )


def _first(headers: Sequence[tuple[str, bytes]], room: int) -> list[tuple[str, bytes]]:
    """Those that fit, the last one cut."""
    kept: list[tuple[str, bytes]] = []
    for name, content in headers:
        room -= HEADER + 4 * len(name)
        if room < 0:
            break
        kept.append((name, content[:room]))
        room -= len(kept[-1][1])
    return kept
