"""100,000 spoiled messages in a good stream: none stops the worker, none vanishes, every good one is applied."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import oracle
import pytest
from mutations import BY_MEANING, GOOD, Mutations
from processes import WorkerProcess, make_topics, read_all, stored_meta
from streams import producer, require_truth

from dgdm.connections import connect_log
from dgdm.log.interface import Message, Record
from dgdm.schemas.reasons import Reason
from dgdm.settings import Settings

pytestmark = pytest.mark.timeout(280)

MUTATIONS, GOOD_ONES = 100_000, 25_000
ROOM_FOR_NODES, SHARE_OF_EDGES = 100, 0.8  # what the limits of the second half leave of the first
MEANT = {change.__name__.strip("_") for change in BY_MEANING}
UNREAD = {Reason.NULL_VALUE, Reason.UNDECODABLE}
KEPT = 256 * 1024  # bytes of a value that a dead letter keeps


class Sent(NamedTuple):
    """A message as sent, and the oracle's verdict: None, or why it is refused."""

    message: Message
    made: str
    refused: str | None


async def test_spoiled_messages_become_dead_letters_and_the_good_ones_are_applied(
    settings: Settings, tmp_path: Path, seed: int
) -> None:
    """One worker without limits, then one that rejects unknown nodes and has little room."""
    print(f"seed {seed}: DGDM_SEED={seed} repeats it")
    await make_topics(settings)
    mutations, rng = Mutations(seed, nodes=100), random.Random(seed)
    truth = oracle.Oracle(4, accuracy=settings.accuracy[0])
    sent: list[Sent] = []
    with WorkerProcess(settings, tmp_path) as worker:
        sent += await send(settings, truth, mutations, rng)
        await stop(settings, truth, worker)
    limits = {
        "unknown_nodes": "reject",
        "max_nodes": len(truth.x) + ROOM_FOR_NODES,
        "max_edges": int(SHARE_OF_EDGES * len(truth.w)),
    }
    settings = settings.model_copy(update=limits)
    for name, value in limits.items():
        setattr(truth, name, value)
    with WorkerProcess(settings, tmp_path) as worker:
        sent += await send(settings, truth, mutations, rng)
        await stop(settings, truth, worker)
    require_a_fair_mix(sent)
    await require_letters(settings, sent)
    await require_truth(settings, "read_committed", truth)


async def send(
    settings: Settings, truth: oracle.Oracle, mutations: Mutations, rng: random.Random
) -> list[Sent]:
    """Half of the messages, into the events topic as they are."""
    made = [mutations.bad() for _ in range(MUTATIONS // 2)]
    made += [mutations.good() for _ in range(GOOD_ONES // 2)]
    rng.shuffle(made)
    messages = [Message(some_key(rng), one.value, some_headers(rng)) for one in made]
    log = connect_log(settings)
    writer = log.writer()
    await writer.start()
    try:
        for start in range(0, len(messages), 2_000):
            await writer.append(settings.events_topic, 0, messages[start : start + 2_000])
    finally:
        await writer.close()
        await log.close()
    return [Sent(m, one.made, truth.apply(one.value)) for m, one in zip(messages, made, strict=True)]


def some_key(rng: random.Random) -> bytes | None:
    """The worker trusts the value, whatever the key."""
    return rng.choice((None, b"", b"key", rng.randbytes(8)))


def some_headers(rng: random.Random) -> list[tuple[str, bytes]]:
    return [("trace", rng.randbytes(4)), ("trace", b"")] if rng.random() < 0.1 else []


async def stop(settings: Settings, truth: oracle.Oracle, worker: WorkerProcess) -> None:
    """Once everything is applied; it never stumbled on the way."""
    async with producer(settings) as events:
        await events.remove_node("nobody")  # changes nothing, but is seen
        truth.sequence += 1
        await events.visible(240)
    assert await worker.stop() == 0
    text = worker.log.read_text()
    assert "Traceback" not in text
    assert "recovering" not in text
    assert (await stored_meta(settings)).event_sequence == truth.sequence


def require_a_fair_mix(sent: list[Sent]) -> None:
    """Every reason often enough, and not all of them found by the decoder."""
    spoiled = [one for one in sent if one.made != GOOD]
    reasons = Counter(one.refused for one in spoiled)
    print(dict(reasons.most_common()))
    assert len(spoiled) == MUTATIONS
    assert {reason for reason in Reason if reasons[reason] >= 200} == set(Reason), reasons
    by_meaning = sum(one.made in MEANT and one.refused not in {None, *UNREAD} for one in spoiled)
    assert by_meaning >= 0.3 * MUTATIONS


async def require_letters(settings: Settings, sent: list[Sent]) -> None:
    """One for each bad record, as it was, with its reason and its place."""
    events: list[Record] = await read_all(settings, settings.events_topic)
    ours = [record for record in events if record.value is None or b"nobody" not in record.value]
    assert [record.value for record in ours] == [one.message.value for one in sent]
    pairs = zip(ours, sent, strict=True)
    expected = {record.offset: (record, one) for record, one in pairs if one.refused is not None}
    letters: dict[int, Record] = {}
    for letter in await read_all(settings, settings.dead_letters_topic):
        offset = int(header(letter, "dgdm-offset"))
        assert offset not in letters, "two letters of one record"
        letters[offset] = letter
    assert letters.keys() == expected.keys()
    for offset, (record, one) in expected.items():
        require_letter(settings, letters[offset], record, one)


def require_letter(settings: Settings, letter: Record, record: Record, sent: Sent) -> None:
    value, key, headers = sent.message.value, sent.message.key, list(sent.message.headers)
    assert letter.key == key
    assert [(name, content) for name, content in letter.headers if not name.startswith("dgdm-")] == headers
    assert header(letter, "dgdm-error").decode() == sent.refused, (sent.made, value)
    assert header(letter, "dgdm-topic").decode() == settings.events_topic
    assert int(header(letter, "dgdm-partition")) == record.partition
    assert 0 < len(header(letter, "dgdm-message")) < 1_000
    if value is None or len(value) <= KEPT:
        assert letter.value == value
    else:
        assert letter.value == value[:KEPT]
        assert int(header(letter, "dgdm-truncated")) == len(value)


def header(letter: Record, name: str) -> bytes:
    (content,) = (content for found, content in letter.headers if found == name)
    return content
