"""A worker process from end to end: stop and start, kill at every step, freeze and take over."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from processes import WorkerProcess, make_topics, read_all, stored_meta
from streams import producer, require_truth, send_slowly, some_events

from dgdm.connections import connect_log
from dgdm.log.interface import Message
from dgdm.settings import Settings
from dgdm.state.lifecycle import Step

SCRIPT = str(Path(__file__).with_name("crashing_worker.py"))
pytestmark = pytest.mark.timeout(240)


async def test_stop_and_start_again(settings: Settings, tmp_path: Path) -> None:
    await make_topics(settings)
    async with producer(settings) as events:
        for part in range(2):
            with WorkerProcess(settings, tmp_path) as worker:
                for event in some_events(part, 800):
                    await events.send(event)
                await events.visible(60)
                assert await worker.stop() == 0
            await require_truth(settings)


STEPS = [(step, moment) for step in Step for moment in ("before", "after")]
STEPS += [(Step.PUSH, "during"), (Step.PUBLISH, "during")]


@pytest.mark.parametrize(("step", "moment"), STEPS, ids=[f"{moment}-{step}" for step, moment in STEPS])
async def test_killed_at_a_step(settings: Settings, tmp_path: Path, step: Step, moment: str) -> None:
    """Recovery steps are reached at the second start, commit steps in the midst of the first."""
    await make_topics(settings)
    recovering = step in (
        Step.LEASE,
        Step.TOKEN,
        Step.FENCE,
        Step.LOAD,
        Step.TAIL,
        Step.REPLAY,
        Step.ANNOUNCE,
    )
    async with producer(settings) as events:
        if recovering:
            with WorkerProcess(settings, tmp_path) as worker:
                await worker.serves()
                for event in some_events(1, 500):
                    await events.send(event)
                await events.visible(60)
                worker.kill()
        with WorkerProcess(
            settings, tmp_path, [SCRIPT, step.value, moment, "1" if recovering else "2"]
        ) as worker:
            ended = asyncio.create_task(worker.ended())
            for part in range(60):
                for event in some_events(100 + part, 50):
                    await events.send(event)
                if ended.done():
                    break
                await asyncio.wait({ended}, timeout=0.2)
            assert await ended == -signal.SIGKILL, f"{moment} {step} was never reached"
        with WorkerProcess(settings, tmp_path) as worker:
            await events.visible(60)
            assert await worker.stop() == 0
    await require_truth(settings)


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_a_standby_takes_over(settings: Settings, tmp_path: Path, fault: str) -> None:
    """Who wrote a record is seen by its encoding. A frozen worker comes back as a zombie, under load."""
    settings = settings.model_copy(update={"lease_ttl": 1.5})
    await make_topics(settings, forgets=False)
    async with producer(settings) as events:
        with WorkerProcess(settings.model_copy(update={"encoding": "json"}), tmp_path) as old:
            await old.serves()
            with WorkerProcess(settings, tmp_path) as new:
                await new.says("lease_wait", "holds it")
                await send_slowly(events, some_events(1, 1000))
                await events.visible(60)
                assert not new.said("state")
                if fault == "killed":
                    old.kill()
                else:
                    old.signal(signal.SIGSTOP)
                await send_slowly(events, some_events(2, 500))
                await events.visible(60)
                old.signal(signal.SIGCONT)
                await send_slowly(events, some_events(3, 500))
                await events.visible(60)
                assert await old.ended() == {"killed": -signal.SIGKILL, "frozen": 3}[fault]
                assert await new.stop() == 0
    records = await read_all(settings, settings.embeddings_topic, "read_uncommitted")
    theirs, ours = (
        [record.offset for record in records if record.value and (record.value[:1] == b"{") is json]
        for json in (True, False)
    )
    assert 0 < max(theirs) < min(ours), "the old producer wrote after the new one had"
    await require_truth(settings)
    await require_truth(settings, "read_uncommitted")


async def test_what_consumers_got_after_the_last_checkpoint_is_put_right(
    settings: Settings, tmp_path: Path
) -> None:
    """
    stored:    a = 0, acknowledged, in the checkpoint
    published: a = 10, in no checkpoint; SIGKILL
    log:       a = 0 again: for the store nothing has moved, but consumers hold 10
    """
    await make_topics(settings)
    seldom = settings.model_copy(update={"checkpoint_interval": 600.0})
    async with producer(settings) as events:
        await events.set_features("a", [0, 0, 0, 0])
        with WorkerProcess(settings, tmp_path) as worker:
            await events.visible(60)
            assert await worker.stop() == 0
        with WorkerProcess(seldom, tmp_path) as worker:
            await events.set_features("a", [10, 0, 0, 0])
            await events.visible(60)
            worker.kill()
        await events.set_features("a", [0, 0, 0, 0])
        with WorkerProcess(settings, tmp_path) as worker:
            await events.visible(60)
            assert await worker.stop() == 0
    await require_truth(settings, "read_uncommitted")


async def test_bad_messages_become_dead_letters_and_stop_nothing(settings: Settings, tmp_path: Path) -> None:
    await make_topics(settings)
    log = connect_log(settings)
    writer = log.writer()
    await writer.start()
    bad = [
        None,
        b"",
        b"\xff",
        b"[]",
        b'{"type":"AddNode","id":""}',
        b'{"type":"AddNode","id":"a","features":[1]}',
    ]
    try:
        await writer.append(settings.events_topic, 0, [Message(b"k", value) for value in bad])
    finally:
        await writer.close()
        await log.close()
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            for event in some_events(1, 100):
                await events.send(event)
            await events.visible(60)
            assert await worker.stop() == 0
    letters = await read_all(settings, settings.dead_letters_topic)
    reasons = [dict(letter.headers)["dgdm-error"].decode() for letter in letters]
    assert [letter.value for letter in letters] == bad
    expected = ["null-value", "undecodable", "wrong-type", "undecodable", "bad-id", "wrong-length"]
    assert reasons == expected
    assert (await stored_meta(settings)).event_sequence == 100


async def test_a_refused_event_counts_as_visible(settings: Settings, tmp_path: Path) -> None:
    await make_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            await worker.serves()
            await events.add_node("a", [1])  # of a graph with four features
            await events.visible(60)
            assert await worker.stop() == 0
    letters = await read_all(settings, settings.dead_letters_topic)
    assert [dict(letter.headers)["dgdm-error"] for letter in letters] == [b"wrong-length"]


async def test_a_log_that_does_not_continue_the_store_is_refused(settings: Settings, tmp_path: Path) -> None:
    await make_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            for event in some_events(1, 100):
                await events.send(event)
            await events.visible(60)
            assert await worker.stop() == 0
    other = settings.model_copy(update={"events_topic": settings.events_topic + ".again"})
    await make_topics(other)
    with WorkerProcess(other, tmp_path) as worker:
        assert await worker.ended() == 2
        text = worker.log.read_text()
    assert "accept_lost_history" in text
    assert "Traceback" not in text


async def test_another_feature_width_is_refused(settings: Settings, tmp_path: Path) -> None:
    await make_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            await events.add_node("a", [1, 2, 3, 4])
            await events.visible(60)
            assert await worker.stop() == 0
    with WorkerProcess(settings.model_copy(update={"features": 5}), tmp_path) as worker:
        assert await worker.ended() == 2
        text = worker.log.read_text()
    assert "features = 5" in text
    assert "Traceback" not in text
