"""The exact answer in float64, and how far a table is from it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Doubles = NDArray[np.float64]


class Certificate(NamedTuple):
    """What an exact solution says of the vectors that are held, in feature units."""

    error: list[float]  # largest, per column
    bound: list[float]  # promised, per column
    worst: list[tuple[str, float]]  # ids and the largest error over their columns, in units of the bound

    @property
    def holds(self) -> bool:
        """Whether the promise was kept in every column."""
        return all(e <= b for e, b in zip(self.error, self.bound, strict=True))


def transition(
    rows: NDArray[np.integer], targets: NDArray[np.integer], weights: NDArray[np.floating], n: int
) -> sparse.csr_array:
    """P [n, n]: row-stochastic, rows without arcs absorbing."""
    w = sparse.csr_array((weights.astype(np.float64), (rows, targets)), shape=(n, n))
    total: Doubles = np.asarray(w.sum(axis=1)).ravel()
    scale = np.divide(1.0, total, out=np.zeros(n), where=total > 0)
    return sparse.csr_array(
        sparse.diags_array(scale) @ w + sparse.diags_array((total <= 0).astype(np.float64))
    )


def fixed_point(p: sparse.csr_array, x: Doubles, alpha: float, tolerance: float = 1e-12) -> Doubles:
    """H = αX + (1−α) P H [n, F], by iteration until the certified error is below tolerance · max|X|."""
    h = x.copy()
    limit = tolerance * max(1.0, float(np.abs(x).max(initial=0.0)))
    while True:
        following = alpha * x + (1 - alpha) * (p @ h)
        residual = float(np.abs(following - h).max(initial=0.0))
        h = following
        if (1 - alpha) * residual / alpha <= limit:
            return h


def truncated(p: sparse.csr_array, x: Doubles, alpha: float, steps: int) -> Doubles:
    """Z_K: Z_0 = X, Z_{k+1} = αX + (1−α) P Z_k."""
    z = x
    for _ in range(steps):
        z = alpha * x + (1 - alpha) * (p @ z)
    return z


def certify(ids: list[str], exact: Doubles, held: Doubles, bound: list[float], worst: int = 5) -> Certificate:
    """Compare vectors held [n, F] with the exact ones [n, F]."""
    error = np.abs(held - exact)
    in_units = (error / np.asarray(bound)).max(axis=1, initial=0.0)
    order = np.argsort(in_units)[::-1][:worst]
    return Certificate(
        error=error.max(axis=0, initial=0.0).tolist(),
        bound=list(bound),
        worst=[(ids[i], float(in_units[i])) for i in order],
    )
