"""The log fails under a worker that has its token still: the graph stays in memory, consumers miss nothing."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest
from processes import WorkerProcess, make_topics, read_all, until
from streams import producer, require_truth, send_slowly, some_events

from dgdm.connections import connect_log
from dgdm.session import TURNS
from dgdm.settings import Settings
from dgdm.state.lifecycle import Step

SCRIPT = str(Path(__file__).with_name("crashing_worker.py"))
LOADED_ONCE = [SCRIPT, "load", "before", "2"]  # a worker that dies when it loads a second time
pytestmark = pytest.mark.timeout(240)


async def fence(settings: Settings) -> None:
    """What the broker does to a transaction that takes too long: its writer is fenced, its records are aborted."""
    log = connect_log(settings)
    for turn in range(TURNS):
        writer = log.transactional_writer(f"dgdm-{settings.graph}-{turn}", 60)
        await writer.start()
        await writer.close()
    await log.close()


async def test_a_log_that_fails_does_not_cost_the_graph(settings: Settings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"outage_budget": 1.0})
    await make_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path, LOADED_ONCE) as worker:
            await worker.serves()
            served = time.monotonic()
            for part in range(1, 4):
                sending = asyncio.create_task(send_slowly(events, some_events(part, 500)))
                await fence(settings)
                await worker.says("recovering", "goes on with the graph in memory", part)
                await worker.says("serving", times=part + 1)
                await sending

                async def long_served() -> bool:  # the budget is for one outage, not for a life
                    return time.monotonic() - served > settings.outage_budget

                await until(long_served, "served for longer than the outage budget")
            await events.visible(60)
            assert await worker.stop() == 0
            assert worker.said("state", "now paused")
    await require_truth(settings)
    await require_truth(settings, "read_uncommitted")


async def test_a_session_that_failed_is_forgotten(settings: Settings, tmp_path: Path) -> None:
    """It holds what it was about to publish: a log that fails now and then must not cost memory each time."""
    await make_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(
            settings, tmp_path, [str(Path(__file__).with_name("counting_worker.py"))]
        ) as worker:
            for part in range(4):
                await worker.says("sessions", times=part + 1)
                sending = asyncio.create_task(send_slowly(events, some_events(part, 100)))
                await fence(settings)
                await sending
            await worker.says("sessions", times=5)
            await events.visible(60)
            assert await worker.stop() == 0
            assert {line["message"] for line in worker.said("sessions")} == {"1 in memory"}


async def test_what_an_aborted_transaction_carried_is_sent_again(settings: Settings, tmp_path: Path) -> None:
    """
    committed:    a = 0, b = 1
    acknowledged: a = 10, b gone, a dead letter still to be written; aborted
    """
    settings = settings.model_copy(update={"checkpoint_interval": 600.0})
    await make_topics(settings)
    async with producer(settings) as events:
        await events.set_features("a", [0, 0, 0, 0])
        await events.set_features("b", [1, 0, 0, 0])
        with WorkerProcess(settings, tmp_path) as worker:
            await events.visible(60)
            assert await worker.stop() == 0
        with WorkerProcess(settings, tmp_path, LOADED_ONCE) as worker:
            await events.set_features("a", [10, 0, 0, 0])
            await events.remove_node("b")
            await events.set_features("a", [10])
            await events.visible(60)
            await fence(settings)
            await events.set_features("c", [1, 1, 1, 1])
            await worker.says("recovering", "in memory")
            await events.visible(60)
            assert await worker.stop() == 0
    await require_truth(settings)
    await require_truth(settings, "read_uncommitted")
    (letter,) = await read_all(settings, settings.dead_letters_topic)
    assert dict(letter.headers)["dgdm-error"] == b"wrong-length"


@pytest.mark.parametrize("step", [Step.FENCE, Step.TAIL, Step.REPLAY, Step.ANNOUNCE])
async def test_killed_while_it_goes_on(settings: Settings, tmp_path: Path, step: Step) -> None:
    settings = settings.model_copy(update={"publish_limit": 20})
    await make_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path, [SCRIPT, step.value, "after", "2"]) as worker:
            await worker.serves()
            sending = asyncio.create_task(send_slowly(events, some_events(1, 800)))
            await fence(settings)
            assert await worker.ended() == -signal.SIGKILL
            await sending
        with WorkerProcess(settings, tmp_path) as worker:
            await events.visible(60)
            assert await worker.stop() == 0
    await require_truth(settings)
    await require_truth(settings, "read_uncommitted")
