"""Staging: events become columns of operations on rows, checked against the limits.

This is the view of the loop, one batch ahead of the arrays: it knows ids and free rows, and touches no array.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..diffusion.apply import ADD_ARC, ADD_ROW, REMOVE_ARC, REMOVE_ROW, SET_ARC, SET_FEATURES
from ..schemas.events import AddEdge, AddNode, GraphEvent, RemoveEdge, RemoveNode, SetFeatures
from ..schemas.reasons import InvalidEvent, Reason, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

FLOAT32_FLOOR = 2.5e-5
"""Accuracy that float32 can keep, as a share of the largest feature (DESIGN §2.2)."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What an event is checked against, and how features become columns of the arrays."""

    features: int
    accuracy: NDArray[np.float64]  # [F]
    offset: NDArray[np.float64]  # [F]
    directed: bool = False
    aggregate: Literal["in", "out"] = "in"
    unknown_nodes: Literal["create", "reject"] = "create"
    max_nodes: int | None = None
    max_edges: int | None = None
    allow_floor: bool = False

    @property
    def scale(self) -> NDArray[np.float64]:
        """[F]: a stored column is (x − offset)·scale, so that one accuracy serves all columns."""
        scale: NDArray[np.float64] = self.accuracy[0] / self.accuracy
        return scale

    def scaled(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features or vectors [.., F] as the arrays hold them."""
        return ((raw - self.offset) * self.scale).astype(np.float32)

    def raw(self, scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors [.., F] in feature units."""
        return (scaled / self.scale + self.offset).astype(np.float32)


@dataclass(slots=True)
class Staged:
    """A batch as columns; births and deaths of rows in their order."""

    kind: list[int] = field(default_factory=list)
    u: list[int] = field(default_factory=list)
    v: list[int] = field(default_factory=list)
    w: list[float] = field(default_factory=list)
    f: list[int] = field(default_factory=list)
    event: list[int] = field(default_factory=list)  # index of the event an operation belongs to
    features: list[NDArray[np.float32]] = field(default_factory=list)
    births: list[tuple[int, str]] = field(default_factory=list)  # (row, id)
    deaths: list[tuple[int, str]] = field(default_factory=list)  # (row or −1, id)
    order: list[bool] = field(default_factory=list)  # True: the next birth, False: the next death
    rejected: list[tuple[int, InvalidEvent]] = field(default_factory=list)
    accepted: int = 0
    rows: int = 0  # rows ever used, after this batch
    consumed: int = 0  # events staged or rejected; the rest waits for exact counts

    def operation(self, event: int, kind: int, u: int, v: int = 0, w: float = 0.0, f: int = -1) -> None:
        """Append one operation."""
        self.kind.append(kind)
        self.u.append(u)
        self.v.append(v)
        self.w.append(w)
        self.f.append(f)
        self.event.append(event)


class Staging:
    """The id table and the free rows."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.rows: dict[str, int] = {}
        self.free: list[int] = []
        self.used = 0

    def stage(
        self,
        events: Sequence[GraphEvent],
        start: int = 0,
        edge_room: int | None = None,
        has_edge: Callable[[str, str], bool] = lambda _source, _target: False,
    ) -> Staged:
        """Columns for events from `start` on. `edge_room`: how many edges may still be added, if limited.

        When edges might exceed the room the batch ends early, so that the next one starts from an exact count
        and can ask `has_edge`.
        """
        batch = Staged()
        index = start
        for index in range(start, len(events)):
            event = events[index]
            if edge_room is not None and isinstance(event, AddEdge):
                if edge_room <= 0 and batch.kind:
                    break
                if edge_room <= 0 and not has_edge(event.source, event.target):
                    batch.rejected.append((index, self._no_edge_room()))
                    continue
                edge_room -= 1
            try:
                self._stage_one(batch, index, event)
            except InvalidEvent as error:
                batch.rejected.append((index, error))
            else:
                batch.accepted += 1
        else:
            index = len(events)
        batch.consumed = index
        batch.rows = self.used
        return batch

    def _stage_one(self, batch: Staged, i: int, event: GraphEvent) -> None:
        if isinstance(event, AddEdge):
            a, b = self.arc(event.source, event.target)
            self._require_nodes(a, b)
            u, v = self._row(batch, i, a), self._row(batch, i, b)
            batch.operation(i, ADD_ARC if event.op == "add" else SET_ARC, u, v, event.weight)
        elif isinstance(event, RemoveEdge):
            a, b = self.arc(event.source, event.target)
            if a in self.rows and b in self.rows:
                batch.operation(i, REMOVE_ARC, self.rows[a], self.rows[b])
        elif isinstance(event, RemoveNode):
            row = self.rows.pop(event.id, -1)
            batch.deaths.append((row, event.id))
            batch.order.append(False)
            if row >= 0:
                batch.operation(i, REMOVE_ROW, row)
                self.free.append(row)
        else:
            self._stage_features(batch, i, event)

    def _no_edge_room(self) -> InvalidEvent:
        return InvalidEvent(
            Reason.MAX_EDGES, f"the graph has max_edges = {self.rules.max_edges} edges already"
        )

    def arc(self, source: str, target: str) -> tuple[str, str]:
        """The arc u → v of P that an edge stands for: a node averages over the nodes its arcs point at."""
        return (target, source) if self._turned else (source, target)

    @property
    def _turned(self) -> bool:
        return self.rules.directed and self.rules.aggregate == "in"

    def _stage_features(self, batch: Staged, i: int, event: AddNode | SetFeatures) -> None:
        x = None if event.features is None else self._checked(event.features)
        if isinstance(event, SetFeatures):
            self._require_nodes(event.id)
        elif event.id not in self.rows:
            self._require_room(1)
        f = -1
        if x is not None:
            f = len(batch.features)
            batch.features.append(x)
        if event.id not in self.rows:
            self._row(batch, i, event.id, f)
        elif f >= 0:
            batch.operation(i, SET_FEATURES, self.rows[event.id], f=f)

    def _checked(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        rules = self.rules
        if len(x) != rules.features:
            raise InvalidEvent(
                Reason.WRONG_LENGTH,
                f"{len(x)} features where this graph has {rules.features}: {shortened(x)}",
            )
        if not rules.allow_floor:
            beyond = np.abs(x - rules.offset) > rules.accuracy / FLOAT32_FLOOR
            if beyond.any():
                c = int(np.argmax(beyond))
                raise InvalidEvent(
                    Reason.FLOOR,
                    f"feature {c} = {x[c]:g} is too large for accuracy {rules.accuracy[c]:g} in float32: raise "
                    f"the accuracy to {abs(float(x[c]) - rules.offset[c]) * FLOAT32_FLOOR:.2g}, set an offset, or "
                    "allow_floor",
                )
        return rules.scaled(x)

    def _require_nodes(self, *ids: str) -> None:
        missing = list(dict.fromkeys(node for node in ids if node not in self.rows))
        if missing and self.rules.unknown_nodes == "reject":
            raise InvalidEvent(
                Reason.UNKNOWN_NODE, f"the node {shortened(missing[0])} is unknown: add it first"
            )
        self._require_room(len(missing))

    def _require_room(self, wanted: int) -> None:
        limit = self.rules.max_nodes
        if wanted and limit is not None and len(self.rows) + wanted > limit:
            raise InvalidEvent(
                Reason.MAX_NODES, f"the graph has {len(self.rows)} nodes and max_nodes = {limit}"
            )

    def _row(self, batch: Staged, i: int, node: str, f: int = -1) -> int:
        row = self.rows.get(node)
        if row is None:
            row = self.free.pop() if self.free else self.used
            self.used = max(self.used, row + 1)
            self.rows[node] = row
            batch.births.append((row, node))
            batch.order.append(True)
            if f < 0 and self.rules.offset.any():
                f = len(batch.features)
                batch.features.append(self.rules.scaled(np.zeros(self.rules.features, np.float32)))
            batch.operation(i, ADD_ROW, row, f=f)
        return row
