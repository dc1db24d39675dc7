"""The first promise, record by record: as of each progress record, what a consumer holds is within its bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import oracle
import pytest
from processes import WorkerProcess, make_topics, read_all
from streams import producer, some_events

from dgdm.settings import Settings

SAMPLED = 60  # progress records, evenly
PACES = {
    "all at once": {"publish_limit": 50_000},
    "in portions": {"publish_limit": 20, "max_staleness": 0.02},
    "catching up": {"catch_up": 200, "max_staleness": 0.02},
}


@pytest.mark.parametrize("pace", PACES)
async def test_every_progress_record_is_true(settings: Settings, tmp_path: Path, pace: str) -> None:
    given = settings.model_copy(update=PACES[pace] | {"batch": 20, "progress_interval": 0.0})
    await make_topics(given, forgets=False)
    async with producer(given) as events:
        with WorkerProcess(given, tmp_path) as worker:
            await worker.serves()
            for number, event in enumerate(some_events(5, 3_000, nodes=100)):
                await events.send(event)
                if number % 250 == 249:
                    await events.visible(60)
            assert await worker.stop() == 0
    records = await read_all(given, given.progress_topic, "read_uncommitted")
    told = [msgpack.unpackb(record.value, strict_map_key=False) for record in records]
    assert len(told) > 10
    await require_true(given, told[:: max(1, len(told) // SAMPLED)] + told[-1:])


async def test_a_solve_is_finished_before_more_of_a_backlog_is_applied(
    settings: Settings, tmp_path: Path
) -> None:
    """When consumers hear of a later event, they hold all of what was solved before."""
    paces = {"catch_up": 300, "batch": 50, "publish_limit": 10, "max_staleness": 0.01}
    given = settings.model_copy(update=paces)
    await make_topics(given, forgets=False)
    async with producer(given) as events:
        for event in some_events(9, 3_000, nodes=100):
            await events.send(event)
        await events.flush()
        with WorkerProcess(given, tmp_path) as worker:
            await events.visible(60)
            assert await worker.stop() == 0
    outputs = await read_all(given, given.embeddings_topic, "read_uncommitted")
    told = iter(await read_all(given, given.events_topic))
    truth, held, solves = oracle.Oracle(4), dict[str, Any](), 0
    of_vectors = [r for r in outputs if r.value is not None]  # a tombstone says nothing of its sequence
    ends = {msgpack.unpackb(r.value)["sequence"]: r.offset for r in of_vectors}
    for sequence, end in sorted(ends.items()):
        if sequence > 3_000 - 300 - 2 * 50:
            break
        while truth.sequence < sequence:
            truth.apply(next(told).value)
        oracle.table(((r.key, r.value) for r in outputs if r.offset <= end), held)
        exact = truth.exact()
        for node, vector in exact.items():
            assert abs(held[node] - vector).max() <= given.accuracy[0], (sequence, node)
        solves += 1
    assert solves


async def require_true(settings: Settings, told: list[dict[str, Any]]) -> None:
    """Each against the oracle's graph at its event offsets, and the table at its output offsets."""
    events = await read_all(settings, settings.events_topic)
    outputs = await read_all(settings, settings.embeddings_topic, "read_uncommitted")
    truth, held = oracle.Oracle(4), dict[str, Any]()
    applied = read = 0
    for progress in told:
        while applied < len(events) and events[applied].offset < progress["event_offsets"][0]:
            truth.apply(events[applied].value)
            applied += 1
        end = read
        while end < len(outputs) and outputs[end].offset < progress["output_offsets"].get(0, 0):
            end += 1
        oracle.table(((record.key, record.value) for record in outputs[read:end]), held)
        read = end
        assert progress["sequence"] == truth.sequence
        assert (progress["nodes"], progress["arcs"]) == (len(truth.x), len(truth.weights()))
        exact = truth.exact()
        assert held.keys() <= exact.keys()
        for node, vector in held.items():
            assert abs(vector - exact[node]).max() <= max(progress["bound"]), (node, progress)
    assert held.keys() == exact.keys()
    assert max(told[-1]["bound"]) <= settings.accuracy[0]
