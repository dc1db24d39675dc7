"""A worker as a real process: to be watched through its lease, and to be killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

from dgdm.connections import connect_log, connect_store
from dgdm.log.topics import create_topics, plans
from dgdm.settings import Settings

TESTS = Path(__file__).resolve().parent.parent


class WorkerProcess:
    """`dgdm worker` with settings in its environment; `script` runs another program in its place."""

    def __init__(self, settings: Settings, folder: Path, script: list[str] | None = None) -> None:
        given = settings.model_dump(exclude_unset=True)
        environment = {f"DGDM_{name.upper()}": _text(value) for name, value in given.items()}
        self.log = folder / f"worker-{len(list(folder.glob('worker-*')))}.log"
        command = [sys.executable, *(script or ["-m", "dgdm", "worker"])]
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env={
                    **os.environ,
                    **environment,
                    "DGDM_LOG_FORMAT": "json",
                    "PYTHONPATH": f"{TESTS.parent}/.path",
                },
                stdout=output,
                stderr=output,
                cwd=folder,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # pytest shows it with the failure
            print(f"{self.log.name} (running: {self.running}):", self.log.read_text()[-4000:], sep="\n")
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def signal(self, number: int) -> None:
        """Any signal."""
        self._process.send_signal(number)

    async def serves(self) -> None:
        """Wait until this very process says that it serves."""

        async def told() -> bool:
            return '"state": "serving"' in self.log.read_text()

        await until(told, f"serving: {self.log.read_text()[-500:]}")

    async def stop(self) -> int:
        """SIGTERM once it serves, and the exit code."""
        await self.serves()
        self._process.terminate()
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


async def make_topics(settings: Settings) -> None:
    """The four topics of a graph."""
    log = connect_log(settings)
    try:
        names = (settings.events_topic, settings.embeddings_topic, settings.progress_topic)
        await create_topics(log, plans(*names, settings.dead_letters_topic))
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
            records += await reader.poll(10_000, 1.0)
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


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
