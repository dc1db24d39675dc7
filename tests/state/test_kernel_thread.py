"""Never two at once, whoever runs it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from dgdm.state.kernel_thread import KernelThread


@pytest.fixture
async def kernel() -> AsyncIterator[KernelThread]:
    """Closed at the end."""
    kernel = KernelThread()
    yield kernel
    kernel.close()


async def test_a_brief_one_runs_here_and_others_there(kernel: KernelThread) -> None:
    here = threading.get_ident()
    assert await kernel(threading.get_ident, brief=True) == here
    assert await kernel(threading.get_ident) != here
    assert await kernel(threading.get_ident, brief=True) == here


async def test_a_brief_one_waits_its_turn_when_something_runs(kernel: KernelThread) -> None:
    """Also when nobody waits any more for what runs, or for what stood in between."""
    let_go, order = threading.Event(), list[str]()

    def long() -> None:
        let_go.wait(30)
        order.append("long")

    running = asyncio.create_task(kernel(long))
    queued = asyncio.create_task(kernel(lambda: order.append("queued")))
    await asyncio.sleep(0.05)
    for task in (running, queued):
        task.cancel()
    await asyncio.gather(running, queued, return_exceptions=True)
    brief = asyncio.create_task(kernel(lambda: order.append("brief"), brief=True))
    await asyncio.sleep(0.05)
    assert order == []
    let_go.set()
    await brief
    assert order == ["long", "brief"]


async def test_what_it_raises_is_raised(kernel: KernelThread) -> None:
    for brief in (True, False):
        with pytest.raises(ZeroDivisionError):
            await kernel(lambda: 1 // 0, brief=brief)
