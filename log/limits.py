"""What a topic accepts: the checks that both logs make before anything is written.

A broker that refuses a record poisons the idempotent producer that sent it, so the size is computed here,
exactly as Kafka's record batch format v2 stores a batch of this one record
(kafka.apache.org/documentation, "Record Batch").
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from .interface import LogError, Message, OffsetOutOfRangeError, RecordRejectedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BATCH_OVERHEAD = 61
DEFAULT_MAX_MESSAGE_BYTES = 1_048_588
_PER_HEADER = 10
_PER_RECORD = 32
_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


class TopicLimits(NamedTuple):
    """What `append` has to know of a topic."""

    partitions: int
    max_message_bytes: int
    compacted: bool


def limits_of(partitions: int, config: Mapping[str, str]) -> TopicLimits:
    """From Kafka's configuration names; defaults where one is missing."""
    return TopicLimits(
        partitions,
        int(config.get("max.message.bytes", DEFAULT_MAX_MESSAGE_BYTES)),
        "compact" in config.get("cleanup.policy", "delete"),
    )


def roughly(message: Message) -> int:
    """Bytes of a record within a batch: never too few, cheap."""
    key, value, headers = message
    size = (len(key) if key else 0) + (len(value) if value else 0) + _PER_RECORD
    if headers:
        size += sum(4 * len(name) + len(given or b"") + _PER_HEADER for name, given in headers)
    return size


def single_batch_bytes(message: Message) -> int:
    """Bytes of a batch with this record only: what `max.message.bytes` is compared with."""
    body = 3 + _field(message.key) + _field(message.value) + _varint(len(message.headers))
    for name, value in message.headers:
        body += _field(name.encode()) + _field(value)
    return BATCH_OVERHEAD + _varint(body) + body


def check_messages(topic: str, limits: TopicLimits, partition: int, messages: Sequence[Message]) -> list[int]:
    """What each is roughly long.

    Raises LogError or RecordRejectedError when any of these cannot be written; nothing is written then.
    """
    if not messages:
        raise LogError(f"append to {topic!r} without a message")
    if not 0 <= partition < limits.partitions:
        raise LogError(
            f"topic {topic!r} has no partition {partition}: it has {limits.partitions}, counted from 0"
        )
    if limits.compacted and any(message.key is None for message in messages):
        raise RecordRejectedError(
            f"a record without a key cannot be written to {topic!r}: the topic is compacted"
        )
    most, sizes = limits.max_message_bytes, [roughly(message) for message in messages]
    if max(sizes) + BATCH_OVERHEAD > most:
        size = max(single_batch_bytes(message) for message in messages)
        if size > most:
            raise RecordRejectedError(
                f"a record of {size} bytes does not fit topic {topic!r}, whose max.message.bytes is {most}"
            )
    return sizes


def check_new_topic(topic: str, partitions: int) -> None:
    """Raise LogError when no log could create this topic."""
    if not _NAME.fullmatch(topic) or topic in {".", ".."}:
        raise LogError(f"{topic!r} is no topic name: 1 to 249 of A-Z a-z 0-9 . _ - and not . or ..")
    if partitions < 1:
        raise LogError(f"topic {topic!r} cannot have {partitions} partitions: at least 1")


def check_seek(topic: str, known: Mapping[int, object], positions: Mapping[int, int]) -> None:
    """Raise LogError when a seek names a partition that is not there or a negative offset."""
    for partition, offset in positions.items():
        if partition not in known:
            raise LogError(f"topic {topic!r} has no partition {partition}: it has {sorted(known)}")
        if offset < 0:
            raise OffsetOutOfRangeError(
                f"offset {offset} of {topic!r} partition {partition}: offsets start at 0"
            )


def _field(data: bytes | None) -> int:
    return 1 if data is None else _varint(len(data)) + len(data)


def _varint(value: int) -> int:
    """Length of a zigzag varint."""
    return max(1, -((value << 1).bit_length() // -7))
