"""How kernels are compiled: the one place for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


@cache
def _digest(room: str) -> str:
    """Of all sources of a package."""
    sources = sorted(file.name for file in files(room).iterdir() if file.name.endswith(".py"))
    return hashlib.sha256(b"".join(files(room).joinpath(name).read_bytes() for name in sources)).hexdigest()


def _by_its_own_name(function: Any) -> None:
    """Numba keeps machine code by the path of its source: the same one, whatever link it was imported by."""
    package, _, name = function.__module__.rpartition(".")
    if package:
        source: Any = files(package).joinpath(f"{name}.py")
        function.__code__ = function.__code__.replace(co_filename=str(source.resolve()))


def _compiled(function: Function, **options: Any) -> Function:
    _by_its_own_name(function)
    # Kernels allocate nothing: counting references to some forty arrays would cost more than what they do.
    options |= {"_nrt": False, "no_cfunc_wrapper": True}
    compiled = numba.njit(nogil=True, cache=True, boundscheck=False, error_model="numpy", **options)(function)
    # Machine code holds what a kernel calls in other files too, but Numba stamps it with the kernel's own file.
    kept = getattr(compiled, "_cache", None)  # there is none with NUMBA_DISABLE_JIT
    if kept is not None:
        file = kept._cache_file  # noqa: SLF001 - Numba offers no other way to the stamp
        room = function.__module__.rpartition(".")[0] or __package__  # no room: its own file says enough
        file._source_stamp = (file._source_stamp, _digest(__package__), _digest(room))  # noqa: SLF001 - the same
    return cast("Function", compiled)


def kernel(function: Function) -> Function:
    """Compile without the interpreter lock and keep the machine code; callable from Python and from kernels.

    No `parallel=True`: inside a thread pool it aborts the process. No fastmath: a reordered sum would hide a
    NaN and shift the bound.
    """
    return _compiled(function, forceinline=True)


def inner(function: Function) -> Function:
    """For kernels only, Python would crash: a way in from there takes longer to compile than most it leads to."""
    return _compiled(function, no_cpython_wrapper=True)


def inline(function: Function) -> Function:
    """As `inner`, and made part of every kernel that calls it: some hundred arrays are too many to pass on."""
    return _compiled(function, no_cpython_wrapper=True, forceinline=True)
