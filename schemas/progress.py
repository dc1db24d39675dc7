"""Progress records: the freshness and the error of everything published so far."""

from __future__ import annotations

from typing import Final

import msgspec

from .events import Encoding
from .records import RecordDecoder


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


_RECORDS: Final = RecordDecoder(Progress, "a progress record")


def encode_progress(progress: Progress, encoding: Encoding = "msgpack") -> bytes:
    """The value of a progress record; its key is the graph's name. In JSON the partitions are text."""
    return msgspec.msgpack.encode(progress) if encoding == "msgpack" else msgspec.json.encode(progress)


def decode_progress(value: bytes) -> Progress:
    """A progress record, either encoding. Raises InvalidEvent."""
    return _RECORDS.decode(value)
