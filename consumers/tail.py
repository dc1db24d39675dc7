"""The tail of the output: what consumers were sent after the last checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..schemas.embeddings import decode_sequence
from ..schemas.ids import parse_id
from ..schemas.reasons import InvalidEvent
from .progress import MARKERS, reached

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..log.interface import Log


@dataclass(frozen=True, slots=True)
class Tail:
    """Keys whose last record is unknown, the highest sequence among them, and where the topic begins and ends."""

    keys: frozenset[str]
    sequence: int
    begin: dict[int, int]
    end: dict[int, int]


async def read_tail(log: Log, topic: str, offsets: Mapping[int, int]) -> Tail:
    """Read keys and sequences from these offsets to the end, committed or not. Raises LogError."""
    reader = log.reader(topic, "read_uncommitted")
    await reader.start()
    try:
        begin, end = await reader.beginning_offsets(), await reader.end_offsets()
        # An offset past the end: the topic was created again, all of it is tail.
        start = {p: max(first, offsets.get(p, 0)) for p, first in begin.items()}
        start = {p: begin[p] if at > end[p] else at for p, at in start.items()}
        reader.seek(start)
        keys: set[str] = set()
        highest = 0
        while not reached(reader.positions(), end):
            for record in await reader.poll(10_000, MARKERS):
                node = _node(record.key)
                if node is None:
                    continue
                keys.add(node)
                if record.value is not None:
                    try:
                        highest = max(highest, decode_sequence(record.value))
                    except InvalidEvent:
                        continue  # a stranger's value: the key is republished all the same
        return Tail(frozenset(keys), highest, begin, end)
    finally:
        await reader.close()


def _node(key: bytes | None) -> str | None:
    """The id that is the key; None for a key that no embedding can have: a stranger's record."""
    try:
        return parse_id(key.decode()) if key is not None else None
    except (InvalidEvent, UnicodeDecodeError):
        return None
