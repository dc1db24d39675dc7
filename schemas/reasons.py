"""Why an event is refused: the slugs of the dgdm-error header and of the dead-letter metric."""

from __future__ import annotations

from enum import StrEnum
from itertools import islice

FEW = 4  # items of a list or map that a message shows


class Reason(StrEnum):
    """One slug for each way an event can be bad."""

    NULL_VALUE = "null-value"
    """The record has no value."""
    UNDECODABLE = "undecodable"
    """Not one well-formed MessagePack or JSON value: cut short, trailing bytes, bad UTF-8, extension types,
    a field given twice, keys that are not text, or nested deeper than 64."""
    WRONG_TYPE = "wrong-type"
    """Not a map, an unknown `type`, a field that is missing, or one whose value is of the wrong kind."""
    BAD_ID = "bad-id"
    """An id that is neither text nor an integer, or not of 1 to 256 UTF-8 bytes."""
    NOT_FINITE = "not-finite"
    """A feature or weight that is NaN, infinite, or beyond the range of float32; a feature so near its end that
    a sum with others could leave it."""
    BAD_WEIGHT = "bad-weight"
    """A weight that is not above 0 once rounded to float32."""
    WRONG_LENGTH = "wrong-length"
    """More or fewer features than the graph has columns."""
    FLOOR = "float32-floor"
    """A feature so large that float32 cannot keep the accuracy that was asked for; see docs/tuning.md."""
    UNKNOWN_NODE = "unknown-node"
    """The node was never added, and unknown_nodes = "reject"."""
    MAX_NODES = "max-nodes"
    """The graph has max_nodes nodes already."""
    MAX_EDGES = "max-edges"
    """The graph has max_edges edges already."""
    OVERFLOW = "weight-overflow"
    """A weight that op = "add" would carry beyond the range of float32."""


class InvalidEvent(ValueError):  # noqa: N818 - the name is part of the public interface
    """An event that cannot be applied; `reason` is the slug, the message names the value and the way out."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def shortened(value: object, limit: int = 80) -> str:
    """A value as it may stand in a message: never long, never unprintable, and cheap however large it is."""
    text = _preview(value, limit, depth=2)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _preview(value: object, limit: int, depth: int) -> str:
    if isinstance(value, str | bytes):
        return ascii(value[: limit + 1])
    if isinstance(value, int) and value.bit_length() > 8 * limit:
        return f"an integer of {value.bit_length()} bits"  # Python refuses to print very long ones
    if isinstance(value, dict):
        pairs = islice(value.items(), FEW if depth else 0)
        shown = [": ".join(_preview(item, limit, depth - 1) for item in pair) for pair in pairs]
        return f"{{{_listed(shown, len(value))}}}"
    if isinstance(value, list | tuple):
        shown = [_preview(item, limit, depth - 1) for item in islice(value, FEW if depth else 0)]
        return f"[{_listed(shown, len(value))}]"
    return ascii(value)


def _listed(shown: list[str], count: int) -> str:
    return ", ".join([*shown, "…"] if count > len(shown) else shown)
