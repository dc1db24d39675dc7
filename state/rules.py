"""What events are checked against, and how features become columns of the arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..schemas.reasons import InvalidEvent, Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLOAT32_FLOOR = 2.5e-5
"""Accuracy that float32 can keep, as a share of the largest feature (DESIGN §2.2)."""

LARGEST = float(np.finfo(np.float32).max) / 8
"""Largest stored feature: differences of vectors and sums of residuals must stay finite too."""


@dataclass(frozen=True)
class Rules:
    """The settings of a graph. Raises ValueError that names the setting."""

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
        """[F]: absent features, as the arrays hold them."""
        return self.scaled(np.zeros(self.features, np.float32))

    @cached_property
    def zeros_fit(self) -> bool:
        """Whether absent features are within reach."""
        return not (np.abs(self.offset) > self.reach).any()

    def out_of_reach(self, x: NDArray[np.float32]) -> InvalidEvent:
        """Why features [F], of which one is too far from its offset, are refused."""
        c = int(np.argmax(np.abs(x - self.offset) > self.reach))
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
