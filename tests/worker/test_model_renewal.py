"""Files of models taken up while a worker serves: SIGHUP, and no event waits for it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from encoders import (
    FEATURES,
    WIDTH,
    answers_of,
    encoded_settings,
    encoder_file,
    require_encoded_truth,
)
from processes import WorkerProcess, make_topics, read_all, settings_of, until
from streams import producer, some_events

from dgdm.connections import connect_log
from dgdm.log.topics import create_topics, plans
from dgdm.schemas.embeddings import Embedding, decode_embedding
from dgdm.schemas.predictions import Prediction, decode_prediction
from dgdm.settings import Settings
from dgdm.tpu.model import read_model

pytestmark = pytest.mark.timeout(280)


def put(source: Path, target: Path) -> None:
    """As one puts a file in the place of another that may be read."""
    fresh = target.with_suffix(".new")
    shutil.copy(source, fresh)
    fresh.rename(target)


def digest_of(path: Path) -> str:
    return read_model(path).digest


async def test_another_encoder_is_taken_up_while_events_come(settings: Settings, tmp_path: Path) -> None:
    first, second = (
        encoder_file(tmp_path / f"{name}.tflite", len(name), rows=3) for name in ("first", "second")
    )
    encoder = tmp_path / "encoder.tflite"
    put(first, encoder)
    settings = encoded_settings(settings, encoder)
    await make_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            for event in some_events(1, 800, nodes=400, features=WIDTH):
                await events.send(event)
            await events.visible(60)
            worker.signal(signal.SIGHUP)
            await worker.says("model_unchanged")
            put(second, encoder)
            worker.signal(signal.SIGHUP)
            for event in some_events(2, 800, nodes=400, features=WIDTH):
                await events.send(event)
            await worker.says("model_swapped", f"{digest_of(second)} serves, {digest_of(first)} did")
            await worker.says("encoded_anew", digest_of(second))
            await events.visible(60)
            assert await worker.stop() == 0
            assert len(worker.said("state", "now serving")) == 1, "no pause"
    await require_encoded_truth(settings, second)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("damaged", "the runtime refuses the file|no readable .tflite file|names a tensor"),
        ("narrow", r"the model takes 6 columns and gives 3; in service: \(6, 4\)"),
        ("wide", r"the model takes 7 columns and gives 4; in service: \(6, 4\)"),
        ("missing", "cannot be read"),
        ("worse", "on the golden batch it is"),
        ("far", "what it makes of zeros, .* too far from the offset for the accuracy"),
    ],
)
async def test_a_file_that_cannot_serve_leaves_the_old_one(tmp_path: Path, bad: str, says: str) -> None:
    log, store = (f"sqlite:///{tmp_path}/{name}.db" for name in ("log", "store"))
    first, encoder = encoder_file(tmp_path / "first.tflite", 1), tmp_path / "encoder.tflite"
    put(first, encoder)
    settings = settings_of(log, store, encoder=encoder)
    if bad == "worse":
        x = np.random.default_rng(1).normal(size=(20, WIDTH)).astype(np.float32)
        np.savez(tmp_path / "golden.npz", features=x, expected=answers_of(first.read_bytes(), x))
        settings = settings.model_copy(update={"encoder_golden": tmp_path / "golden.npz"})
    await make_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            for event in some_events(1, 300, features=WIDTH):
                await events.send(event)
            await events.visible(60)
            other = encoder_file(
                tmp_path / "other.tflite",
                2,
                width=WIDTH + (bad == "wide"),
                features=FEATURES - (bad == "narrow"),
                bias=1e3 if bad == "far" else 0.0,
            )
            if bad == "damaged":
                other.write_bytes(other.read_bytes()[: other.stat().st_size // 2])
            put(other, encoder)
            if bad == "missing":
                encoder.unlink()
            worker.signal(signal.SIGHUP)
            said = await worker.says("model_refused")
            assert re.search(says, said["message"])
            assert f"{digest_of(first)} goes on" in said["message"]
            for event in some_events(2, 300, features=WIDTH):
                await events.send(event)
            await events.visible(60)
            assert await worker.stop() == 0
    await require_encoded_truth(settings, first)


async def test_another_head_speaks_for_every_node_while_events_come(
    settings: Settings, tmp_path: Path
) -> None:
    first, second = (
        encoder_file(tmp_path / f"{name}.tflite", len(name), width=FEATURES, features=3)
        for name in ("first", "second")
    )
    head = tmp_path / "head.tflite"
    put(first, head)
    topic = f"{settings.graph}.predictions"
    settings = settings.model_copy(update={"head": head, "predictions_topic": topic})
    await make_topics(settings)
    log = connect_log(settings)
    try:
        names = (settings.events_topic, settings.embeddings_topic, settings.progress_topic)
        await create_topics(log, plans(*names, settings.dead_letters_topic, predictions=topic))
    finally:
        await log.close()

    async def by_the_second() -> bool:
        return {found.digest for found in (await predictions(settings)).values()} == {digest_of(second)}

    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            for event in some_events(1, 800):
                await events.send(event)
            await events.visible(60)
            put(second, head)
            worker.signal(signal.SIGHUP)
            for event in some_events(2, 300):
                await events.send(event)
            await worker.says("model_swapped", f"{digest_of(second)} serves, {digest_of(first)} did")
            await events.visible(60)
            await until(by_the_second, "all predictions by the second head")
            assert await worker.stop() == 0
    held = {}
    for record in await read_all(settings, settings.embeddings_topic):
        change = decode_embedding(record.key, record.value)
        held[change.id] = change
    vectors = {node: change.vector for node, change in held.items() if isinstance(change, Embedding)}
    found = await predictions(settings)
    assert found.keys() == vectors.keys()
    nodes = sorted(found)
    expected = answers_of(second.read_bytes(), np.array([vectors[node] for node in nodes]))
    np.testing.assert_allclose(np.array([found[node].vector for node in nodes]), expected, atol=1e-6)


async def predictions(settings: Settings) -> dict[str, Prediction]:
    """The last one of each node that has any."""
    last = {}
    for record in await read_all(settings, settings.predictions_topic):
        found = decode_prediction(record.key, record.value)
        last[found.id] = found
    return {node: found for node, found in last.items() if isinstance(found, Prediction)}


async def test_without_models_a_hang_up_ends_a_worker(settings: Settings, tmp_path: Path) -> None:
    await make_topics(settings)
    with WorkerProcess(settings, tmp_path) as worker:
        await worker.serves()
        os.kill(worker.pid, signal.SIGHUP)
        assert await asyncio.wait_for(worker.ended(), 60) == -signal.SIGHUP
