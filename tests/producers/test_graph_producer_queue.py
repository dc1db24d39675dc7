"""GraphProducer's queue: bounded, and when the log fails everybody who sends or waits hears of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest
from logtools import until

from dgdm.log import LogError, LogUnavailableError, Message, open_log
from dgdm.producers.graph import GraphProducer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Gate:
    """A writer's `append` that waits, or fails."""

    def __init__(self, producer: GraphProducer) -> None:
        self.open = asyncio.Event()
        self.error: LogError | None = None
        self.batches: list[int] = []
        self._append = producer._writer.append
        producer._writer.append = self  # type: ignore[method-assign, assignment]

    async def __call__(self, topic: str, partition: int, messages: Sequence[Message]) -> int:
        await self.open.wait()
        if self.error is not None:
            raise self.error
        self.batches.append(len(messages))
        return await self._append(topic, partition, messages)


@pytest.fixture
async def gated(tmp_path: Path) -> Any:
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    await log.create("e", 1, {})
    await log.create("p", 1, {})
    producer = GraphProducer(log, "e", progress_topic="p", batch=10)
    await producer.start()
    yield producer, Gate(producer)
    with contextlib.suppress(LogError):
        await producer.close()
    await log.close()


async def test_a_full_queue_makes_the_sender_wait(gated: tuple[GraphProducer, Gate]):
    producer, gate = gated
    sent = 0

    async def send_many() -> None:
        nonlocal sent
        for node in range(200):
            await producer.add_node(node)
            sent += 1

    sending = asyncio.create_task(send_many())

    async def stands_still() -> bool:
        before = sent
        await asyncio.sleep(0.05)
        return before == sent > 0

    await until(stands_still, "the queue to be full")
    assert sent <= 60  # four batches wait, one is under way
    gate.open.set()
    await sending
    assert await producer.flush() == {0: 200}
    assert max(gate.batches) <= 10


async def test_large_events_fill_the_queue_by_their_bytes(
    gated: tuple[GraphProducer, Gate], monkeypatch: Any
):
    producer, gate = gated
    monkeypatch.setattr("dgdm.producers.outbox.ROOM", 10_000)
    sent = 0

    async def send_many() -> None:
        nonlocal sent
        for node in range(30):
            await producer.add_node(node, [1.0] * 1_000)
            sent += 1

    sending = asyncio.create_task(send_many())

    async def stands_still() -> bool:
        before = sent
        await asyncio.sleep(0.05)
        return before == sent > 0

    await until(stands_still, "the queue to be full")
    assert sent <= 6  # 4 kB each: three wait, and those under way
    gate.open.set()
    await sending
    assert await producer.flush() == {0: 30}


async def test_a_failure_is_said_by_every_later_call_and_by_close(gated: tuple[GraphProducer, Gate]):
    producer, gate = gated
    gate.error = LogUnavailableError("the broker is away")
    await producer.add_node("a")
    gate.open.set()
    for _ in range(3):
        with pytest.raises(LogUnavailableError, match="the broker is away"):
            await producer.flush()
    with pytest.raises(LogUnavailableError, match="the broker is away"):
        await producer.add_node("b")
    with pytest.raises(LogUnavailableError, match="the broker is away"):
        await producer.visible()
    with pytest.raises(LogUnavailableError, match="the broker is away"):
        await producer.close()
    await producer.close()


async def test_a_failure_wakes_those_who_wait_for_room(gated: tuple[GraphProducer, Gate]):
    producer, gate = gated

    async def send_many() -> None:
        for node in range(200):
            await producer.add_node(node)

    sending = [asyncio.create_task(send_many()) for _ in range(3)]
    await asyncio.sleep(0)
    gate.error = LogUnavailableError("the broker is away")
    gate.open.set()
    for task in sending:
        with pytest.raises(LogUnavailableError, match="the broker is away"):
            await task


async def test_leaving_says_a_failure_that_nobody_has_heard_of(tmp_path: Path):
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    await log.create("e", 1, {})
    with pytest.raises(LogUnavailableError, match="away"):
        async with GraphProducer(log, "e") as producer:
            gate = Gate(producer)
            gate.error = LogUnavailableError("away")
            gate.open.set()
            await producer.add_node("a")
    await log.close()


async def test_leaving_by_an_error_does_not_hide_it_behind_the_log_s(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    await log.create("e", 1, {})
    with caplog.at_level(logging.WARNING), pytest.raises(ZeroDivisionError):
        async with GraphProducer(log, "e") as producer:
            gate = Gate(producer)
            gate.error = LogUnavailableError("away")
            gate.open.set()
            await producer.add_node("a")
            raise ZeroDivisionError
    assert "away" in caplog.text
    await log.close()


async def test_waiting_in_vain_says_what_may_be_wrong(gated: tuple[GraphProducer, Gate]):
    producer, gate = gated
    await producer.add_node("a")
    with pytest.raises(TimeoutError, match="has not acknowledged 1 events"):
        await producer.visible(timeout=0.05)
    gate.open.set()
    with pytest.raises(TimeoutError, match=r"p has no record of graph 'default'.*dgdm doctor"):
        await producer.visible(timeout=0.2)
