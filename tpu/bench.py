"""How long a model takes: full batches, one after the other, the first ones left out."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from .rows import RowModel

WARM_UP = 5


class Times(NamedTuple):
    """Of invocations with full batches, quantising and dequantising included."""

    runs: int
    rows: int  # of one batch
    median_us: float
    p99_us: float
    rows_per_second: float  # by the median


def bench_rows(model: RowModel, runs: int, seed: int = 0) -> Times:
    """Random rows of unit size."""
    x = np.random.default_rng(seed).normal(size=(model.batch, model.features_in)).astype(np.float32)
    times = []
    for turn in range(WARM_UP + runs):
        begun = time.perf_counter()
        model.run(x)
        if turn >= WARM_UP:
            times.append(1e6 * (time.perf_counter() - begun))
    median, p99 = (float(t) for t in np.percentile(times, [50, 99]))
    return Times(runs, model.batch, median, p99, model.batch / median * 1e6)
