"""Settling a region on an accelerator: an approximate answer in int8, judged by the exact residual in float32.

R' = R + C D is the residual after adding D to the region's vectors, C the coupling of the graph as it is now. A column
of D is taken only if the largest |R'| of that column, over all rows it touches, is smaller than before. So whatever the
accelerator answers (quantised, out of date, wrong) the certificate ‖H* − H‖∞ ≤ ‖R‖∞/α holds; it can only be slow.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray
from scipy import sparse

from .accelerator import Accelerator
from .errors import TpuError
from .metrics import TpuMetrics
from .model import CpuModel, Raw, from_raw, to_raw
from .network import Floats
from .partition import Rows
from .resolvent import COLUMNS, Baked, Doubles, bake, scaled_columns, summed

log = structlog.get_logger()

POOR: Final = 0.5
"""A pass that leaves more than this of the residual is a poor one."""
PATIENCE: Final = 3
"""Poor passes in a row until the region wants to be baked again."""
RAW_TOLERANCE: Final = 4
"""Steps that outputs of two kernels may differ."""


class Coupling(NamedTuple):
    """How a region's vectors enter residuals, in the graph as it is now.

    A row of the region that has left the graph since has an empty row and an empty column.
    """

    matrix: sparse.csr_array  # C [n + b, n]: (1−α) P, less the identity on the region's own rows
    boundary: Rows  # [b] rows outside that point into the region


class Judged(NamedTuple):
    """An answer held against the residual; columns that are not taken are as they were."""

    delta: Floats
    residual: Floats
    taken: NDArray[np.bool_]
    contraction: float


class Pass(NamedTuple):
    """What became of one pass."""

    delta: Floats  # D [n, F], 0 in the columns that were not taken
    residual: Floats  # [n + b, F] afterwards
    accepted: NDArray[np.bool_]  # [F]
    contraction: float  # of the region's own largest residual, were all columns taken


def coupling_of(p: sparse.csr_array, rows: Rows, alpha: float) -> Coupling:
    """Of P [N, N] and a region's rows [n]. (A stream builds it from its arrays, row by row.)"""
    columns = p.tocsc()[:, rows]
    touched = np.unique(columns.indices)
    boundary = np.setdiff1d(touched, rows)
    matrix = ((1 - alpha) * columns.tocsr()[np.concatenate([rows, boundary])]).tocsr()
    identity = sparse.eye_array(*matrix.shape, format="csr")
    return Coupling((matrix - identity).tocsr().astype(np.float32), boundary.astype(np.int64))


class Region:
    """A region with its resolvent baked in. One thread settles; baking may go on in another.

    `p` is P_SS [n, n] as it is now. Raises ModelError and MissingRuntimeError.
    """

    def __init__(
        self,
        rows: Rows,
        p: Doubles,
        alpha: float,
        accelerator: Accelerator,
        *,
        columns: int = COLUMNS,
        metrics: TpuMetrics | None = None,
    ) -> None:
        self.rows = rows
        self._alpha = alpha
        self._accelerator = accelerator
        self._columns = columns
        self._metrics = metrics or TpuMetrics()
        self._poor, self._patience = 0, PATIENCE
        self._baker: threading.Thread | None = None
        self._next: Baked | None = None
        self.bakes = 0
        self._use(bake(p, alpha, accelerator, columns=columns))

    @property
    def baked(self) -> Baked:
        """What is in use."""
        return self._baked

    @property
    def wants_baking(self) -> bool:
        """Whether it has contracted badly, and nobody is baking yet."""
        return self._poor >= self._patience and self._baker is None

    def settle(self, coupling: Coupling, residual: Floats) -> Pass:
        """One pass: residuals [n + b, F] of the region's rows, then of the boundary's, to D and the new residuals."""
        self._take_over()
        delta = np.zeros((len(self.rows), residual.shape[1]), np.float32)
        after = residual.copy()
        accepted = np.zeros(residual.shape[1], bool)
        contraction = 0.0
        gone = coupling.matrix.indptr[1:] == coupling.matrix.indptr[:-1]
        for start in range(0, residual.shape[1], self._columns):
            part = slice(start, start + self._columns)
            judged = self._columns_pass(coupling.matrix, residual[:, part], gone[: len(self.rows)])
            delta[:, part], after[:, part], accepted[part] = judged[:3]
            contraction = max(contraction, judged.contraction)
        self._count(contraction)
        self._metrics.passes.labels("accepted" if accepted.all() else "rejected").inc()
        return Pass(delta, after, accepted, contraction)

    def _count(self, contraction: float) -> None:
        if contraction > POOR:
            self._poor += 1
        else:
            self._poor, self._patience = 0, PATIENCE

    def bake_again(self, p: Doubles, on_end: Callable[[], None] = lambda: None) -> None:
        """In the background, for P_SS as it is now; used from the pass after it is done. `on_end` tells that it is."""
        self._baker = threading.Thread(target=self._bake, args=(p, on_end), name="dgdm-baker", daemon=True)
        self._baker.start()

    def close(self) -> None:
        """Wait for the baker and unload."""
        if self._baker is not None:
            self._baker.join()
            self._take_over()
        self._accelerator.unload(self._baked.model.digest)

    def _bake(self, p: Doubles, on_end: Callable[[], None]) -> None:
        try:
            self._next = bake(p, self._alpha, self._accelerator, columns=self._columns)
        except (TpuError, np.linalg.LinAlgError) as error:
            log.warning("region_not_baked", message=f"the old one stays in use: {error}")
        on_end()

    def _take_over(self) -> None:
        if self._baker is not None and not self._baker.is_alive():
            # one that is poor when fresh is not the better for being baked again and again
            self._baker, self._poor, self._patience = None, 0, 2 * self._patience
            if self._next is not None:
                old, fresh, self._next = self._baked, self._next, None
                self._use(fresh)
                self._accelerator.unload(old.model.digest)
                self._metrics.bakes.inc()

    def _use(self, baked: Baked) -> None:
        self._baked = baked
        self._spec, self._outputs = baked.signature
        self._twin: CpuModel | None = None
        self.bakes += 1

    def _columns_pass(self, matrix: sparse.csr_array, r: Floats, gone: NDArray[np.bool_]) -> Judged:
        n, f = len(self.rows), r.shape[1]
        scaled, scale = scaled_columns(r[:n], self._columns)
        x = to_raw(scaled, self._spec).reshape(self._spec.shape)
        largest = np.abs(r).max(axis=0, initial=0.0)

        def judge(outputs: list[Raw]) -> Judged:
            parts = [from_raw(q, s) for q, s in zip(outputs, self._outputs, strict=True)]
            delta = summed(parts, f, n) * scale
            delta[gone] = 0  # rows that have left the graph since
            after = r + matrix @ delta
            taken = np.abs(after).max(axis=0, initial=0.0) < largest
            contraction = float(np.abs(after[:n] / scale).max(initial=0.0))
            result = np.where(taken, delta, 0), np.where(taken, after, r), taken | (largest == 0)
            return Judged(*result, contraction)

        judged: list[Judged] = []

        def check(outputs: list[Raw]) -> str | None:
            judged[:] = [judge(outputs)]
            return None if judged[0].taken.all() else self._differs(x, outputs)

        answer = self._accelerator.run(self._baked.model.digest, x, check)
        return judged[0] if answer.by == "device" else judge(answer.outputs)

    def _differs(self, x: Raw, outputs: list[Raw]) -> str | None:
        """A rejected answer is the device's fault if the CPU's is another; else the region is out of date."""
        if self._twin is None:
            self._twin = CpuModel(self._baked.model.content)
        for given, expected in zip(outputs, self._twin.invoke(x), strict=True):
            off = int(np.abs(given.astype(np.int16) - expected).max())
            if off > RAW_TOLERANCE:
                return f"a rejected answer is {off} steps off the CPU's"
        return None
