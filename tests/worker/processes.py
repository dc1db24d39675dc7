"""A worker as a real process: to be watched through its lease, and to be killed."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr
from template import shared_template

from dgdm.connections import connect_log, connect_store
from dgdm.consumers.progress import MARKERS
from dgdm.log.topics import create_topics, plans
from dgdm.settings import Settings

_numbers = itertools.count()


def settings_of(log: str, store: str, **others: Any) -> Settings:
    """Settings of a graph of its own, quick to take over and to checkpoint."""
    name = f"g{os.getpid()}-{next(_numbers)}"
    given = {
        "graph": name,
        "features": 4,
        "accuracy": [0.01],
        "checkpoint_interval": 0.3,
        "lease_ttl": 0.3,
        "events_topic": f"{name}.events",
        "embeddings_topic": f"{name}.embeddings",
        "progress_topic": f"{name}.progress",
        "dead_letters_topic": f"{name}.dead-letters",
    }
    return Settings(log=log, store=store, **(given | others))


class WorkerProcess:
    """`dgdm worker` with settings in its environment; `script` runs another program in its place."""

    def __init__(self, settings: Settings, folder: Path, script: list[str] | None = None) -> None:
        self.log = folder / f"worker-{len(list(folder.glob('worker-*')))}.log"
        self.log.touch()
        environment = {**os.environ, **environment_of(settings), "DGDM_LOG_FORMAT": "json"}
        self._process = shared_template().fork(script or ["worker"], environment, folder, self.log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # pytest shows it with the failure
            print(f"{self.log.name} (running: {self.running}):", self.log.read_text()[-4000:], sep="\n")
        self._process.send_signal(signal.SIGCONT)
        self.kill()
        if kind is None:
            for line in self.lines():  # a stable key and a sentence each; a traceback is neither
                assert line["event"].isidentifier(), line
                assert len(line["message"].split()) > 1, line

    def kill(self) -> None:
        """SIGKILL."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(60)

    def signal(self, number: int) -> None:
        """Any signal."""
        self._process.send_signal(number)

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return [
            json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")
        ]

    def said(self, event: str, words: str = "") -> list[dict[str, Any]]:
        """Its log lines of this event with these words."""
        return [line for line in self.lines() if line["event"] == event and words in line["message"]]

    async def says(self, event: str, words: str = "", times: int = 1) -> dict[str, Any]:
        """Wait until it has said so often; the last of those lines. Fails at once when the process ends before."""

        async def told() -> bool:
            running = self.running
            told = len(self.said(event, words)) >= times
            assert told or running, f"ended with {self._process.poll()} and never said {event} {words!r}"
            return told

        await until(told, f"{event} {words!r} {times} times: {self.log.read_text()[-500:]}")
        return self.said(event, words)[-1]

    async def serves(self) -> None:
        """Wait until this very process says that it serves."""
        await self.says("state", "now serving")

    async def stop(self) -> int:
        """SIGTERM once it serves, and the exit code."""
        await self.serves()
        self._process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """The exit code, when it has one."""
        return await asyncio.to_thread(self._process.wait, 60)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None


async def until(condition: Callable[[], Awaitable[Any]], what: str, seconds: float = 60.0) -> Any:
    """Ask until the answer is true."""
    try:
        async with asyncio.timeout(seconds):
            while not (answer := await condition()):  # noqa: ASYNC110 - another process is watched
                await asyncio.sleep(0.02)
            return answer
    except TimeoutError:
        raise AssertionError(f"not in {seconds:g} s: {what}") from None


async def make_topics(settings: Settings, forgets: bool = True, **events: str) -> None:
    """
    The four topics of a graph.

    forgets: False keeps superseded records, for a test that counts them or looks at who wrote them.
    events: More configuration of that topic, an underscore for a dot.
    """
    log = connect_log(settings)
    names = (settings.events_topic, settings.embeddings_topic, settings.progress_topic)
    kept = {} if forgets else {"min.cleanable.dirty.ratio": "1"}
    first, *others = (
        plan._replace(config={**plan.config, **kept}) for plan in plans(*names, settings.dead_letters_topic)
    )
    config = {**first.config, **{name.replace("_", "."): value for name, value in events.items()}}
    try:
        await create_topics(log, [first._replace(config=config), *others])
    finally:
        await log.close()


async def read_all(settings: Settings, topic: str, isolation: Any = "read_committed") -> list[Any]:
    """Every record of a topic."""
    log = connect_log(settings)
    reader = log.reader(topic, isolation)
    await reader.start()
    try:
        end = await reader.end_offsets()
        records: list[Any] = []
        while any(reader.positions().get(p, 0) < e for p, e in end.items()):
            records += await reader.poll(10_000, MARKERS)
        return records
    finally:
        await reader.close()
        await log.close()


async def stored_meta(settings: Settings) -> Any:
    """What the store holds now."""
    store = connect_store(settings)
    try:
        return await asyncio.to_thread(store.meta)
    finally:
        store.close()


async def stores(settings: Settings, sequence: int) -> None:
    """The store has so many events."""

    async def told() -> bool:
        meta = await stored_meta(settings)
        return meta is not None and meta.event_sequence == sequence

    await until(told, f"{sequence} events in the store")


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings that were given, as `dgdm` reads them."""
    given = settings.model_dump(exclude_unset=True)
    return {f"DGDM_{name.upper()}": _text(value) for name, value in given.items()}


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
