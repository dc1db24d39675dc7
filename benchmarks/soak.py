"""Everything at once, for a while, with real Kafka and Redis; or SIGKILLs under load. The oracle of the tests judges.

Cycles of load, each with a frozen Redis, a paused broker, growth, a hub, overload and mass removal; the later ones
with a takeover by a standby as well. After each the graph is as large as before: a quiet point, where every promise
is checked, memory is compared, and the latency of the cycle's ordinary beginning. Then the kills.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from brokers import Broker, own_broker
from kills import kill_often
from processes import WorkerProcess, read_all, until
from stores import RedisProcess, running_redis
from streams import producer
from truth import Truth, Verdict

from dgdm.audit import audit
from dgdm.connections import connect_log
from dgdm.consumers.progress import ProgressFollower
from dgdm.log.topics import create_topics, plans
from dgdm.schemas.events import GraphEvent
from dgdm.settings import Settings

from .causes import Probe
from .figures import at_least, at_most, tails, with_goals
from .probes import probe
from .soak_load import Town

RATE = 1_000  # events/s of an ordinary day
ORDINARY, FROZEN, PAUSED, OVERLOADED = 5.0, 6.0, 6.0, 8.0  # seconds of each part of a cycle
ALONE = 0.7  # of the time one and the same worker serves, so that its memory can be compared
FEWEST = 3  # cycles of it
SETTLING = 1.0  # seconds of an ordinary time before its latency counts
# Times: medians of the later half of quiet points against those of the first.
MORE_MEMORY, SLOWER = 1.025, 1.5
KEPT = 0.5  # of the vectors written, the compacted topic holds at most
TELL_EVERY = 5.0  # seconds
COMPACTED = {
    "segment.bytes": str(1 << 20),
    "min.cleanable.dirty.ratio": "0.05",
    "delete.retention.ms": "1000",
}

SETTINGS: dict[str, Any] = {
    "graph": "soak",
    "features": 16,
    "accuracy": [0.01],
    "checkpoint_interval": 1.0,
    "dirty_rows": 8_000,  # a frozen Redis is felt
    "lease_ttl": 1.0,
    "outage_budget": 60.0,
}


async def measure(minutes: float, kills: int, seed: int) -> dict[str, Any]:
    """Cycles for so many minutes (0: none), then so many kills."""
    me = asyncio.current_task()
    assert me is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    logging.disable(logging.CRITICAL)  # clients complain of faults that are meant
    with own_broker() as broker, running_redis() as redis, tempfile.TemporaryDirectory() as folder:
        settings = Settings(log=broker.url, store=redis.tcp_url, **SETTINGS)
        await _topics(settings)
        soak = Soak(settings, broker, redis, Path(folder), seed)
        if minutes:
            await soak.run(60 * minutes)
        if kills:
            await soak.kill(kills)
        return await soak.result()


class Soak:
    """One run: what is there, what has been seen."""

    def __init__(
        self, settings: Settings, broker: Broker, redis: RedisProcess, folder: Path, seed: int
    ) -> None:
        self._settings, self._broker, self._redis = settings, broker, redis
        self._folder, self._seed = folder, seed
        self._town, self._truth = Town(seed, settings.features or 1), Truth(settings)
        self._begun, self._phase, self._told = time.monotonic(), "start", 0.0
        self._latency: dict[str, float] = {}
        self._points: list[dict[str, Any]] = []
        self._peaks: dict[str, dict[str, float]] = {}
        self._workers: list[WorkerProcess] = []
        self._ended: list[str] = []  # how workers ended that should not have
        self._found: dict[str, Any] = {}

    # -- cycles

    async def run(self, seconds: float) -> None:
        """Cycles for so long, and a few at least."""
        log = connect_log(self._settings)
        follower = ProgressFollower(log, self._settings.progress_topic, self._settings.graph)
        try:
            self._worker = self._start()
            async with producer(self._settings) as events:
                self._events = events
                follower.start()
                watching = asyncio.create_task(self._watch(follower))
                try:
                    await self._cycles(seconds)
                finally:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
            if await self._worker.stop() != 0:
                self._ended.append("the last worker did not stop in good order")
        finally:
            for worker in self._workers:
                worker.kill()
            await follower.close()
            await log.close()

    async def _cycles(self, seconds: float) -> None:
        self._phase = "founding"
        await self._send(self._town.founded())
        await self._events.visible(300)
        await self._ordinary()
        await self._send(self._town.mended())
        await self._quiet()
        begun, done = time.monotonic(), 0
        while (passed := time.monotonic() - begun) < seconds or done <= FEWEST:
            alone = passed < ALONE * seconds or done < FEWEST
            await self._cycle(takeover=not alone)
            done += 1

    async def _cycle(self, *, takeover: bool) -> None:
        await self._ordinary()
        await self._live_through("redis frozen", FROZEN, self._redis.freeze, self._redis.thaw)
        self._phase = "growth and a hub"
        await self._send(self._town.grown())
        await self._live("overload", OVERLOADED, rate=None)
        await self._live_through("broker paused", PAUSED, self._broker.pause, self._broker.resume)
        if takeover:
            await self._take_over()
        self._phase = "mass removal"
        await self._send(self._town.shrunk())
        await self._live("ordinary", ORDINARY)
        await self._send(self._town.mended())
        await self._quiet()

    async def _ordinary(self) -> None:
        """Ordinary events after a quiet point, and how long a vector takes."""
        seen: list[Probe] = []
        probing = asyncio.create_task(probe(self._settings, seen, "read_uncommitted", SETTLING))
        try:
            await self._live("ordinary", ORDINARY)
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
        self._latency = tails([1000 * one.seconds for one in seen])

    async def _live(self, phase: str, seconds: float, rate: int | None = RATE) -> None:
        """Ordinary events for so long, at a rate that waits for nobody; without one as fast as they are taken."""
        self._phase = phase
        begun, sent, life = time.monotonic(), 0, self._town.lived()
        while (passed := time.monotonic() - begun) < seconds:
            due = sent + 500 if rate is None else int(rate * passed)
            for _ in range(due - sent):
                await self._events.send(next(life))
            sent = due
            await asyncio.sleep(0 if rate is None else 0.01)

    async def _live_through(
        self, phase: str, seconds: float, begin: Callable[[], None], end: Callable[[], None]
    ) -> None:
        """A fault of so many seconds, also when nothing can be sent meanwhile."""

        async def fault() -> None:
            begin()
            try:
                await asyncio.sleep(seconds)
            finally:
                end()

        async with asyncio.TaskGroup() as both:
            both.create_task(fault())
            both.create_task(self._live(phase, seconds))

    async def _send(self, stream: Iterable[GraphEvent]) -> None:
        for event in stream:
            await self._events.send(event)

    async def _take_over(self) -> None:
        """A frozen worker, its standby, and the end of the one that wakes up too late."""
        old, new = self._worker, self._start()
        try:
            await until(lambda: _says(new, "lease_wait"), "the standby waits")
            self._phase, self._worker = "takeover", new
            old.signal(signal.SIGSTOP)
            await self._live("takeover", ORDINARY)
            await new.serves()
        finally:
            self._worker = new
            old.signal(signal.SIGCONT)
        await self._live("takeover", ORDINARY / 5)
        code = await old.ended()
        if code != 3:
            self._ended.append(f"the worker that was taken over ended with {code}, not 3 (fenced)")

    async def _quiet(self) -> None:
        """Nothing more comes: every promise is checked, and what it takes is written down."""
        self._phase = "quiet"
        await self._events.visible(300)
        verdict = await self._truth.verdict()
        written, kept, same = await self._output()
        if not same:
            verdict.wrong.append(
                "a consumer that reads the compacted topic from its beginning holds another table"
            )
        point = {
            "minute": round((time.monotonic() - self._begun) / 60, 2),
            **_words(verdict),
            "pid": self._worker.pid,
            "latency_ms": self._latency,
            "worker_mb": _resident(self._worker.pid),
            "redis_mb": self._redis_memory(),
            "redis_files_mb": _size(self._redis.folder),
            "log_files_mb": _size(self._broker.folder),
            "vectors_written": written,
            "vectors_kept": kept,
        }
        self._points.append(point)
        _tell(
            f"quiet point {len(self._points)}: {verdict.nodes:,} nodes and {verdict.arcs:,} arcs, largest error "
            f"{verdict.error:.4f} within {verdict.bound:.4f}, worker {point['worker_mb']} MB, Redis "
            f"{point['redis_mb']} MB; {'; '.join(verdict.wrong) or 'every promise kept'}"
        )

    async def _output(self) -> tuple[int, int, bool]:
        """Records ever written to the compacted topic, those that are left, and whether they say the same."""
        left = await read_all(self._settings, self._settings.embeddings_topic)
        same = self._truth.holds((record.key, record.value) for record in left)
        return (left[-1].offset + 1 if left else 0), len(left), same

    # -- kills

    async def kill(self, kills: int) -> None:
        """The kills of the test, on this graph."""
        settings = self._settings.model_copy(
            update={"checkpoint_interval": 0.3, "lease_ttl": 0.5, "catch_up": 3_000}
        )
        killed = await kill_often(settings, self._folder, kills, self._seed, truth=self._truth, tell=_tell)
        verdicts = [_words(verdict) for verdict in killed.verdicts]
        self._found |= {
            "kills": [kill._asdict() for kill in killed.kills],
            "struck": dict(Counter(kill.step for kill in killed.kills).most_common()),
            "verdicts": verdicts,
        }

    # -- what is seen

    def _start(self) -> WorkerProcess:
        self._workers.append(WorkerProcess(self._settings, self._folder))
        return self._workers[-1]

    async def _watch(self, follower: ProgressFollower) -> None:
        """Every second: a worker that ended by itself is started again; peaks are kept; now and then a line."""
        while True:
            await asyncio.sleep(1)
            if not self._worker.running:
                self._ended.append(f"{self._phase}: {self._worker.log.read_text()[-300:]}")
                self._worker = self._start()
            progress, end = follower.latest, self._events.offsets.get(0, 0)
            seen = {
                "lag": 0 if progress is None else max(0, end - progress.event_offsets.get(0, 0)),
                "bound": 0.0 if progress is None else max(progress.bound) / max(progress.accuracy),
                "worker_mb": _resident(self._worker.pid),
            }
            peaks = self._peaks.setdefault(self._phase, dict.fromkeys(seen, 0.0))
            peaks.update({name: max(value, peaks[name]) for name, value in seen.items()})
            if time.monotonic() - self._told >= TELL_EVERY:
                self._told = time.monotonic()
                minutes = (time.monotonic() - self._begun) / 60
                _tell(
                    f"{minutes:5.1f} min  {self._phase}: {end:,} events, {seen['lag']:,} behind, bound "
                    f"{seen['bound']:.2f} of the accuracy, worker {seen['worker_mb']:.0f} MB"
                )

    def _redis_memory(self) -> float:
        reply = self._redis.command("INFO", "memory").decode()
        (line,) = (line for line in reply.splitlines() if line.startswith("used_memory:"))
        return round(int(line.partition(":")[2]) / 1e6, 1)

    # -- the end

    async def result(self) -> dict[str, Any]:
        """Figures and goals."""
        found = await audit(self._settings)
        error = float(max(found.certificate.error))
        figures: dict[str, Any] = {
            "seed": self._seed,
            "minutes": round((time.monotonic() - self._begun) / 60, 1),
            "events": self._truth.graph.sequence,
            "certificate": {
                "max_error": error,
                "bound": float(max(found.progress.bound)),
                "nodes": len(found.exact),
            },
        }
        goals = {"certified error": at_most(error if found.holds else math.inf, self._settings.accuracy[0])}
        wrong = [text for point in self._points for text in point["wrong"]]
        if self._points:
            figures |= {"quiet_points": self._points, "peaks": self._peaks, "ended": self._ended}
            goals |= self._cycle_goals()
        if "kills" in self._found:
            figures |= self._found
            wrong += [text for verdict in self._found["verdicts"] for text in verdict["wrong"]]
        goals["promises broken at quiet points"] = at_most(len(wrong), 0)
        return with_goals(figures, goals)

    def _cycle_goals(self) -> dict[str, Any]:
        last, alone = self._points[-1], [p for p in self._points if p["pid"] == self._points[0]["pid"]][1:]
        medians = [point["latency_ms"].get("p50", math.inf) for point in self._points]
        worker, redis = ([point[name] for point in alone] for name in ("worker_mb", "redis_mb"))
        sizes = {(point["nodes"], point["arcs"]) for point in self._points}
        return {
            "worker's memory, later half against first, times": at_most(_rise(worker), MORE_MEMORY),
            "Redis' memory, later half against first, times": at_most(_rise(redis), MORE_MEMORY),
            "latency, later half against first, times": at_most(_rise(medians), SLOWER),
            "sizes of the graph at quiet points": at_most(len(sizes), 1),
            "workers that ended by themselves": at_most(len(self._ended), 0),
            "records behind in overload": at_least(self._peaks["overload"]["lag"], self._settings.catch_up),
            "part of the vectors written that is kept": at_most(
                last["vectors_kept"] / last["vectors_written"], KEPT
            ),
        }


def _rise(values: list[float]) -> float:
    """What grows with time differs; what a first burst has left in an allocator does not."""
    early, late = np.array_split(np.array(values), 2)
    return float(np.median(late) / np.median(early)) if len(early) and len(late) else math.inf


async def _topics(settings: Settings) -> None:
    """As `dgdm topics create` makes them, but compacted soon."""
    log = connect_log(settings)
    names = (settings.events_topic, settings.embeddings_topic, settings.progress_topic)
    try:
        wanted = plans(*names, settings.dead_letters_topic)
        soon = [
            plan._replace(config={**plan.config, **COMPACTED})
            if plan.config["cleanup.policy"] == "compact"
            else plan
            for plan in wanted
        ]
        await create_topics(log, soon)
    finally:
        await log.close()


async def _says(worker: WorkerProcess, event: str) -> bool:
    return f'"event": "{event}"' in worker.log.read_text()


def _words(verdict: Verdict) -> dict[str, Any]:
    return {**verdict._asdict(), "error": float(verdict.error), "bound": float(verdict.bound)}


def _resident(pid: int) -> float:
    """Megabytes; 0 when the process is gone."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return round(int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1e3, 1)
    return 0.0


def _size(folder: Path) -> float:
    """Megabytes on disk."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # a segment that was just deleted
            total += path.stat().st_blocks * 512
    return round(total / 1e6, 1)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
