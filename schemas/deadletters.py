"""Dead letters: the original record with headers that say what was wrong and where it stood."""

from __future__ import annotations

from .reasons import InvalidEvent

ERROR, MESSAGE = "dgdm-error", "dgdm-message"
TOPIC, PARTITION, OFFSET = "dgdm-topic", "dgdm-partition", "dgdm-offset"
TRUNCATED = "dgdm-truncated"  # bytes of the original value, when it was too large to keep


def dead_letter_headers(
    error: InvalidEvent, topic: str, partition: int, offset: int
) -> list[tuple[str, bytes]]:
    """The headers a dead letter carries beside its own."""
    return [
        (ERROR, error.reason.value.encode()),
        (MESSAGE, str(error).encode(errors="replace")),
        (TOPIC, topic.encode()),
        (PARTITION, str(partition).encode()),
        (OFFSET, str(offset).encode()),
    ]
