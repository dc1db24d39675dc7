"""How fast a backlog and a checkpoint may be: what is served meanwhile has its share."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import numpy as np
import pytest
from away import Away
from processes import WorkerProcess, make_topics, until
from streams import producer, require_truth

from dgdm import backlog
from dgdm.backlog import Backlog
from dgdm.schemas.events import AddNode, SetFeatures
from dgdm.settings import Settings

SCRIPT = str(Path(__file__).with_name("pacing_worker.py"))
VECTOR = np.ones(4, np.float32)


async def test_a_checkpoint_has_time_only_when_no_other_waits(settings: Settings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"dirty_rows": 1_000, "batch": 250})
    await make_topics(settings)
    notes, random = tmp_path / "notes", np.random.default_rng(1)

    def of(what: str) -> list[int]:
        lines = [line.rpartition(" ") for line in notes.read_text().splitlines()]
        return [int(rows) for how, _, rows in lines if how == what]

    async with producer(settings) as events:
        for number in range(5_000):
            await events.send(AddNode(str(number), VECTOR))
        await events.flush()
        with WorkerProcess(settings, tmp_path, [SCRIPT, str(notes)]) as worker:
            await events.visible(60)

            async def rested() -> list[int]:
                await events.send(SetFeatures("1", random.normal(size=4).astype(np.float32)))
                await events.visible(60)
                return of("gently")

            assert max(await until(rested, "a small checkpoint")) < 500
            full = of("at once")
            assert await worker.stop() == 0
    assert sum(full) > 2_000, "a backlog waits for its checkpoints"
    assert min(full) >= 500
    assert notes.read_text().splitlines()[-1].startswith("at once"), "a stop waits for nothing"


async def test_what_waits_in_parts_for_a_store_counts_toward_the_limit(away: Away, tmp_path: Path) -> None:
    """
    a node on its way to a store that hangs; then a hundred at a time, each a part of the next checkpoint
    """
    limit, portion = 1_000, 100
    settings = away.settings.model_copy(update={"dirty_rows": limit})
    await make_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            await worker.serves()
            await events.send(AddNode("first", VECTOR))
            await events.visible(60)
            away.go()
            await events.send(SetFeatures("first", 2 * VECTOR))
            await events.visible(60)
            await asyncio.sleep(3 * settings.checkpoint_interval)
            applied = 0
            while not worker.said("state", "now paused") and applied < 4 * limit:
                for number in range(portion):
                    await events.send(AddNode(f"{applied + number}", VECTOR))
                await events.flush()
                applied += portion
                with contextlib.suppress(TimeoutError):
                    await events.visible(1)
            assert limit <= applied <= limit + 2 * portion
            away.come()
            await events.visible(60)
            assert await worker.stop() == 0
    await require_truth(settings)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(backlog.time, "monotonic", lambda: now[0])
    return now


def test_a_large_backlog_is_solved_for_a_tenth_of_the_time(clock: list[float]) -> None:
    paced = Backlog(large=10, max_staleness=2.0)
    solving = 0.0
    for _ in range(10_000):
        clock[0] += 0.1
        if paced.is_repaired_only(10):
            assert not paced.waits(10)
            continue
        begun = clock[0]
        for turn in range(6):  # of half a second each
            paced.pushed(all_is_told=turn == 5)
            assert paced.waits(10) == (turn < 5)
            assert not paced.waits(9), "a small one never waits"
            clock[0] += 0.5 if turn < 5 else 0
        solving += clock[0] - begun
    assert 0.08 < solving / (clock[0] - 100) < 0.11


def test_between_two_short_solves_is_the_longest_staleness(clock: list[float]) -> None:
    paced = Backlog(large=10, max_staleness=2.0)
    paced.pushed(all_is_told=True)
    clock[0] += 1.9
    assert paced.is_repaired_only(10)
    assert not paced.is_repaired_only(9)
    clock[0] += 0.2
    assert not paced.is_repaired_only(10)
