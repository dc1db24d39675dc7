"""Progress records: the freshness and the error of everything published so far."""

from __future__ import annotations

import msgspec

from .events import Encoding
from .reasons import InvalidEvent, Reason


class Progress(msgspec.Struct, frozen=True):
    """As of these output offsets every vector a consumer holds is within `bound` of the exact answer."""

    graph: str
    sequence: int  # events applied
    event_offsets: dict[int, int]  # next to read, by partition
    output_offsets: dict[int, int]  # ends of the embeddings topic, by partition
    bound: list[float]  # per feature column, in feature units
    accuracy: list[float]  # what was asked for, likewise
    nodes: int
    arcs: int
    ts: int  # milliseconds since the epoch


def encode_progress(progress: Progress, encoding: Encoding = "msgpack") -> bytes:
    """The value of a progress record; its key is the graph's name. In JSON the partitions are text."""
    return msgspec.msgpack.encode(progress) if encoding == "msgpack" else msgspec.json.encode(progress)


def decode_progress(value: bytes) -> Progress:
    """A progress record, either encoding. Raises InvalidEvent."""
    try:
        if value[:1] == b"{":
            return msgspec.json.decode(value, type=Progress)
        return msgspec.msgpack.decode(value, type=Progress)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidEvent(Reason.UNDECODABLE, f"not a progress record: {error}") from None
