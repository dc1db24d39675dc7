"""How kernels are compiled: the one place for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compile without the interpreter lock and keep the machine code.

    No `parallel=True`: inside a thread pool it aborts the process. No fastmath by default: a reordered
    sum would hide a NaN and shift the bound.
    """
    return cast(
        "Function", numba.njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")(function)
    )


def sweep(function: Function) -> Function:
    """As `kernel`, for loops over the columns of one row whose order does not matter: they vectorise."""
    flags = {"nnan", "ninf", "nsz", "contract", "reassoc", "arcp"}
    return cast(
        "Function",
        numba.njit(nogil=True, cache=True, boundscheck=False, error_model="numpy", fastmath=flags)(function),
    )
