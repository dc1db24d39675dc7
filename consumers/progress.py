"""Progress records: the last one of a graph, and those that follow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ..schemas.progress import Progress, decode_progress
from ..schemas.reasons import InvalidEvent

if TYPE_CHECKING:
    from ..log.interface import Isolation, Log, Record

BEHIND = 200  # records before the end where following begins: one of them is the graph's, or none is


async def follow_progress(
    log: Log, topic: str, graph: str, isolation: Isolation = "read_uncommitted"
) -> AsyncIterator[Progress]:
    """The last record of the graph, then each new one. Raises LogError."""
    reader = log.reader(topic, isolation)
    await reader.start()
    try:
        begin, end = await reader.beginning_offsets(), await reader.end_offsets()
        reader.seek({p: max(begin[p], end[p] - BEHIND) for p in begin})
        while True:
            latest = _latest(await reader.poll(1_000, 0.5), graph)
            if latest is not None:
                yield latest
    finally:
        await reader.close()


async def read_progress(
    log: Log, topic: str, graph: str, isolation: Isolation = "read_uncommitted"
) -> Progress | None:
    """The last record of the graph, or None. Raises LogError."""
    reader = log.reader(topic, isolation)
    await reader.start()
    try:
        begin, end = await reader.beginning_offsets(), await reader.end_offsets()
        reader.seek(begin)
        latest = None
        while any(reader.positions().get(p, 0) < end[p] for p in end):
            latest = _latest(await reader.poll(10_000, 1.0), graph) or latest
        return latest
    finally:
        await reader.close()


def _latest(records: list[Record], graph: str) -> Progress | None:
    latest = None
    for record in records:
        if record.key == graph.encode() and record.value is not None:
            try:
                latest = decode_progress(record.value)
            except InvalidEvent:
                continue  # a stranger's record
    return latest
