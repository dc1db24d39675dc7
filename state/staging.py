"""Staging: events become columns of operations on rows, checked against the limits.

This is the view of the loop, one batch ahead of the arrays: it knows ids and free rows, and touches no array.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
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

LARGEST = float(np.finfo(np.float32).max) / 8
"""Largest stored feature: differences of vectors and sums of residuals must stay finite too."""


@dataclass(frozen=True)
class Rules:
    """What an event is checked against, and how features become columns of the arrays.

    Raises ValueError that names the setting.
    """

    features: int
    accuracy: NDArray[np.float64]  # [F]
    offset: NDArray[np.float64]  # [F]
    directed: bool = False
    aggregate: Literal["in", "out"] = "in"
    unknown_nodes: Literal["create", "reject"] = "create"
    max_nodes: int | None = None
    max_edges: int | None = None
    allow_floor: bool = False

    def __post_init__(self) -> None:
        if self.features < 1:
            raise ValueError(f"features = {self.features}: a node has at least one")
        for name in ("accuracy", "offset"):
            columns = getattr(self, name)
            if columns.shape != (self.features,):
                raise ValueError(f"{name} has {columns.size} columns and the graph {self.features}")
            good = np.isfinite(columns) & ((columns > 0) if name == "accuracy" else True)
            if not good.all():
                c = int(np.argmin(good))
                asked = "finite and above 0" if name == "accuracy" else "finite"
                raise ValueError(f"{name} of column {c} is {columns[c]}: it must be {asked}")
        for name, allowed in (("aggregate", ("in", "out")), ("unknown_nodes", ("create", "reject"))):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} = {getattr(self, name)!r} is neither {' nor '.join(map(repr, allowed))}"
                )
        for name in ("max_nodes", "max_edges"):
            limit = getattr(self, name)
            if limit is not None and limit < 0:
                raise ValueError(f"{name} = {limit} is negative; None stands for no limit")

    @cached_property
    def scale(self) -> NDArray[np.float64]:
        """[F]: a stored column is (x − offset)·scale, so that one accuracy serves all columns."""
        scale: NDArray[np.float64] = self.accuracy[0] / self.accuracy
        return scale

    @cached_property
    def plain(self) -> bool:
        """Whether stored and raw are the same."""
        return not self.offset.any() and bool((self.scale == 1).all())

    @cached_property
    def reach(self) -> NDArray[np.float64]:
        """[F]: how far from its offset a feature may lie: to the float32 floor, or as far as it stays finite."""
        farthest = LARGEST / self.scale
        return farthest if self.allow_floor else np.minimum(self.accuracy / FLOAT32_FLOOR, farthest)

    @cached_property
    def zeros(self) -> NDArray[np.float32]:
        """[F]: absent features, as the arrays hold them. Raises InvalidEvent when they are out of reach."""
        return self.checked(np.zeros(self.features, np.float32))

    def checked(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Raw features as the arrays hold them. Raises InvalidEvent: their number, float32 floor, size."""
        if len(x) != self.features:
            raise InvalidEvent(
                Reason.WRONG_LENGTH, f"{len(x)} features where this graph has {self.features}: {shortened(x)}"
            )
        beyond = np.abs(x - self.offset) > self.reach
        if beyond.any():
            raise self._out_of_reach(x, int(np.argmax(beyond)))
        return self.scaled(x)

    def _out_of_reach(self, x: NDArray[np.float32], c: int) -> InvalidEvent:
        distance = abs(float(x[c]) - float(self.offset[c]))
        if distance > LARGEST / self.scale[c]:
            return InvalidEvent(
                Reason.NOT_FINITE,
                f"feature {c} = {x[c]:g} would overflow float32 beside others: keep it below "
                f"{LARGEST / self.scale[c]:.2g} from the offset",
            )
        return InvalidEvent(
            Reason.FLOOR,
            f"feature {c} = {x[c]:g} is {distance:g} from its offset, too far for accuracy "
            f"{self.accuracy[c]:g} in float32: raise the accuracy to {distance * FLOAT32_FLOOR:.2g}, set an "
            "offset nearby, or allow_floor",
        )

    def scaled(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features or vectors [.., F] as the arrays hold them: always a copy."""
        if self.plain:
            return raw.astype(np.float32)
        return ((raw - self.offset) * self.scale).astype(np.float32)

    def raw(self, scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors [.., F'] of the arrays in feature units [.., F]: always a copy."""
        known = scaled[..., : self.features]
        if self.plain:
            return known.astype(np.float32)
        return (known / self.scale + self.offset).astype(np.float32)


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
    edges: int = 0  # at most so many new ones
    no_ops: int = 0  # accepted events that staging found to change nothing

    def operation(self, event: int, kind: int, u: int, v: int = 0, w: float = 0.0, f: int = -1) -> None:
        """Append one operation."""
        self.kind.append(kind)
        self.u.append(u)
        self.v.append(v)
        self.w.append(w)
        self.f.append(f)
        self.event.append(event)

    def add_features(self, x: NDArray[np.float32]) -> int:
        """Append stored features [F]; their index."""
        self.features.append(x)
        return len(self.features) - 1


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
        has_edge: Callable[[str, str], bool] | None = None,
    ) -> Staged:
        """Columns for events from `start` on. `edge_room`: at least so many edges may still be added.

        `has_edge` comes when no other batch is on its way: room and answers are then exact, until this batch
        removes something. Where only exact will do the batch ends early (`consumed`) and the next one knows.
        """
        batch = Staged()
        index = start
        for index in range(start, len(events)):
            event = events[index]
            known = False
            if edge_room is not None and isinstance(event, AddEdge) and batch.edges >= edge_room:
                known = has_edge is not None and has_edge(event.source, event.target)
                if not known and (has_edge is None or batch.edges):
                    break
                if not known:
                    batch.rejected.append((index, self._no_edge_room()))
                    continue
            try:
                self._stage_one(batch, index, event)
            except InvalidEvent as error:
                batch.rejected.append((index, error))
                continue
            batch.accepted += 1
            if isinstance(event, AddEdge):
                batch.edges += not known
            elif isinstance(event, RemoveEdge | RemoveNode):
                has_edge = None
        else:
            index = len(events)
        batch.consumed = index
        batch.rows = self.used
        return batch

    def _stage_one(self, batch: Staged, i: int, event: GraphEvent) -> None:
        if isinstance(event, AddEdge):
            a, b = self.arc(event.source, event.target)
            self._require_nodes(a, b)
            if a not in self.rows or b not in self.rows:
                _ = self.rules.zeros  # raises before a row is taken
            u, v = self._row(batch, i, a), self._row(batch, i, b)
            batch.operation(i, ADD_ARC if event.op == "add" else SET_ARC, u, v, event.weight)
        elif isinstance(event, RemoveEdge):
            a, b = self.arc(event.source, event.target)
            if a in self.rows and b in self.rows:
                batch.operation(i, REMOVE_ARC, self.rows[a], self.rows[b])
            else:
                batch.no_ops += 1
        elif isinstance(event, RemoveNode):
            row = self.rows.pop(event.id, -1)
            batch.deaths.append((row, event.id))
            batch.order.append(False)
            if row >= 0:
                batch.operation(i, REMOVE_ROW, row)
                self.free.append(row)
            else:
                batch.no_ops += 1
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
        x = None if event.features is None else self.rules.checked(event.features)
        known = event.id in self.rows
        if isinstance(event, SetFeatures):
            self._require_nodes(event.id)
        elif not known:
            self._require_room(1)
        if not known:
            self._row(batch, i, event.id, x)
        elif x is None:
            batch.no_ops += 1
        else:
            batch.operation(i, SET_FEATURES, self.rows[event.id], f=batch.add_features(x))

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

    def _row(self, batch: Staged, i: int, node: str, x: NDArray[np.float32] | None = None) -> int:
        row = self.rows.get(node)
        if row is None:
            if x is None:
                x = self.rules.zeros
            row = self.free.pop() if self.free else self.used
            self.used = max(self.used, row + 1)
            self.rows[node] = row
            batch.births.append((row, node))
            batch.order.append(True)
            batch.operation(i, ADD_ROW, row, f=batch.add_features(x) if x.any() else -1)
        return row
