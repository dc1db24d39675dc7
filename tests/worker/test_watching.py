"""Metrics of a running worker against the oracle's counts."""

from __future__ import annotations

import time
from pathlib import Path

import oracle
import pytest
from away import Away
from processes import (
    WorkerProcess,
    make_topics,
    read_all,
    stored_meta,
    stores,
    until,
)
from scrape import scrape
from stores import free_port
from streams import producer, require_truth, send_slowly, some_events

from dgdm.connections import connect_log
from dgdm.consumers.progress import read_progress
from dgdm.doctor import diagnose
from dgdm.settings import Settings

pytestmark = pytest.mark.timeout(240)


async def test_metrics_say_what_the_oracle_counts(settings: Settings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"metrics_port": free_port()})
    await make_topics(settings, forgets=False)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            await worker.serves()
            begun = time.time()
            for event in some_events(1, 600):
                await events.send(event)
            for bad in ([1.0], [2.0], [1e9, 0, 0, 0]):
                await events.set_features("bad", bad)
            await events.remove_edge("nobody", "no one")
            await events.visible(60)
            await stores(settings, 601)

            async def told() -> dict[str, float] | None:
                found = await scrape(settings.metrics_port)
                settled = found["dgdm_lag_records"] == 0 and found["dgdm_dirty_rows"] == 0
                return found if settled and found["dgdm_checkpoint_seconds_count"] else None

            metrics = await until(told, "no lag, nothing dirty, a checkpoint counted")
            found = await diagnose(settings, [])
            assert any(f.what == "memory" and f.message.startswith("vectors 0.") for f in found), found
            records = await read_all(settings, settings.embeddings_topic, "read_uncommitted")
            log = connect_log(settings)
            progress = await read_progress(log, settings.progress_topic, settings.graph)
            await log.close()
            assert await worker.stop() == 0
    await require_truth(settings)
    truth = oracle.Oracle(4, accuracy=settings.accuracy[0])
    for record in await read_all(settings, settings.events_topic):
        truth.apply(record.value)
    vectors = sum(record.value is not None for record in records)
    assert progress is not None
    expected = {
        "dgdm_graphs_processed_total": truth.sequence,
        "dgdm_dead_letters_total.wrong-length": 2,
        "dgdm_dead_letters_total.float32-floor": 1,
        "dgdm_published_total": vectors,
        "dgdm_tombstones_total": len(records) - vectors,
        "dgdm_amplification_ratio": vectors / truth.sequence,
        "dgdm_nodes": len(truth.x),
        "dgdm_arcs": len(truth.weights()),
        "dgdm_float32_floor": 0,
        "dgdm_worker_state.serving": 1,
        "dgdm_worker_state.restoring": 0,
        **{f"dgdm_bound.{column}": bound for column, bound in enumerate(progress.bound)},
    }
    assert {name: metrics.get(name) for name in expected} == expected
    assert 0 < metrics["dgdm_max_residual"] <= settings.alpha * settings.accuracy[0] / 2
    assert 0 <= metrics["dgdm_scrub_drift"] < 1e-4
    assert 0 < metrics["dgdm_pushes"] <= metrics["dgdm_visited_rows"]
    assert metrics["dgdm_no_ops"] >= 1
    assert metrics["dgdm_memory_bytes.vectors"] >= 4 * 4 * 4 * len(truth.x)  # X, H, R, P; four features
    for stage in ("apply", "push", "select", "acknowledge", "gather"):
        assert 0 < metrics[f"dgdm_stage_seconds_total.{stage}"] <= time.time() - begun
    assert begun < metrics["dgdm_checkpoint_timestamp_seconds"] <= time.time()
    assert metrics["dgdm_checkpoint_seconds_sum"] > 0
    assert metrics["dgdm_processing_latency_seconds_count"] > 0


async def test_a_store_that_is_away_is_seen(away: Away, tmp_path: Path) -> None:
    """The age of the checkpoint and the lag grow while it is paused; idle and stored, the age does not."""
    settings = away.settings.model_copy(update={"metrics_port": free_port(), "dirty_rows": 40})
    await make_topics(settings)

    async def grows(name: str) -> None:
        before = (await scrape(settings.metrics_port))[name]

        async def more() -> bool:
            return (await scrape(settings.metrics_port))[name] > before

        await until(more, f"{name} above {before}")

    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            await worker.serves()
            await until(lambda: stored_meta(settings), "the first checkpoint")
            await grows("dgdm_checkpoint_timestamp_seconds")  # nothing to write is as good as written
            away.go()
            await send_slowly(events, some_events(1, 500))
            await worker.says("state", "now paused")
            metrics = await scrape(settings.metrics_port)
            assert metrics["dgdm_worker_state.paused"] == 1
            assert metrics["dgdm_worker_state.serving"] == 0
            await send_slowly(events, some_events(2, 500))
            await events.flush()
            await grows("dgdm_lag_records")
            later = await scrape(settings.metrics_port)
            stored = "dgdm_checkpoint_timestamp_seconds"
            assert later[stored] == metrics[stored]
            away.come()
            await events.visible(60)
            assert await worker.stop() == 0
    await require_truth(settings)
