"""SIGKILL under steady load, at seeded moments of a worker's whole life: the body of a test and of `make soak KILLS=…`."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

from processes import WorkerProcess
from streams import producer, some_events
from truth import Truth, Verdict

from dgdm.producers.graph import GraphProducer
from dgdm.settings import Settings

SCRIPT = str(Path(__file__).with_name("traced_worker.py"))
RECOVERY = ("lease", "token", "fence", "load", "tail", "replay", "announce")
COMMIT = ("barrier", "transaction", "gather", "store", "group")
MOMENTS = ("starting", "recovering", "committing", "committing", "serving", "backlog")
TWICE = 0.2  # of the kills strike a worker whose predecessor was killed a moment ago

NODES = 400
RATE = 1_000  # events/s, all the time
BACKLOG = 6_000  # events at once
PER_POINT = 5  # kills between two quiet points


class Kill(NamedTuple):
    """One SIGKILL."""

    moment: str  # one of MOMENTS, or "again"
    seconds: float  # after the process started, a step began, it served, or a backlog was there
    step: str  # what the worker was doing: a step of recovery or commit, or "serving"


class Killed(NamedTuple):
    """What came of it."""

    kills: list[Kill]
    verdicts: list[Verdict]  # one for each quiet point


class Prey:
    """The worker of the moment, and what it was doing."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._number = 0
        self.started = time.monotonic()
        self.seconds_to_serve = 1.5  # of the last one that came so far
        self.process = self._start()

    def _start(self) -> WorkerProcess:
        self._number += 1
        self.trace = self._folder / f"steps-{self._number}"
        self.trace.touch()
        self.started = time.monotonic()
        return WorkerProcess(self._settings, self._folder, [SCRIPT, str(self.trace)])

    def kill(self) -> str:
        """SIGKILL, and the next one is started: the step it was in."""
        assert self.process.running, self.process.log.read_text()[-2_000:]
        self.process.kill()
        step = self.step()
        self.process = self._start()
        return step

    def step(self) -> str:
        """The last thing begun and not ended."""
        begun = ["start"]
        for line in self.trace.read_text().splitlines():
            moment, step = line.split()
            begun = ["serving"] if moment == "after" else [step]
        return begun[0]

    async def reaches(self, step: str, times: int = 1) -> None:
        """Wait for a step to begin, not longer than it may last."""
        async with asyncio.timeout(60):
            while self.trace.read_text().count(f"before {step}\n") < times:  # noqa: ASYNC110 - another process is watched
                await asyncio.sleep(0.001)

    async def serves(self) -> None:
        """Wait until it serves."""
        await self.process.serves()
        self.seconds_to_serve = min(self.seconds_to_serve, time.monotonic() - self.started)


async def kill_often(
    settings: Settings,
    folder: Path,
    kills: int,
    seed: int,
    *,
    truth: Truth | None = None,
    tell: Callable[[str], None] = print,
) -> Killed:
    """Kill so many times under load; after every few, and at the end, a verdict on a quiet stream.

    `truth` is the oracle of a graph that has lived before.
    """
    rng, features = random.Random(seed), settings.features or 1
    truth, prey = truth or Truth(settings), Prey(settings, folder)
    done: list[Kill] = []
    verdicts: list[Verdict] = []
    try:
        async with producer(settings) as events:
            while len(done) < kills:
                async with load(events, rng, features):
                    for _ in range(min(PER_POINT, kills - len(done))):
                        done.append(await strike(prey, events, rng, features))
                        tell(f"kill {len(done)} of {kills}: {done[-1].moment}, in {done[-1].step}")
                await prey.serves()
                await events.visible(120)
                verdicts.append(await truth.verdict())
                tell(f"quiet: {verdicts[-1]}")
            with prey.process as worker:
                assert await worker.stop() == 0
        verdicts.append(await truth.verdict())
    finally:
        prey.process.kill()
    return Killed(done, verdicts)


async def strike(prey: Prey, events: GraphProducer, rng: random.Random, features: int) -> Kill:
    """One kill; the moment and the delay are seeded, what the worker does meanwhile is its own affair."""
    moment = rng.choice(MOMENTS)
    if time.monotonic() - prey.started < 0.1 and rng.random() < TWICE:
        moment, longest = "again", 0.1
    elif moment == "starting":
        longest = 1.2 * prey.seconds_to_serve
    elif moment == "recovering":
        await prey.reaches(rng.choice(RECOVERY))
        longest = 0.02
    else:
        await prey.serves()
        longest = 1.0
    if moment == "backlog":
        for event in some_events(rng.randrange(2**32), BACKLOG, NODES, features):
            await events.send(event)
    if moment == "committing":
        step = rng.choice(COMMIT)
        await prey.reaches(step, prey.trace.read_text().count(f"before {step}\n") + 1)
        longest = 0.01
    seconds = rng.uniform(0, longest)
    await asyncio.sleep(seconds)
    return Kill(moment, round(seconds, 3), prey.kill())


@contextlib.asynccontextmanager
async def load(events: GraphProducer, rng: random.Random, features: int) -> AsyncIterator[None]:
    """Events at a steady rate, whatever becomes of the worker."""

    async def send() -> None:
        begun, sent = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - begun) * RATE)
            for event in some_events(rng.randrange(2**32), due - sent, NODES, features):
                await events.send(event)
            sent = due
            await asyncio.sleep(0.02)

    task = asyncio.create_task(send())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
