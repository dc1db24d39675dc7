"""What dgdm asks of a log: ordered records by topic and partition, offsets, transactions, fencing.

Two logs implement it: `log.kafka` (aiokafka) and `log.sqlite` (files, no server). One test suite runs on
both. A log knows records, not graphs: `consumers` and `producers` give the bytes a meaning.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Isolation = Literal["read_committed", "read_uncommitted"]


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key: the same for every writer, whatever its language."""
    return zlib.crc32(key) % partitions


class LogError(Exception):
    """The log cannot do what was asked; the message says what and names the way out."""


class LogUnavailableError(LogError):
    """No answer, or a fault that a later attempt may not meet: retry."""


class UnknownTopicError(LogError):
    """The topic does not exist."""


def unknown_topic(topic: str, where: str) -> UnknownTopicError:
    """The error that names the topic, the place and the way out."""
    return UnknownTopicError(
        f"there is no topic {topic!r} {where}: `dgdm topics create` makes those of a graph"
    )


class NotAuthorizedError(LogError):
    """Wrong password, or no permission on the topic, group or transactional id."""


class OffsetOutOfRangeError(LogError):
    """The position asked for is outside what the log still holds."""


class ProducerFencedError(LogError):
    """A later producer with the same transactional id has started, or the transaction was timed out."""


class RecordRejectedError(LogError):
    """The log refuses this record for good (its size, for one): retrying will not help."""


class Record(NamedTuple):
    """One record as read."""

    partition: int
    offset: int
    timestamp: int  # milliseconds since the epoch
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class Message(NamedTuple):
    """One record to be written; the log sets the timestamp."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class TopicInfo(NamedTuple):
    """What the log says of a topic."""

    name: str
    partitions: int
    config: Mapping[str, str]  # Kafka's names: cleanup.policy, max.message.bytes, message.timestamp.type, …


class LogReader(Protocol):
    """All partitions of one topic, assigned without a group; at the beginning of the log until `seek`."""

    topic: str

    async def start(self) -> None:
        """Connect. Raises UnknownTopicError, NotAuthorizedError, LogUnavailableError."""

    async def close(self) -> None:
        """Disconnect; may be called twice and after a failed start."""

    @property
    def partitions(self) -> Sequence[int]:
        """Partition numbers, ascending."""

    def seek(self, positions: Mapping[int, int]) -> None:
        """Next offsets to read, by partition."""

    def positions(self) -> dict[int, int]:
        """Next offsets to read, past transaction markers: caught up is `position >= end`."""

    async def poll(self, max_records: int, timeout: float) -> list[Record]:  # noqa: ASYNC109 - the longest wait for the first record
        """Records in offset order within each partition; [] when none came within `timeout` seconds.

        Raises OffsetOutOfRangeError, NotAuthorizedError, UnknownTopicError, LogUnavailableError.
        """

    def known_ends(self) -> dict[int, int]:
        """Ends as `poll` last saw them, under the reader's isolation: without asking, so perhaps a little old."""

    async def beginning_offsets(self) -> dict[int, int]:
        """First offsets the log still holds."""

    async def end_offsets(self) -> dict[int, int]:
        """Ends under the reader's isolation: the high watermark, or the last stable offset."""


class LogWriter(Protocol):
    """An idempotent producer.

    After a ProducerFencedError, a LogUnavailableError or a cancelled call the writer is dead, because what it
    wrote is unknown: every call but `close` repeats the error, and a new writer is the way on.
    """

    async def start(self) -> None:
        """Connect; a transactional writer also fences and aborts its predecessor."""

    async def close(self) -> None:
        """Disconnect, aborting an open transaction; may be called twice and after a failed start."""

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has. Raises UnknownTopicError."""

    async def append(self, topic: str, partition: int, messages: Sequence[Message]) -> int:
        """Write in order and wait for the acknowledgement: the offset after the last message.

        At least one message. One that is too large, or without a key on a compacted topic, is refused before
        anything is written, and the writer lives on.
        Raises RecordRejectedError, UnknownTopicError, NotAuthorizedError, ProducerFencedError,
        LogUnavailableError.
        """


class TransactionalWriter(LogWriter, Protocol):
    """A writer whose records readers of committed data see after `commit`."""

    async def begin(self, ahead: Iterable[tuple[str, int]] = ()) -> None:
        """Open a transaction; its first record in a (topic, partition) of `ahead` need not wait for the log."""

    async def commit(self) -> None:
        """Commit it. Raises ProducerFencedError, LogUnavailableError (outcome unknown).

        The commit is decided when this returns; in Kafka the markers that let readers of committed data (and
        their `end_offsets`) pass are written a moment later, in each partition on its own.
        """

    async def abort(self) -> None:
        """Abort it."""


class Log(Protocol):
    """A place where topics live: a Kafka cluster or a SQLite file."""

    def reader(self, topic: str, isolation: Isolation) -> LogReader:
        """A reader, not started."""

    def writer(self) -> LogWriter:
        """An idempotent writer, not started."""

    def transactional_writer(self, transactional_id: str, timeout: float) -> TransactionalWriter:
        """A transactional writer, not started; `timeout` seconds is the longest life of one transaction."""

    async def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """What is known of each topic that exists. Raises NotAuthorizedError, LogUnavailableError."""

    async def create(self, topic: str, partitions: int, config: Mapping[str, str]) -> bool:
        """Create the topic; False when it exists already."""

    async def commit_group_offsets(self, group: str, topic: str, offsets: Mapping[int, int]) -> None:
        """Record how far a group has read: for lag tools only, nothing here reads it back."""

    async def close(self) -> None:
        """Release what the log itself holds."""
