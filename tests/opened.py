"""What only kernels call, for tests to call: a way in from Python is compiled here, where it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dgdm.diffusion import adjacency as lists
from dgdm.diffusion import local
from dgdm.diffusion.compile import kernel

if TYPE_CHECKING:
    import numpy as np

    from dgdm.diffusion.arrays import Adjacency, Floats, GraphArrays


@kernel
def add_row(g: GraphArrays, u: int, x: Floats) -> None:
    local.add_row(g, u, x)


@kernel
def set_features(g: GraphArrays, u: int, x: Floats, alpha: float, epsilon: float) -> int:
    return local.set_features(g, u, x, alpha, epsilon)


@kernel
def change_arc(
    g: GraphArrays, undirected: bool, kind: int, u: int, v: int, w: np.float32, alpha: float, epsilon: float
) -> int:
    return local.change_arc(g, undirected, kind, u, v, w, alpha, epsilon)


@kernel
def remove_row(g: GraphArrays, undirected: bool, v: int, alpha: float, epsilon: float) -> None:
    local.remove_row(g, undirected, v, alpha, epsilon)


@kernel
def find(a: Adjacency, u: int, v: int) -> int:
    return lists.find(a, u, v)


@kernel
def reserve(a: Adjacency, u: int) -> bool:
    return lists.reserve(a, u)


@kernel
def append(a: Adjacency, u: int, v: int, w: np.float32) -> None:
    lists.append(a, u, v, w)


@kernel
def drop(a: Adjacency, u: int, k: int) -> None:
    lists.drop(a, u, k)


@kernel
def touch(a: Adjacency, u: int, k: int) -> None:
    lists.touch(a, u, k)


@kernel
def free(a: Adjacency, u: int) -> None:
    lists.free(a, u)
