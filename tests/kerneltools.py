"""Random operations for kernels and their twins, and what must hold after them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from kernelgraph import KernelGraph
from naive import Graph, Op

if TYPE_CHECKING:
    from collections.abc import Callable

    Weight = Callable[[np.random.Generator], float]

WIDTHS = [1, 2, 3, 8, 17, 32, 64]
ROUNDING = 2e-6
"""How far a residual in float32 may be from its definition after some hundred operations, as a share of the largest
feature: about ten times what is seen, and a tenth of what float32 promises (2.5e-5)."""


def ten_orders(random: np.random.Generator) -> float:
    """A weight between 1e-5 and 1e5, as float32."""
    return float(np.float32(10 ** random.uniform(-5, 5)))


def small_integers(random: np.random.Generator) -> float:
    """Weights whose sums are exact."""
    return float(random.integers(1, 6))


def pair(
    features: int, *, directed: bool, epsilon: float = 1e-3, alpha: float = 0.15, room: int = 4
) -> tuple[KernelGraph, Graph]:
    """The same empty graph twice."""
    return (
        KernelGraph(features, alpha, epsilon, directed=directed, room=room),
        Graph(features, alpha, directed=directed),
    )


def random_ops(
    random: np.random.Generator, twin: Graph, count: int, rows: int, weight: Weight = ten_orders
) -> list[Op]:
    """Operations that staging could have made: rows are added when they are free, all else is about live ones."""
    alive, ops = set(twin.x), []
    kinds = ["set"] * 5 + ["grow"] * 2 + ["unset"] * 2 + ["features", "add", "remove"]
    for kind in random.choice(kinds, count).tolist():
        free = sorted(set(range(rows)) - alive)
        x = random.normal(size=twin.features).astype(np.float32)
        if (kind == "add" and free) or not alive:
            u = int(random.choice(free))
            ops.append(Op("add", u, x=x if random.integers(3) else None))
            alive.add(u)
            continue
        u, v = (int(row) for row in random.choice(sorted(alive), 2))
        if kind == "remove" and random.integers(3) == 0:
            ops.append(Op("remove", u))
            alive.discard(u)
        elif kind == "remove":
            ops.append(Op("unset", u, v))
        elif kind in ("features", "add"):
            ops.append(Op("features", u, x=x))
        else:
            ops.append(Op(kind, u, v, weight(random)))
    return ops


def apply_both(kernel: KernelGraph, twin: Graph, ops: list[Op]) -> None:
    """The same outcomes."""
    assert kernel.run(ops) == [twin.apply(op) for op in ops]


def follow(kernel: KernelGraph, twin: Graph) -> None:
    """The twin takes the kernel's H, in float64, and R by its definition."""
    for u in twin.x:
        twin.h[u] = kernel.h(u)
    for u in twin.x:
        twin.r[u] = twin.residual(u)


def scale(twin: Graph) -> float:
    """Largest feature or vector, at least 1."""
    values = [*twin.x.values(), *twin.h.values()]
    return max([1.0, *(float(np.abs(value).max()) for value in values)])


def largest_difference(kernel: KernelGraph, twin: Graph) -> float:
    """Between the maintained R and the definition."""
    return max([0.0, *(float(np.abs(kernel.r(u) - twin.residual(u)).max()) for u in twin.x)])


def must_be_the_same_graph(kernel: KernelGraph, twin: Graph) -> None:
    """Features, arcs by both ends, sizes, lists and sums; bit for bit."""
    assert kernel.alive() == sorted(twin.x)
    for u, x in twin.x.items():
        np.testing.assert_array_equal(kernel.x(u), x)
        np.testing.assert_allclose(kernel.weight_sum(u), sum(twin.w[u].values()), rtol=1e-6)
        assert kernel.self_weight(u) == twin.w[u].get(u, 0.0)
        assert kernel.generation(u) == twin.generation[u]
    assert kernel.w() == twin.w
    assert kernel.columns() == twin.columns()
    assert (kernel.arcs, kernel.edges) == (twin.arcs, twin.edges)
    kernel.check_lists()


def must_keep_the_invariant(kernel: KernelGraph) -> None:
    """Every row above ε is pending, once, with its norm."""
    pending = kernel.pending()
    for u in kernel.alive():
        norm = float(np.abs(kernel.r(u)).max())
        if norm > np.float32(kernel.epsilon):
            assert pending[u] == norm


def error(kernel: KernelGraph, twin: Graph) -> float:
    """‖H* − H‖∞ against a dense solution."""
    held = np.array([kernel.h(u) for u in sorted(twin.x)]).reshape(len(twin.x), twin.features)
    return float(np.abs(twin.exact() - held).max(initial=0.0))
