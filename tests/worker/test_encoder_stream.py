"""An encoder before diffusion, in a real worker: what consumers hold is exact for what the encoder says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import oracle
import pytest
from encoders import (
    FEATURES,
    WIDTH,
    answers_of,
    encoded_settings,
    encoder_file,
    require_encoded_truth,
)
from processes import WorkerProcess, make_topics, read_all, stored_meta, until
from scrape import scrape
from stores import free_port
from streams import producer, some_events

from dgdm.audit import NothingToCertifyError, audit
from dgdm.doctor import diagnose
from dgdm.schemas.embeddings import decode_embedding
from dgdm.schemas.events import AddNode, RemoveNode
from dgdm.schemas.progress import decode_progress
from dgdm.settings import Settings
from dgdm.tpu.model import read_model

pytestmark = pytest.mark.timeout(280)
NODES = 1000


def digest_of(encoder: Path) -> str:
    return read_model(encoder).digest


async def test_consumers_hold_what_the_encoder_says_also_after_a_kill(
    settings: Settings, tmp_path: Path
) -> None:
    encoder = encoder_file(tmp_path / "encoder.tflite", 1)
    settings = encoded_settings(settings, encoder)
    await make_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            for event in [*some_events(1, 600, features=WIDTH), RemoveNode("3"), AddNode("3")]:
                await events.send(event)
            await events.visible(60)
            worker.kill()
        with WorkerProcess(settings, tmp_path) as worker:
            for event in some_events(2, 300, features=WIDTH):
                await events.send(event)
            await events.visible(60)
            assert await worker.stop() == 0
            assert not worker.said("encoding_anew")
    for from_log in (False, True):
        assert (await audit(settings, from_log=from_log)).holds
    with pytest.raises(NothingToCertifyError, match="give certify the worker's encoder"):
        await audit(encoded_settings(settings, None))
    counts = await require_encoded_truth(settings, encoder)
    assert counts[read_model(encoder).digest] > 100


async def test_a_graph_with_an_encoder_does_not_start_without_one_nor_the_other_way(
    settings: Settings, tmp_path: Path
) -> None:
    encoder = encoder_file(tmp_path / "encoder.tflite", 1)
    other = encoder_file(tmp_path / "other.tflite", 1, width=WIDTH + 1)
    settings = encoded_settings(settings, encoder)
    await make_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            await events.send(AddNode("a", np.ones(WIDTH, np.float32)))
            await events.visible(60)
            assert await worker.stop() == 0
    for given, says in (
        (None, "encoder is not set, but the stored graph has features that one made of 6 raw ones"),
        (other, "encoder takes 7 features, but those of the stored graph are made of 6 raw ones"),
    ):
        with WorkerProcess(encoded_settings(settings, given), tmp_path) as worker:
            assert await worker.ended() == 2
            assert says in worker.said("refused")[-1]["message"]
    plain = encoded_settings(settings, None, graph=f"{settings.graph}-plain", progress_topic="plain.progress")
    await make_topics(plain)
    async with producer(plain) as events:
        with WorkerProcess(plain, tmp_path) as worker:
            await events.send(AddNode("a", np.ones(FEATURES, np.float32)))
            await events.visible(60)
            assert await worker.stop() == 0
    with WorkerProcess(encoded_settings(plain, encoder), tmp_path) as worker:
        assert await worker.ended() == 2
        says = "encoder takes 6 features, but those of the stored graph are those of its events"
        assert says in worker.said("refused")[-1]["message"]


async def test_another_encoder_encodes_all_anew_beside_the_stream_also_after_kills(
    settings: Settings, tmp_path: Path
) -> None:
    """
    first start:  the first encoder
    second start: the second one; SIGKILL in the middle
    third start:  goes on where that was; SIGTERM in the middle: what consumers hold is exact for the mixture
    fourth start: the rest, with events beside it
    """
    first, second = (
        encoder_file(tmp_path / f"{name}.tflite", len(name), rows=2) for name in ("first", "second")
    )
    settings = encoded_settings(settings, first, metrics_port=free_port(), checkpoint_interval=0.1)
    await make_topics(settings, forgets=False)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            for event in some_events(3, 4000, nodes=NODES, features=WIDTH):
                await events.send(event)
            await events.visible(60)
            assert await worker.stop() == 0
        settled = len(await read_all(settings, settings.embeddings_topic))
        await require_encoded_truth(settings, first)
        settings = encoded_settings(settings, second)
        with WorkerProcess(settings, tmp_path) as worker:
            await worker.serves()
            await until_both_are_stored(settings, first, second)
            nodes = await scrape(settings.metrics_port)
            assert all(nodes[f"dgdm_encoded_nodes.{digest_of(path)}"] > 0 for path in (first, second))
            worker.kill()
        behind = (await stored_meta(settings)).encoders[digest_of(first)]
        with WorkerProcess(settings, tmp_path) as worker:
            await worker.says("encoding_anew", f"{behind} of ")
            await until_both_are_stored(settings, first, second, behind)
            assert await worker.stop() == 0
        counts = await require_encoded_truth(settings, first, second)
        assert all(counts.values()), "it was in the middle"
        with pytest.raises(NothingToCertifyError, match=f"{counts[digest_of(first)]} nodes are as encoder"):
            await audit(settings)
        (found, *_) = await diagnose(settings, [])
        assert all(f"{digest}: {count}" in found.message for digest, count in counts.items())
        await require_between(settings, first, second, settled)
        with WorkerProcess(settings, tmp_path) as worker:
            for event in some_events(4, 300, nodes=NODES, features=WIDTH):
                await events.send(event)
            await events.visible(60)
            await worker.says("encoded_anew", f"as encoder {digest_of(second)} has them")
            assert await worker.stop() == 0
    await require_encoded_truth(settings, second)
    assert (await audit(settings)).holds
    bounds = [max(decode_progress(r.value).bound) for r in await read_all(settings, settings.progress_topic)]
    assert len(bounds) > 10
    assert max(bounds) <= settings.accuracy[0]


async def until_both_are_stored(settings: Settings, first: Path, second: Path, below: int = NODES) -> None:
    """A checkpoint has rows of both encoders, fewer than that of the first."""

    async def mixed() -> bool:
        encoders = (await stored_meta(settings)).encoders
        return 0 < encoders.get(digest_of(first), 0) < below and encoders.get(digest_of(second), 0) > 0

    await until(mixed, "rows of both encoders in the store")


async def require_between(settings: Settings, first: Path, second: Path, begin: int) -> None:
    """
    Every vector published since is the answer for some mixture of both, within the bound.

    Diffusion is monotone: X that lies between two others has an answer between theirs.
    """
    truth = oracle.Oracle(WIDTH)
    for record in await read_all(settings, settings.events_topic):
        truth.apply(record.value)
    nodes = sorted(truth.x)
    raw = np.array([truth.x[node] for node in nodes])
    answers = np.array([answers_of(path.read_bytes(), raw) for path in (first, second)])
    ends = []
    for x in (answers.min(axis=0), answers.max(axis=0)):
        truth.x = dict(zip(nodes, x, strict=True))
        ends.append(truth.exact())
    published = [r for r in (await read_all(settings, settings.embeddings_topic))[begin:] if r.value]
    assert len(published) > 50
    for record in published:
        found = decode_embedding(record.key, record.value)
        low, high = (end[found.id] for end in ends)
        assert (found.vector >= low - settings.accuracy[0]).all()
        assert (found.vector <= high + settings.accuracy[0]).all()


async def test_a_backlog_does_not_wait_for_rows_that_are_encoded_anew(
    settings: Settings, tmp_path: Path
) -> None:
    first, second = (
        encoder_file(tmp_path / f"{name}.tflite", len(name), rows=2) for name in ("first", "second")
    )
    settings = encoded_settings(settings, first, catch_up=100, batch=50, max_staleness=0.05)
    await make_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            for event in some_events(3, 3000, nodes=NODES, features=WIDTH):
                await events.send(event)
            await events.visible(60)
            assert await worker.stop() == 0
        for event in some_events(4, 3000, nodes=NODES, features=WIDTH):
            await events.send(event)
        settings = encoded_settings(settings, second)
        with WorkerProcess(settings, tmp_path) as worker:
            await worker.says("encoding_anew")
            await events.visible(60)
            assert not worker.said("encoded_anew"), "events come first"
            await worker.says("encoded_anew")
            assert await worker.stop() == 0
    await require_encoded_truth(settings, second)
