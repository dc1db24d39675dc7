"""Events at the edge of what is allowed, and beyond it, through a worker: the oracle's answer and its dead letters."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from brokers import shared_broker
from processes import WorkerProcess, make_topics, read_all, settings_of
from scrape import scrape
from stores import free_port
from streams import require_truth

from dgdm.connections import connect_log
from dgdm.consumers.progress import ProgressFollower
from dgdm.log.interface import Message
from dgdm.settings import Settings

pytestmark = pytest.mark.timeout(280)
TEN_MB = 10_000_000


def event(kind: str, **fields: Any) -> bytes:
    """JSON, NaN and infinities included."""
    return json.dumps({"type": kind, **fields}).encode()


def node(name: str, *features: float) -> bytes:
    return event("AddNode", id=name, features=list(features))


def edge(source: str, target: str, weight: float = 1.0, op: str = "set") -> bytes:
    return event("AddEdge", source=source, target=target, weight=weight, op=op)


def gone(source: str, target: str) -> bytes:
    return event("RemoveEdge", source=source, target=target)


HARD: list[tuple[bytes, str | None]] = [  # and why it is refused
    (node("large message", 1, 0, 0, 0)[:-1] + b', "note": "' + b"x" * TEN_MB + b'"}', None),
    (b"\x93" + b"x" * TEN_MB, "undecodable"),
    (node("i" * 256, 1, 0, 0, 0), None),
    (node("i" * 257, 1, 0, 0, 0), "bad-id"),
    (node("ü" * 128, 1, 0, 0, 0), None),
    (node("ü" * 128 + "i", 1, 0, 0, 0), "bad-id"),
    (node("", 1, 0, 0, 0), "bad-id"),
    (node("z\u0000 \u202e👩‍🚀 e\u0301", 0, 1, 0, 0), None),
    (node("not a number", float("nan"), 0, 0, 0), "undecodable"),
    (node("infinite", float("inf"), 0, 0, 0), "undecodable"),
    (node("too large", 1e38, 0, 0, 0), "not-finite"),
    (node("no room for it", 1e6, 0, 0, 0), "float32-floor"),
    (node("tiny", 1e-46, -0.0, 0, 0), None),
    (node("below the threshold", 0.004, 0, 0, 0), None),
    (edge("below the threshold", "tiny"), None),
    (edge("a", "b", float("inf")), "undecodable"),
    (edge("a", "b", 1e39), "not-finite"),
    (edge("a", "b", 1e-46), "bad-weight"),
    (edge("a", "b", -0.0), "bad-weight"),
    (edge("a", "b", -1.0), "bad-weight"),
    (edge("a", "b", 3e38), None),
    (edge("a", "b", 3e38, "add"), "weight-overflow"),
    (node("a", 9, -9, 3, 1), None),
    (edge("a", "c", 0.5), None),
    (gone("a", "b"), None),
    (gone("a", "b"), None),  # twice: changes nothing
    (gone("nobody", "a"), None),
    (edge("a", "d", 1e8), None),  # next to 0.5, and gone again
    (gone("a", "d"), None),
    (edge("a", "a", 2.0), None),
    (edge("c", "c", 2.0, "add"), None),
    (edge("c", "c", 2.0, "add"), None),
    (gone("c", "c"), None),
    (event("RemoveNode", id="d"), None),
    (edge("e", "a", 0.25), None),  # on the row that was d's
    (node("d", 1, 1, 1, 1), None),
    (edge("d", "d", 0.125), None),
    (event("RemoveNode", id="nobody"), None),
]


async def send(settings: Settings, messages: list[bytes]) -> None:
    """As they are, without a client that would refuse them."""
    log = connect_log(settings)
    writer = log.writer()
    await writer.start()
    await writer.append(settings.events_topic, 0, [Message(b"key", value) for value in messages])
    await writer.close()
    await log.close()


async def applied(settings: Settings, count: int) -> list[float]:
    """Wait until progress covers so many records: the bound it names."""
    log = connect_log(settings)
    follower = ProgressFollower(log, settings.progress_topic, settings.graph)
    follower.start()
    try:
        async with asyncio.timeout(120):
            return (await follower.wait_until(lambda told: told.event_offsets[0] >= count)).bound
    finally:
        await follower.close()
        await log.close()


async def test_each_is_applied_or_told_apart(settings: Settings, tmp_path: Path) -> None:
    await make_topics(settings, max_message_bytes=str(TEN_MB + 1000))
    with WorkerProcess(settings, tmp_path) as worker:
        await worker.serves()
        await send(settings, [message for message, _ in HARD])
        await applied(settings, len(HARD))
        assert await worker.stop() == 0
        assert not worker.said("float32_floor")
    await require_truth(settings)
    letters = await read_all(settings, settings.dead_letters_topic)
    letters.sort(key=lambda letter: int(dict(letter.headers)["dgdm-offset"]))
    refused = [
        (int(headers["dgdm-offset"]), headers["dgdm-error"].decode()) for headers in headers_of(letters)
    ]
    assert refused == [(at, reason) for at, (_, reason) in enumerate(HARD) if reason is not None]
    for letter, (at, _) in zip(letters, refused, strict=True):
        message = HARD[at][0]
        assert letter.value == message[: len(letter.value)]
        truncated = dict(letter.headers).get("dgdm-truncated")
        assert truncated == (None if len(letter.value) == len(message) else str(len(message)).encode())


def headers_of(letters: list[Any]) -> list[dict[str, bytes]]:
    return [dict(letter.headers) for letter in letters]


async def test_more_than_float32_keeps(settings: Settings, tmp_path: Path) -> None:
    """Refused by default; with allow_floor the bound, the metric and a log line say what is kept."""
    settings = settings.model_copy(update={"allow_floor": True, "metrics_port": free_port()})
    await make_topics(settings)
    messages = [node("a", 1, 0, 0, 0), edge("a", "b"), edge("b", "c", 2.0)]
    with WorkerProcess(settings, tmp_path) as worker:
        await worker.serves()
        await send(settings, messages)
        assert max(await applied(settings, 3)) <= settings.accuracy[0]
        assert (await scrape(settings.metrics_port))["dgdm_float32_floor"] == 0
        await send(settings, [node("a", 1e6, 0, 0, 0)])
        bound = max(await applied(settings, 4))
        assert bound > settings.accuracy[0]
        metrics = await scrape(settings.metrics_port)
        assert metrics["dgdm_float32_floor"] == 1
        assert metrics["dgdm_bound.0"] == bound
        assert f"{bound}" in (await worker.says("float32_floor"))["message"]
        assert await worker.stop() == 0
    await require_truth(settings, within=bound)


@pytest.mark.integration
async def test_a_hub_of_200_000_goes(redis_url: str, tmp_path: Path) -> None:
    """And comes back smaller, on a row of its own or of another."""
    settings = settings_of(shared_broker().url, redis_url, checkpoint_interval=2.0)
    await make_topics(settings)
    spokes = 200_000
    await send(settings, [node("hub", 100, -100, 7, 0)])
    await send(settings, [edge("hub", str(n), 1 + n % 7) for n in range(spokes)])
    with WorkerProcess(settings, tmp_path) as worker:
        await applied(settings, spokes + 1)
        rest = [event("RemoveNode", id="hub"), node("hub", 1, 1, 1, 1)]
        await send(settings, [*rest, *(edge("hub", str(n)) for n in range(0, spokes, 1000))])
        await applied(settings, spokes + 3 + spokes // 1000)
        assert await worker.stop() == 0
    await require_truth(settings)
