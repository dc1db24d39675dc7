"""The one thread that touches the arrays of a graph, and who may in its place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class KernelThread:
    """Functions run one after another, asked for by one event loop."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "dgdm-kernel")
        self._running = set[Future[Any]]()

    async def __call__(self, function: Callable[[], T], /, *, brief: bool = False) -> T:
        """Run it there; a `brief` one here, when nothing runs there.

        The way there and back, and the interpreter's lock that the two threads take from each other, cost more than what
        few events do. While it runs here nothing can be asked for there.
        """
        if brief and not self._running:
            return function()
        future = self._pool.submit(function)
        self._running.add(future)  # a caller that is cancelled leaves it running
        future.add_done_callback(self._running.discard)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Wait for what runs."""
        self._pool.shutdown()
