"""Memory that two processes share without a name: nothing to clean up, however they end."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .model import TensorSpec

LINE = 64
"""Tensors begin at multiples of a cache line."""


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("dgdm-tensors")
    with tempfile.TemporaryFile() as file:  # other systems: a file that is already unlinked
        return os.dup(file.fileno())


def layout(specs: Sequence[TensorSpec]) -> tuple[list[int], int]:
    """Where each tensor begins, and the size of all."""
    offsets, end = [], 0
    for spec in specs:
        offsets.append(end)
        end += -(-spec.bytes // LINE) * LINE
    return offsets, end


class Arena:
    """A mapping that grows. Views must be gone before it does: callers copy."""

    def __init__(self, fd: int | None = None) -> None:
        self.fd = _nameless_file() if fd is None else fd
        self._map: mmap.mmap | None = None

    def require(self, size: int) -> None:
        """Make it at least so large; for the owner."""
        if os.fstat(self.fd).st_size < size:
            os.ftruncate(self.fd, size)
        self.follow()

    def follow(self) -> None:
        """Map all there is."""
        size = os.fstat(self.fd).st_size
        if size and (self._map is None or len(self._map) < size):
            self._unmap()
            self._map = mmap.mmap(self.fd, size)

    def view(self, offset: int, spec: TensorSpec) -> NDArray[Any]:
        """A tensor in place."""
        assert self._map is not None
        count = int(np.prod(spec.shape))
        return np.frombuffer(self._map, spec.kind, count, offset).reshape(spec.shape)

    def put(self, content: bytes) -> None:
        """Bytes at the beginning."""
        self.require(len(content))
        assert self._map is not None
        self._map[: len(content)] = content

    def take(self, size: int) -> bytes:
        """Bytes from the beginning."""
        self.follow()
        assert self._map is not None
        return self._map[:size]

    def close(self) -> None:
        """Give mapping and file back."""
        self._unmap()
        os.close(self.fd)

    def _unmap(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None
