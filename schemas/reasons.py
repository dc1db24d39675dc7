"""Why an event is refused: the slugs of the dgdm-error header and of the dead-letter metric."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """One slug for each way an event can be bad."""

    NULL_VALUE = "null-value"
    UNDECODABLE = "undecodable"
    WRONG_TYPE = "wrong-type"
    BAD_ID = "bad-id"
    NOT_FINITE = "not-finite"
    BAD_WEIGHT = "bad-weight"
    WRONG_LENGTH = "wrong-length"
    FLOOR = "float32-floor"
    UNKNOWN_NODE = "unknown-node"
    MAX_NODES = "max-nodes"
    MAX_EDGES = "max-edges"
    OVERFLOW = "weight-overflow"


class InvalidEvent(ValueError):  # noqa: N818 - the name is part of the public interface
    """An event that cannot be applied; `reason` is the slug, the message names the value and the way out."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def shortened(value: object, limit: int = 80) -> str:
    """A value as it may stand in a message: never long, never unprintable."""
    text = ascii(value if not isinstance(value, str | bytes) else value[: limit + 1])
    return text if len(text) <= limit else text[: limit - 1] + "…"
