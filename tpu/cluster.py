"""Several devices: regions spread over them, batches to the one with the least to do."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Self, Unpack

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..diffusion.exact import transition
from .accelerator import Accelerator, Answer, Check, Signature
from .edge import Options, open_accelerator
from .errors import ModelError, TpuError
from .metrics import TpuMetrics
from .model import ModelFile, Raw, require_finite
from .network import Floats
from .partition import MAX_ROWS, PartitionStrategy, partition
from .region import Coupling, Region, coupling_of
from .resolvent import COLUMNS

FLOOR = 2.5e-5
"""Share of the largest feature below which float32 keeps no accuracy."""


class ArcGraph(NamedTuple):
    """A graph in arrays: row `rows[k]` points at `targets[k]` with `weights[k]` > 0. An undirected edge is two arcs."""

    features: Floats  # [n, F]
    rows: NDArray[np.integer]
    targets: NDArray[np.integer]
    weights: NDArray[np.floating]


class Diffused(NamedTuple):
    """An answer with its certificate, and what it took."""

    vectors: Floats  # [n, F]
    bound: float  # largest error there can be, in feature units
    passes: int  # over all regions
    sweeps: int  # plain ones, where the regions did not help
    regions: int


class TpuCluster:
    """Devices by their paths, or accelerators that are open already. An accelerator itself: for encoders and heads.

    A device that dies costs time: the CPU answers for it. Raises ModelError.
    """

    def __init__(
        self,
        devices: Sequence[str | Accelerator],
        partition_strategy: PartitionStrategy = PartitionStrategy.EDGE_CUT,
        *,
        max_rows: int = MAX_ROWS,
        columns: int = COLUMNS,
        **options: Unpack[Options],
    ) -> None:
        if not devices:
            raise ModelError("a cluster of no devices: name at least one, or cpu")
        self.name = "cluster"
        self._metrics = options.setdefault("metrics", TpuMetrics())
        self._accelerators = [open_accelerator(d, **options) if isinstance(d, str) else d for d in devices]
        self._strategy = PartitionStrategy(partition_strategy)
        self._max_rows = max_rows
        self._columns = columns
        self._threads = ThreadPoolExecutor(len(devices), "dgdm-cluster")

    # An accelerator.

    @property
    def needs_compiled(self) -> bool:
        """Whether one of them does."""
        return any(accelerator.needs_compiled for accelerator in self._accelerators)

    def load(self, model: ModelFile) -> Signature:
        """Make a model ready on all. Raises ModelError."""
        signatures = [accelerator.load(model) for accelerator in self._accelerators]
        return signatures[0]

    def unload(self, digest: str) -> None:
        """Forget it on all, once this was called as often as `load`."""
        for accelerator in self._accelerators:
            accelerator.unload(digest)

    def run(self, digest: str, x: Raw, check: Check | None = None) -> Answer:
        """One invocation, where the least work waits; devices that are not fit come last."""
        return min(self._accelerators, key=lambda a: a.queued_seconds).run(digest, x, check)

    @property
    def queued_seconds(self) -> float:
        """The least of all."""
        return min(accelerator.queued_seconds for accelerator in self._accelerators)

    def close(self) -> None:
        """Close all devices; may be called twice."""
        self._threads.shutdown()
        for accelerator in self._accelerators:
            accelerator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # A solver.

    def distributed_diffusion(self, graph: ArcGraph, alpha: float = 0.15, accuracy: float = 0.01) -> Diffused:
        """The fixed point H = αX + (1−α) P H within `accuracy`, in feature units.

        All regions are settled at once, then the residual is computed exactly; columns that it did not shrink get a
        plain sweep, which always shrinks it by 1−α. Raises ModelError, also for an accuracy beyond float32.
        """
        x = _checked(graph, alpha, accuracy)
        p = transition(graph.rows, graph.targets, graph.weights, len(x))
        regions: list[Region] = []
        try:
            self._bake(p, alpha, regions)
            return _iterate(self._threads, regions, p, x, alpha, accuracy)
        finally:
            for region in regions:
                region.close()

    def _bake(self, p: sparse.csr_array, alpha: float, regions: list[Region]) -> None:
        parts = sorted(partition(p, self._max_rows, self._strategy), key=len, reverse=True)
        work = [0.0] * len(self._accelerators)
        for rows in parts:  # the largest first, each to whom has the least so far
            least = min(range(len(work)), key=work.__getitem__)
            work[least] += float(len(rows)) ** 2
            inner = p[rows][:, rows].toarray()
            regions.append(
                Region(
                    rows,
                    inner,
                    alpha,
                    self._accelerators[least],
                    columns=self._columns,
                    metrics=self._metrics,
                )
            )


def _checked(graph: ArcGraph, alpha: float, accuracy: float) -> Floats:
    x = np.ascontiguousarray(graph.features, np.float32)
    weights = np.asarray(graph.weights)
    if x.ndim != 2:
        raise ModelError(f"features {x.shape}: want [n, F]")
    require_finite(x, "features")
    if not 0 < alpha <= 1:
        raise ModelError(f"alpha = {alpha} is not in (0, 1]")
    for name, ends in (("rows", graph.rows), ("targets", graph.targets)):
        if len(ends) != len(weights) or (len(ends) and not (np.min(ends) >= 0 and np.max(ends) < len(x))):
            raise ModelError(f"{name}: want {len(weights)} numbers from 0 to {len(x) - 1}")
    if len(weights) and not (np.isfinite(weights).all() and weights.min() > 0):
        raise ModelError("weights: want finite numbers above 0")
    floor = FLOOR * float(np.abs(x).max(initial=0.0))
    if not accuracy > floor:
        raise ModelError(
            f"accuracy = {accuracy} is below {floor:.3g}, which float32 cannot keep for these features"
        )
    return x


def _iterate(
    threads: ThreadPoolExecutor,
    regions: list[Region],
    p: sparse.csr_array,
    x: Floats,
    alpha: float,
    accuracy: float,
) -> Diffused:
    # what a region does to its neighbours is for them to settle: they do it at the same time
    inner = [_alone(coupling_of(p, region.rows, alpha)) for region in regions]
    p32 = p.astype(np.float32)
    h, passes, sweeps = x.copy(), 0, 0
    r = _residual(p32, x, h, alpha)
    # a little less than what is promised: float64 has the last word
    while float(np.abs(r).max(initial=0.0)) > 0.98 * alpha * accuracy:
        jobs = [
            threads.submit(region.settle, coupling, r[region.rows])
            for region, coupling in zip(regions, inner, strict=True)
        ]
        tried = h.copy()
        for region, job in zip(regions, jobs, strict=True):
            tried[region.rows] += job.result().delta
        passes += len(jobs)
        after = _residual(p32, x, tried, alpha)
        before = np.abs(r).max(axis=0)
        poor = np.abs(after).max(axis=0) > (1 - alpha) * before
        if poor.any():
            sweeps += 1
            tried[:, poor] = h[:, poor] + r[:, poor]  # R' = (1−α) P R
            after = _residual(p32, x, tried, alpha)
        if float(np.abs(after).max()) >= float(before.max()):
            break
        h, r = tried, after
    exact = alpha * x.astype(np.float64) + (1 - alpha) * (p @ h.astype(np.float64)) - h
    bound = float(np.abs(exact).max(initial=0.0)) / alpha
    if bound > accuracy:
        raise TpuError(f"the bound stays at {bound:.3g}: float32 carries these features no further")
    return Diffused(h, bound, passes, sweeps, len(regions))


def _alone(coupling: Coupling) -> Coupling:
    """As if nobody pointed into the region."""
    n = coupling.matrix.shape[1]
    return Coupling(coupling.matrix[:n].tocsr(), np.empty(0, np.int64))


def _residual(p: sparse.csr_array, x: Floats, h: Floats, alpha: float) -> Floats:
    """R = αX + (1−α) P H − H, from its definition."""
    return np.asarray(np.float32(alpha) * x + np.float32(1 - alpha) * (p @ h) - h, np.float32)
