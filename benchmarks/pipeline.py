"""The whole pipeline against real Kafka and Redis: sustained rate, latency, recovery, certificate of that very run.

Generator, consumer, broker, Redis and worker share the machine. Latency is that of probes: every 20 ms a node of
its own gets new features; its vector arrives at a consumer. They travel in the batches of all other events.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from dgdm.audit import audit
from dgdm.cli import _create
from dgdm.connections import connect_log
from dgdm.consumers.embeddings import EmbeddingStream
from dgdm.consumers.progress import read_progress
from dgdm.log.interface import Isolation
from dgdm.producers.graph import GraphProducer
from dgdm.schemas.embeddings import Embedding
from dgdm.settings import Settings

from . import servers

FEATURES, ACCURACY = 32, 0.01
SUSTAINED, STEADY = 10_000, 2_000  # events/s
STEADY_SECONDS = 30
PROBES = 20


async def measure(nodes: int, edges: int, seconds: int) -> dict[str, Any]:
    """Load a graph, then three phases and a certificate."""
    with servers.kafka() as log, servers.redis() as store, tempfile.TemporaryDirectory() as folder:
        settings = Settings(log=log, store=store, features=FEATURES, accuracy=[ACCURACY])
        await _create(settings, 1)
        worker = _start(settings, Path(folder))
        try:
            async with GraphProducer(log, batch=2_000) as producer:
                figures = await _phases(settings, producer, nodes, edges, seconds)
                worker.kill()
                worker.wait()
                worker = _start(settings, Path(folder))
                figures["recovery_s"] = await _first_fresh(settings, producer)
                await producer.visible(120)
            found = await audit(settings, from_log=True)
        finally:
            worker.terminate()
            worker.wait()
    figures["certificate"] = {
        "holds": bool(found.holds),
        "max_error": float(max(found.certificate.error)),
        "accuracy": ACCURACY,
        "nodes": len(found.exact),
    }
    goals = {
        "sustained_events_per_s": _goal(figures["sustained_events_per_s"], SUSTAINED, at_least=True),
        "lag_growth_per_s": _goal(figures["lag_growth_per_s"], SUSTAINED / 100, at_least=False),
        "p99_ms_read_uncommitted": _goal(
            figures["latency_ms"]["read_uncommitted"]["p99"], 25, at_least=False
        ),
        "recovery_s": _goal(figures["recovery_s"], 8, at_least=False),
        "max_error": _goal(max(found.certificate.error), ACCURACY, at_least=False),
    }
    return {**figures, "goals": goals, "holds": bool(found.holds) and all(g["holds"] for g in goals.values())}


async def _phases(
    settings: Settings, producer: GraphProducer, nodes: int, edges: int, seconds: int
) -> dict[str, Any]:
    random = np.random.default_rng(1)
    begun = time.monotonic()
    features = random.normal(size=(nodes, FEATURES)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    for node in range(nodes):
        await producer.add_node(node, features[node])
    for a, b in random.integers(0, nodes, (edges, 2)).tolist():
        await producer.add_edge(a, b)
    await producer.visible(600)
    figures: dict[str, Any] = {
        "nodes": nodes,
        "edges": edges,
        "features": FEATURES,
        "load_events_per_s": round((nodes + edges) / (time.monotonic() - begun)),
        "cores": os.cpu_count(),
    }
    lags: list[int] = []
    sampling = asyncio.create_task(_sample_lag(settings, producer, lags))
    sent, spent = await _open_loop(producer, random, nodes, SUSTAINED, seconds)
    sampling.cancel()
    await asyncio.gather(sampling, return_exceptions=True)
    half = lags[len(lags) // 3 :]
    figures["sustained_events_per_s"] = round(sent / spent)
    figures["lag_events"] = _spread(half)
    figures["lag_growth_per_s"] = (
        round(float(np.polyfit(range(len(half)), half, 1)[0]), 1) if len(half) > 1 else 0
    )
    await producer.visible(120)
    figures["latency_ms"] = {}
    for isolation in ("read_uncommitted", "read_committed"):
        times: list[float] = []
        probing = asyncio.create_task(_probe(settings, producer, times, isolation))
        await asyncio.sleep(1)
        await _open_loop(producer, random, nodes, STEADY, STEADY_SECONDS)
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)
        figures["latency_ms"][isolation] = _spread([1000 * t for t in times])
    return figures


async def _open_loop(
    producer: GraphProducer, random: Any, nodes: int, rate: int, seconds: int
) -> tuple[int, float]:
    """Send edge events at a fixed rate, whatever comes back: events sent and seconds spent."""
    pairs = random.integers(0, nodes, (rate * seconds, 2)).tolist()
    weights = random.uniform(0.5, 2, len(pairs)).tolist()
    begun, sent = time.monotonic(), 0
    while sent < len(pairs):
        due = min(len(pairs), int((time.monotonic() - begun) * rate))
        for i in range(sent, due):
            a, b = pairs[i]
            await producer.add_edge(a, b, weights[i])
        sent = due
        await asyncio.sleep(0.002)
    await producer.flush()
    return sent, time.monotonic() - begun


async def _sample_lag(settings: Settings, producer: GraphProducer, lags: list[int]) -> None:
    log = connect_log(settings)
    try:
        while True:
            await asyncio.sleep(1)
            progress = await read_progress(log, settings.progress_topic, settings.graph)
            if progress is not None:
                lags.append(max(0, producer.offsets.get(0, 0) - progress.event_offsets.get(0, 0)))
    finally:
        await log.close()


async def _probe(
    settings: Settings, producer: GraphProducer, times: list[float], isolation: Isolation
) -> None:
    """Send probes and wait for each at a consumer."""
    log = connect_log(settings)
    sent: dict[str, float] = {}

    async def send() -> None:
        turn = 0
        while True:
            turn += 1
            name = f"probe-{turn % PROBES}"
            sent[name] = time.monotonic()
            await producer.set_features(name, np.full(FEATURES, (turn // PROBES) % 2 + 1.0, np.float32))
            await asyncio.sleep(0.02)

    try:
        async with EmbeddingStream(log, settings.embeddings_topic, isolation=isolation) as stream:
            sending = asyncio.create_task(send())
            try:
                while True:
                    arrived = [c.id for c in await stream.poll(0.05) if isinstance(c, Embedding)]
                    now = time.monotonic()
                    times += [now - sent.pop(name) for name in arrived if name in sent]
            finally:
                sending.cancel()
    finally:
        await log.close()


async def _first_fresh(settings: Settings, producer: GraphProducer) -> float:
    """Seconds from the restart after a SIGKILL to the first vector of an event sent after it."""
    log = connect_log(settings)
    begun = time.monotonic()
    try:
        async with EmbeddingStream(log, settings.embeddings_topic) as stream:
            await producer.set_features("fresh", np.full(FEATURES, 3.0, np.float32))
            while True:
                for change in await stream.poll(0.05):
                    if change.id == "fresh":
                        return round(time.monotonic() - begun, 2)
    finally:
        await log.close()


def _start(settings: Settings, folder: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "DGDM_LOG": settings.log,
        "DGDM_STORE": settings.store,
        "DGDM_FEATURES": str(FEATURES),
        "DGDM_ACCURACY": str(ACCURACY),
    }
    with (folder / "worker.log").open("ab") as output:
        return subprocess.Popen([sys.executable, "-m", "dgdm", "worker"], env=environment, stderr=output)


def _spread(values: list[Any]) -> dict[str, float]:
    if not values:
        return {"samples": 0}
    p50, p99, top = np.percentile(values, [50, 99, 100])
    return {"samples": len(values), "p50": round(p50, 2), "p99": round(p99, 2), "max": round(top, 2)}


def _goal(figure: float, goal: float, *, at_least: bool) -> dict[str, Any]:
    return {
        "figure": float(figure),
        "goal": goal,
        "holds": bool(figure >= goal if at_least else figure <= goal),
    }
