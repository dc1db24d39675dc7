"""The one thread that touches the arrays of a graph."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class KernelThread:
    """Functions run in it one after another."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "dgdm-kernel")

    async def __call__(self, function: Callable[[], T], /) -> T:
        """Run it there."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    def close(self) -> None:
        """Wait for what runs."""
        self._pool.shutdown()
