"""From what the store and the log hold to a graph that may be served again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .store import GraphStore, LastRecord, Meta, Owner, StoreConflictError, StoreError


class HistoryLostError(StoreError):
    """The log no longer holds what the store needs to go on from; `accept_lost_history` starts all the same."""


class StoredGraphMismatchError(StoreError):
    """A frozen setting differs from the stored graph's."""


@dataclass(frozen=True, slots=True)
class LogBounds:
    """What a log still holds of a topic, by partition: first offset and end."""

    begin: Mapping[int, int]
    end: Mapping[int, int]


def take_ownership(store: GraphStore, token: str) -> Owner:
    """Become the one whose writes the store accepts, whoever was before. Raises StoreUnavailableError."""
    while True:
        try:
            return store.take(token, store.owner())
        except StoreConflictError:
            continue  # another one was faster in between: the last to take it owns it


def require_same_graph(stored: Meta, wanted: Meta) -> None:
    """Raises StoredGraphMismatchError that names both values and the way out."""
    for name in ("features", "directed", "aggregate", "partitions"):
        old, new = getattr(stored, name), getattr(wanted, name)
        if name == "aggregate" and not stored.directed:
            continue
        if old != new:
            raise StoredGraphMismatchError(
                f"{name} = {new!r}, but the stored graph has {old!r}: set it back, or use another graph name"
            )
    _require_same_encoding(stored.raw_features, wanted.raw_features)


def _require_same_encoding(stored: int, wanted: int) -> None:
    if stored == wanted:
        return
    if not wanted:
        raise StoredGraphMismatchError(
            f"encoder is not set, but the stored graph has features that one made of {stored} raw ones: set it, or use "
            "another graph name"
        )
    what = "those of its events" if not stored else f"made of {stored} raw ones"
    raise StoredGraphMismatchError(
        f"encoder takes {wanted} features, but those of the stored graph are {what}: set it back, or use another graph "
        "name"
    )


def require_history(stored: Meta | None, bounds: LogBounds, topic: str) -> None:
    """Check that the log continues where the store ends. Raises HistoryLostError with both offsets."""
    for partition, begin in bounds.begin.items():
        end = bounds.end[partition]
        where = f"{topic}[{partition}]"
        next_offset = stored.event_offsets.get(partition, 0) if stored else 0
        if stored is None and begin > 0:
            raise HistoryLostError(
                f"the store is empty, and {where} begins at offset {begin}, not 0: events are gone. "
                "Restore the store, or start with accept_lost_history to build the graph from what is left"
            )
        if not begin <= next_offset <= end:
            raise HistoryLostError(
                f"the store continues at offset {next_offset} of {where}, which holds {begin} to {end}. "
                "Restore the topic, or start with accept_lost_history to go on from what it holds"
            )


def require_last_record(stored: LastRecord, found: LastRecord | None, where: str) -> None:
    """Check that the log holds the very record that was applied last. Raises HistoryLostError."""
    if found != stored:
        raise HistoryLostError(
            f"the record at offset {stored.offset} of {where} is not the one that was applied: the topic was "
            f"created again (stored {stored}, found {found}). Use another graph name, or start with "
            "accept_lost_history to go on"
        )


def resume_offsets(stored: Meta | None, bounds: LogBounds) -> dict[int, int]:
    """Where to continue, held within what the log has."""
    resumed = {}
    for partition, begin in bounds.begin.items():
        wanted = stored.event_offsets.get(partition, 0) if stored else 0
        resumed[partition] = min(max(wanted, begin), bounds.end[partition])
    return resumed


def output_was_lost(stored: Meta, output: LogBounds) -> bool:
    """Whether consumers may miss vectors the store takes for published: then all are published again."""
    return any(
        output.end.get(partition, 0) < offset or output.begin.get(partition, 0) > 0
        for partition, offset in stored.output_offsets.items()
    )
