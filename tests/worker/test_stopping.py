"""SIGTERM: a graceful stop within its budget, whatever is away and wherever it comes."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from away import Away
from brokers import own_broker
from processes import WorkerProcess, make_topics, settings_of, stored_meta, stores
from streams import producer, require_truth, send_slowly, some_events

from dgdm.producers.graph import GraphProducer
from dgdm.settings import Settings
from dgdm.state.lifecycle import Step

SCRIPT = str(Path(__file__).with_name("crashing_worker.py"))
pytestmark = pytest.mark.timeout(240)


async def test_the_store_stays_away(away: Away, tmp_path: Path) -> None:
    settings = away.settings.model_copy(update={"stop_budget": 2.0})
    await make_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            await worker.serves()
            away.go()
            for event in some_events(1, 500):
                await events.send(event)
            await events.visible(60)
            worker.signal(signal.SIGTERM)
            assert await worker.ended() == 0  # while it is away
            assert worker.said("stopped_early", "replays")
        away.come()
        await require_truth_of_stream(settings, tmp_path, events)


async def test_the_store_comes_back_within_the_budget(away: Away, tmp_path: Path) -> None:
    """Paused over a write that has not arrived: the stop must not lose it, nor write anything before it."""
    settings = away.settings.model_copy(update={"dirty_rows": 40})
    await make_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            await worker.serves()
            away.go()
            sending = asyncio.create_task(send_slowly(events, some_events(1, 1000)))
            await worker.says("state", "now paused")
            worker.signal(signal.SIGTERM)
            await worker.says("state", "now stopping")
            away.come()
            assert await worker.ended() == 0
            assert not worker.said("stopped_early")
            await sending
        await require_truth_of_stream(settings, tmp_path, events)


async def test_catching_up(settings: Settings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"catch_up": 100, "batch": 50, "max_staleness": 0.5})
    await make_topics(settings)
    async with producer(settings) as events:
        for event in some_events(1, 20_000, nodes=2_000):
            await events.send(event)
        await events.flush()
        with WorkerProcess(settings, tmp_path) as worker:
            await worker.serves()
            worker.signal(signal.SIGTERM)
            assert await worker.ended() == 0
        assert 0 < (await stored_meta(settings)).event_sequence < 20_000
        await require_truth_of_stream(settings.model_copy(update={"batch": 5_000}), tmp_path, events)


@pytest.mark.parametrize(
    ("step", "moment"),
    [(Step.LEASE, "before"), (Step.LOAD, "after"), (Step.REPLAY, "before"), (Step.ANNOUNCE, "before")],
)
async def test_before_it_serves(settings: Settings, tmp_path: Path, step: Step, moment: str) -> None:
    """What consumers hold is ahead of the store: an older vector after a newer one must not reach them."""
    await make_topics(settings)
    seldom = settings.model_copy(update={"checkpoint_interval": 600.0})
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            for event in some_events(1, 100):
                await events.send(event)
            await events.visible(60)
            assert await worker.stop() == 0
        with WorkerProcess(seldom, tmp_path) as worker:
            await send_slowly(events, some_events(2, 300))
            await events.visible(60)
            worker.kill()
        small = settings.model_copy(update={"batch": 10})
        with WorkerProcess(small, tmp_path, [SCRIPT, step.value, moment, "1", "SIGTERM"]) as worker:
            assert await worker.ended() == 0
        await require_truth_of_stream(settings, tmp_path, events)


async def require_truth_of_stream(settings: Settings, folder: Path, events: GraphProducer) -> None:
    """A next worker brings everything to its end."""
    with WorkerProcess(settings, folder) as worker:
        await events.visible(60)
        assert await worker.stop() == 0
    await require_truth(settings)
    await require_truth(settings, "read_uncommitted")


@pytest.mark.integration
async def test_the_broker_stays_away(redis_url: str, tmp_path: Path) -> None:
    """Stopped while it is frozen; told twice; given up for a restart when it is dead. Each ends before it is back."""
    with own_broker() as broker:
        settings = settings_of(broker.url, redis_url, stop_budget=2.0, outage_budget=1.0)
        await make_topics(settings)
        async with producer(settings) as events:
            for sent, (code, go, come) in enumerate(
                (
                    (0, broker.pause, broker.resume),
                    (1, broker.pause, broker.resume),
                    (75, broker.kill9, broker.start),
                )
            ):
                with WorkerProcess(settings, tmp_path) as worker:
                    await worker.serves()
                    for event in some_events(code, 200):
                        await events.send(event)
                    await stores(settings, 200 * (sent + 1))  # then it is idle
                    go()
                    if code != 75:
                        worker.signal(signal.SIGTERM)
                    if code == 1:
                        await worker.says("state", "now stopping")
                        worker.signal(signal.SIGTERM)
                    assert await worker.ended() == code
                    assert worker.said({0: "stopped_early", 1: "state", 75: "outage"}[code])
                    come()
            await require_truth_of_stream(settings, tmp_path, events)
