"""What a recovery owes to consumers and to the log, one promise at a time."""

from __future__ import annotations

import signal
from pathlib import Path

import msgpack
from processes import WorkerProcess, make_topics, read_all, stored_meta, until
from streams import producer, require_truth, some_events

from dgdm.connections import connect_log
from dgdm.log.interface import Message
from dgdm.schemas.events import AddEdge, encode_event
from dgdm.settings import Settings

SCRIPT = str(Path(__file__).with_name("crashing_worker.py"))


async def test_events_of_an_aborted_transaction_are_not_applied(settings: Settings, tmp_path: Path) -> None:
    await make_topics(settings)
    log = connect_log(settings)
    writer = log.transactional_writer(f"{settings.graph}-source", 60)
    await writer.start()
    try:
        for source, commit in (("a", True), ("never", False), ("b", True)):
            await writer.begin()
            message = Message(source.encode(), encode_event(AddEdge(source, "x")))
            await writer.append(settings.events_topic, 0, [message])
            await (writer.commit() if commit else writer.abort())
    finally:
        await writer.close()
        await log.close()
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            await events.add_edge("c", "x")
            await events.visible(60)
            assert await worker.stop() == 0
    meta = await stored_meta(settings)
    assert (meta.event_sequence, meta.nodes, meta.arcs) == (3, 4, 6)
    await require_truth(settings)


async def test_another_log_with_as_many_records_is_refused(settings: Settings, tmp_path: Path) -> None:
    await make_topics(settings)
    other = settings.model_copy(update={"events_topic": f"{settings.events_topic}.again"})
    await make_topics(other)
    for place, seed in ((settings, 1), (other, 2)):
        async with producer(place) as events:
            for event in some_events(seed, 100):
                await events.send(event)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            await events.add_node("seen")
            await events.visible(60)
            assert await worker.stop() == 0
    async with producer(other) as events:
        for event in some_events(3, 2):
            await events.send(event)
    with WorkerProcess(other, tmp_path) as worker:
        assert await worker.ended() == 2
        assert "is not the one that was applied" in worker.log.read_text()


async def test_an_output_that_was_lost_is_written_again(settings: Settings, tmp_path: Path) -> None:
    await make_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            for event in some_events(1, 300):
                await events.send(event)
            await events.visible(60)
            assert await worker.stop() == 0
    other = settings.model_copy(update={"embeddings_topic": f"{settings.embeddings_topic}.again"})
    await make_topics(other)
    with WorkerProcess(other, tmp_path) as worker:
        assert await worker.stop() == 0
    await require_truth(other)


async def test_consumers_never_see_time_run_backwards(settings: Settings, tmp_path: Path) -> None:
    """
    stored:    nothing
    published: every vector up to sequence 400; SIGKILL
    replayed:  in small batches, each of which could be published at its own, earlier sequence
    """
    await make_topics(settings, forgets=False)
    seldom = settings.model_copy(update={"checkpoint_interval": 600.0, "batch": 20})
    async with producer(settings) as events:
        with WorkerProcess(seldom, tmp_path) as worker:
            for event in some_events(1, 400):
                await events.send(event)
            await events.visible(60)
            worker.kill()
        with WorkerProcess(seldom, tmp_path) as worker:
            await events.add_node("seen")
            await events.visible(60)
            assert await worker.stop() == 0
    records = await read_all(settings, settings.embeddings_topic, "read_uncommitted")
    sequences = [msgpack.unpackb(record.value)["sequence"] for record in records if record.value is not None]
    assert sequences == sorted(sequences)
    await require_truth(settings, "read_uncommitted")


async def test_a_checkpoint_during_the_replay_does_not_forget_the_tail(
    settings: Settings, tmp_path: Path
) -> None:
    """
    stored:    a = 0
    published: a = 10, and much more; SIGKILL
    replayed:  a little of it, a checkpoint; SIGKILL
    log:       a = 0 again: for the store nothing has moved, but consumers hold 10
    """
    await make_topics(settings)
    async with producer(settings) as events:
        await events.set_features("a", [0, 0, 0, 0])
        with WorkerProcess(settings, tmp_path) as worker:
            await events.visible(60)
            assert await worker.stop() == 0
        seldom = settings.model_copy(update={"checkpoint_interval": 600.0})
        with WorkerProcess(seldom, tmp_path) as worker:
            await events.set_features("a", [10, 0, 0, 0])
            for event in some_events(1, 300):
                await events.send(event)
            await events.visible(60)
            worker.kill()
        await events.set_features("a", [0, 0, 0, 0])
        often = settings.model_copy(update={"checkpoint_interval": 0.001, "batch": 10})
        with WorkerProcess(often, tmp_path, [SCRIPT, "store", "after", "1"]) as worker:
            assert await worker.ended() == -signal.SIGKILL
        assert 1 < (await stored_meta(settings)).event_sequence < 300, "killed in mid-replay"
        with WorkerProcess(settings, tmp_path) as worker:
            await events.visible(60)
            assert await worker.stop() == 0
    await require_truth(settings, "read_uncommitted")


async def test_a_zombie_writes_nothing_after_it_was_replaced(settings: Settings, tmp_path: Path) -> None:
    """It wakes up with a backlog that its successor has long published."""
    await make_topics(settings, forgets=False)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as old:
            await old.serves()
            await events.add_node("before")
            await events.visible(60)
            old.signal(signal.SIGSTOP)
            with WorkerProcess(settings, tmp_path) as new:
                for event in some_events(2, 300):
                    await events.send(event)
                await events.visible(60)

                async def settled() -> object:
                    meta = await stored_meta(settings)
                    return meta is not None and meta.event_sequence == 301

                await until(settled, "the successor's checkpoint")
                ours = await read_all(settings, settings.embeddings_topic, "read_uncommitted")
                old.signal(signal.SIGCONT)
                assert await old.ended() == 3
                both = await read_all(settings, settings.embeddings_topic, "read_uncommitted")
                assert both == ours
                assert await new.stop() == 0
    await require_truth(settings, "read_uncommitted")
