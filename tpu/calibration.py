"""Data that a model is quantised with: some of it to see the ranges, the rest to measure what was lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .errors import ModelError
from .model import require_finite
from .network import Floats

Labels = NDArray[np.int64]
Metric = Callable[[Floats, Floats], float]
"""(outputs [n, out], float32 outputs [n, out]) → a score, the larger the better, above 0 for float32 itself."""
LIMIT = 8192
"""Rows that are kept of a larger data set."""


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationData:
    """Rows to see ranges with [n, F], and other rows, perhaps with labels, to measure on."""

    ranges: Floats
    measured: Floats
    labels: Labels | None  # of `measured`

    @classmethod
    def from_dataset(
        cls, dataset: Any, labels: Any = None, *, share: float = 0.5, limit: int = LIMIT, seed: int = 0
    ) -> Self:
        """From a matrix [n, F], a pair (matrix, labels), batches of either, or a .npz with `features` and `labels`.

        Rows are drawn at random, `share` of them for the ranges. Raises ModelError.
        """
        x, y = _collected(dataset, labels)
        if x.ndim != 2 or len(x) < 2 or x.shape[1] == 0:
            raise ModelError(f"a data set of shape {x.shape}: want [n, features] with n of 2 or more")
        if y is not None and y.shape != (len(x),):
            raise ModelError(f"{len(x)} rows and labels {y.shape}: want one label per row")
        if not 0 < share < 1:
            raise ModelError(f"share = {share} is not between 0 and 1")
        require_finite(x, "data set")
        drawn = np.random.default_rng(seed).permutation(len(x))[:limit]
        cut = min(max(1, round(share * len(drawn))), len(drawn) - 1)
        first, second = drawn[:cut], drawn[cut:]
        return cls(x[first], x[second], None if y is None else y[second])

    def metric(self) -> Metric:
        """Share of right labels, or without labels the mean cosine to what float32 gives."""
        labels = self.labels
        if labels is None:
            return cosine
        return lambda outputs, _: float((outputs.argmax(axis=1) == labels).mean())


def cosine(outputs: Floats, exact: Floats) -> float:
    """Mean over rows of the cosine between outputs and float32 outputs, 1 for equal ones."""
    a, b = outputs.astype(np.float64), exact.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    same = (a == b).all(axis=1)
    cosines = np.divide((a * b).sum(axis=1), norms, out=np.zeros(len(a)), where=norms > 0)
    return float(np.where(same, 1.0, cosines).mean())


def _collected(dataset: Any, labels: Any) -> tuple[Floats, Labels | None]:
    if isinstance(dataset, str | Path):
        dataset, labels = _read(Path(dataset), labels)
    try:
        if isinstance(dataset, tuple) and len(dataset) == 2:
            dataset, labels = dataset
        elif not hasattr(dataset, "__array__") and not isinstance(dataset, list):
            dataset, labels = _batches(dataset, labels)
        x = np.ascontiguousarray(dataset, np.float32)
        y = None if labels is None else np.asarray(labels).astype(np.int64, casting="same_kind")
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"the data set is no matrix of numbers with a whole number per row: {error}"
        ) from None
    return x, y


def _batches(dataset: Iterable[Any], labels: Any) -> tuple[Any, Any]:
    pairs = [batch if isinstance(batch, tuple) else (batch, None) for batch in dataset]
    if not pairs:
        return np.empty((0, 0)), labels
    x = np.concatenate([np.atleast_2d(features) for features, _ in pairs])
    if labels is None and pairs[0][1] is not None:
        labels = np.concatenate([np.atleast_1d(y) for _, y in pairs])
    return x, labels


def _read(path: Path, labels: Any) -> tuple[Any, Any]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "features" not in arrays:
                raise ModelError(
                    f"{path} has {', '.join(arrays.files) or 'nothing'}; want an array `features`"
                )
            return arrays["features"], arrays.get("labels", labels)
    except (OSError, EOFError, ValueError, AttributeError, TypeError) as error:
        raise ModelError(f"{path} is no .npz of arrays: {error}") from None
