"""Regions of a moving graph on an accelerator, before push finishes: for many rows that move at once.

Regions are found, and baked, in the background from a copy of the graph; until then, and for whatever they leave,
push does all of it. A region is settled only when a good part of its rows is pending: for single edges push is quicker.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray
from scipy import sparse

from ..diffusion.arrays import PENDING, GraphArrays
from ..diffusion.blocks import Inward, arcs_into, take_over
from .accelerator import Accelerator
from .errors import TpuError
from .metrics import TpuMetrics
from .partition import MAX_ROWS, Rows, given_regions, partition
from .region import POOR, Coupling, Region
from .resolvent import COLUMNS, Doubles

log = structlog.get_logger()

SHARE: Final = 0.05
"""Of a region's rows that must be pending for it to be settled."""
MOST_PASSES: Final = 8
"""Over one region in one turn; a good one needs three or four."""
MOST_ROWS: Final = 16 * MAX_ROWS
"""Of a graph that is cut into regions: baking takes seconds per region, and megabytes."""
GROWN: Final = 1.25
"""Rows, in relation to those when regions were last looked for, at which they are looked for again."""
FIRST_ROWS: Final = 16
"""Fewer are no region."""

RowsOf = Callable[[Sequence[str]], Rows]
"""Ids to rows, negative for those that are no nodes."""


class Given(NamedTuple):
    """A user's own regions, by ids."""

    regions: list[list[str]]
    rows_of: RowsOf


class RegionSettler:
    """A `Settler`. Belongs to the kernel thread; the accelerator is closed with it."""

    def __init__(
        self,
        accelerator: Accelerator,
        alpha: float,
        features: int,
        *,
        given: Given | None = None,
        max_rows: int = MAX_ROWS,
        metrics: TpuMetrics | None = None,
    ) -> None:
        self._accelerator = accelerator
        self._alpha = alpha
        self._features = features
        self._given = given
        self._max_rows = max_rows
        self._metrics = metrics or TpuMetrics()
        self._planner: threading.Thread | None = None
        self._planned: list[Region] | None = None
        self._planned_at = 0  # rows there were
        self._closed = False
        self._warned = False
        self.regions: list[Region] = []
        self._label = np.empty(0, np.int64)

    def settle(self, g: GraphArrays, used: int, epsilon: float) -> None:
        """Regions of which many rows are pending, one after the other."""
        self._plan(g, used)
        if not self.regions:
            return
        pending = g.pending[: g.sizes[PENDING]]
        label = self._label[pending[pending < len(self._label)]]
        counts = np.bincount(label[label >= 0], minlength=len(self.regions))
        for number in np.flatnonzero(counts):
            region = self.regions[number]
            if counts[number] >= SHARE * len(region.rows):
                self._settle(g, region, epsilon)

    def close(self) -> None:
        """Wait for what is baked in the background, unload, close the accelerator."""
        if self._closed:
            return
        self._closed = True
        if self._planner is not None:
            self._planner.join()
        _close_all([*self.regions, *(self._planned or [])])
        self.regions, self._planned = [], None
        self._accelerator.close()

    def wait(self) -> None:
        """Until no region is being looked for; the next `settle` takes what was found."""
        if self._planner is not None:
            self._planner.join()

    def _settle(self, g: GraphArrays, region: Region, epsilon: float) -> None:
        inward = arcs_into(g, region.rows)
        alive = g.alive[region.rows] == 1
        coupling, inner = _coupling(region.rows, inward, alive, self._alpha)
        touched = np.concatenate([region.rows, coupling.boundary])
        live = g.alive[touched] == 1
        for _ in range(MOST_PASSES):
            r = np.ascontiguousarray(g.R[touched, : self._features])
            own = r[: len(region.rows)]
            if float(np.abs(own).max(initial=0.0)) <= epsilon:
                break
            done = region.settle(coupling, r)
            if done.accepted.any():
                rows, delta = region.rows[alive].astype(np.int32), done.delta[alive]
                take_over(g, rows, delta, touched[live].astype(np.int32), done.residual[live], epsilon)
            if done.contraction > POOR or not done.accepted.all():
                break
        if region.wants_baking:
            region.bake_again(inner())

    def _plan(self, g: GraphArrays, used: int) -> None:
        """Look for regions in the background when the graph has grown; take those that were found."""
        if self._planner is not None:
            if self._planner.is_alive():
                return
            self._planner = None
            if self._planned is not None:
                old, self.regions, self._planned = self.regions, self._planned, None
                self._planner = threading.Thread(
                    target=_close_all, args=(old,), name="dgdm-planner", daemon=True
                )
                self._planner.start()
                self._label = np.full(used, -1)
                for number, region in enumerate(self.regions):
                    self._label[region.rows] = number
            return
        if used < max(FIRST_ROWS, GROWN * self._planned_at):
            return
        if used > MOST_ROWS and self._given is None:
            if not self._warned:
                self._warned = True
                log.warning(
                    "regions_too_many",
                    message=f"{used} rows are more than {MOST_ROWS}: push alone, unless regions are given",
                )
            return
        self._planned_at = used
        rows = np.flatnonzero(g.alive[:used] == 1)
        inward = arcs_into(g, rows)
        parts = self._given_rows(used)
        self._planner = threading.Thread(
            target=self._bake, args=(rows, inward, used, parts), name="dgdm-planner", daemon=True
        )
        self._planner.start()

    def _given_rows(self, used: int) -> list[Rows] | None:
        if self._given is None:
            return None
        found = [self._given.rows_of(ids) for ids in self._given.regions]
        known = [rows[rows >= 0] for rows in found]
        return given_regions([rows for rows in known if len(rows)], used, self._max_rows)

    def _bake(self, rows: Rows, inward: Inward, used: int, parts: list[Rows] | None) -> None:
        made: list[Region] = []
        try:
            p = sparse.csr_array((inward.share, (inward.source, rows[inward.place])), shape=(used, used))
            if parts is None:
                live = p[rows][:, rows]
                parts = [rows[part] for part in partition(live, self._max_rows)]
            for part in parts:
                if len(part) < FIRST_ROWS or self._closed:
                    continue
                made.append(
                    Region(
                        part,
                        p[part][:, part].toarray(),
                        self._alpha,
                        self._accelerator,
                        columns=min(self._features, COLUMNS),
                        metrics=self._metrics,
                    )
                )
        except (TpuError, np.linalg.LinAlgError) as error:
            log.warning("regions_not_baked", message=f"push does their work: {error}")
        self._planned = made


def _close_all(regions: list[Region]) -> None:
    """Waits for their bakers."""
    for region in regions:
        region.close()


def _coupling(
    rows: Rows, inward: Inward, alive: NDArray[np.bool_], alpha: float
) -> tuple[Coupling, Callable[[], Doubles]]:
    """C of the graph as it is, and how to get P_SS of it."""
    boundary = np.setdiff1d(inward.source, rows)
    touched = np.concatenate([rows, boundary])
    order = np.argsort(touched)
    at = order[np.searchsorted(touched, inward.source, sorter=order)]
    shape = (len(touched), len(rows))
    p = sparse.csr_array((inward.share, (at, inward.place)), shape=shape)
    own = np.flatnonzero(alive)
    identity = sparse.csr_array((np.ones(len(own)), (own, own)), shape=shape)
    matrix = ((1 - alpha) * p - identity).tocsr().astype(np.float32)
    return Coupling(matrix, boundary), p[: len(rows)].toarray
