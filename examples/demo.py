"""`dgdm demo`: a year of flights through log, worker process, store and stream; a kill -9; a certificate."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..connections import connect_log, connect_store
from ..log.topics import create_topics, plans
from ..schemas.events import AddEdge, RemoveEdge
from ..settings import Settings
from ..state.store import StoreError
from .certificate import Verdict, compare, rebuilt
from .demo_replay import Replay, log_values
from .demo_screen import Screen
from .demo_worker import ChildWorker, DemoError
from .flight_data import Year, load_year
from .flight_stories import Key, Story, ripple, stories
from .flight_words import conclusions
from .flights import ACCURACY, ALPHA, FEATURES, accuracies, first_minutes, hourly_features, spread, stream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..log.interface import Log
    from ..schemas.events import GraphEvent

DAY = 24 * 60  # minutes
STORIES = 3  # parts of the time, each with a landing and a storm
START = 300.0  # seconds the worker may take: the first one on a machine compiles its kernels
PERCENT = 100 * ACCURACY  # the accuracy in the unit below
INTRODUCTION = (
    "New York's flights of 2013 as a graph that moves: aircraft and airports are nodes, each take-off and landing "
    "strengthens an edge, an airport's features follow its delays and its weather. An aircraft's embedding is what it "
    "has been exposed to at the airports it flew to.\n"
    f"The promise: at any moment within {PERCENT:g} % of a feature's standard deviation of the exact answer.\n"
    "The year is replayed as fast as it can be. Starting the worker; the very first time its kernels are compiled, "
    "up to a minute."
)
UNIT = "percent of a feature's standard deviation over the year at one airport; the largest over all vectors and features"


@dataclass(frozen=True)
class Plan:
    """What is replayed, and where things happen in it; minutes are simulated."""

    year: Year
    features: NDArray[np.float64]  # [hours, airports, 8]
    scale: NDArray[np.float64]  # [8]
    days: int | None
    begin: int
    end: int

    @property
    def accuracy(self) -> list[float]:
        """Per column, in feature units."""
        return accuracies(self.scale)


async def run_demo(
    *,
    log: str | None = None,
    store: str | None = None,
    days: int = 365,
    as_json: bool = False,
    keep: Path | None = None,
) -> dict[str, Any]:
    """Replay the first `days` days; the measurements. Embedded log and store in a temporary folder by default.

    `keep` is a new or empty folder for them that stays. Raises LogError, StoreError; SystemExit when the demo
    cannot run (2), when the promise was broken (1), and on SIGTERM (143).
    """
    task, terminated = asyncio.current_task(), asyncio.Event()
    assert task is not None

    def terminate() -> None:
        terminated.set()
        task.cancel()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        with _folder(keep) as folder:
            return await _Demo(folder, log, store, days, as_json=as_json, keep=keep is not None).run()
    except DemoError as error:
        print(f"dgdm demo: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except asyncio.CancelledError:
        if terminated.is_set():
            raise SystemExit(143) from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


class _Demo:
    def __init__(
        self, folder: Path, log: str | None, store: str | None, days: int, *, as_json: bool, keep: bool
    ) -> None:
        if not 2 <= days <= 365:
            raise DemoError(f"days = {days}: choose 2 to 365, the control is the table of one day earlier")
        self._folder, self._days, self._as_json = folder, days, as_json
        self._drop = store is not None and not keep
        self._begun = time.monotonic()
        name = f"demo-{uuid.uuid4().hex[:8]}"
        topic = f"dgdm.{name}" if log is not None else "dgdm"
        self._values = {
            "graph": name,
            "features": str(len(FEATURES)),
            "alpha": str(ALPHA),
            "log": log or f"sqlite:///{folder}/log.db",
            "store": store or f"sqlite:///{folder}/store.db",
            "events_topic": f"{topic}.events",
            "embeddings_topic": f"{topic}.embeddings",
            "progress_topic": f"{topic}.progress",
            "dead_letters_topic": f"{topic}.dead-letters",
            "checkpoint_interval": "2",
            "progress_interval": "0.02",
            "lease_ttl": "1",
            "outage_budget": "30",
            "log_format": "json",
        }

    async def run(self) -> dict[str, Any]:
        """Everything, and everything put away again."""
        plan = await asyncio.to_thread(_plan, self._days)
        self._values["accuracy"] = ",".join(map(str, plan.accuracy))
        try:
            settings = Settings.model_validate(self._values)
            log = connect_log(settings)
        except ValueError as error:
            raise DemoError(f"the environment's DGDM_ settings do not fit: {error}") from None
        worker = ChildWorker(self._values, self._folder / "worker.log")
        try:
            await asyncio.to_thread(_check_store, settings)
            await self._create_topics(log, settings)
            worker.start()
            return await self._show(log, settings, plan, worker)
        finally:
            worker.stop()
            await log.close()
            if self._drop:
                with contextlib.suppress(StoreError), contextlib.closing(connect_store(settings)) as store:
                    store.drop()

    async def _create_topics(self, log: Log, settings: Settings) -> None:
        names = (settings.events_topic, settings.embeddings_topic, settings.progress_topic)
        await create_topics(log, plans(*names, settings.dead_letters_topic))

    async def _show(self, log: Log, settings: Settings, plan: Plan, worker: ChildWorker) -> dict[str, Any]:
        replay = Replay(log, settings)
        screen = Screen(replay.meter, (plan.begin, plan.end), PERCENT, to_stderr=self._as_json)
        with screen:
            screen.say(INTRODUCTION)
            acts = _Acts(replay, screen, plan, worker)
            stale, found, words = await replay.run(
                acts.play(log, settings), screen.keep_fresh(), worker.watch()
            )
        for line in words:
            screen.say(line)
        meter = replay.meter
        result = {
            "events": meter.covered,
            "events_per_second": round(meter.rate, 1),
            "vectors": found.compared,
            "published": meter.published,
            "max_error": round(PERCENT * found.error, 4),
            "accuracy": PERCENT,
            "stale_error": round(PERCENT * stale.error, 4),
            "unit": UNIT,
            "p50_ms": round(meter.percentile(50), 1),
            "p99_ms": round(meter.percentile(99), 1),
            "kills": meter.kills,
            "recovery_seconds": round(meter.recovery, 2),
            "seconds": round(time.monotonic() - self._begun, 1),
        }
        if not settings.log.startswith("sqlite:"):
            screen.say(f"The topics {settings.events_topic.removesuffix('events')}* stay on {settings.log}.")
        self._report(screen, result, stale, found)
        return result

    def _report(self, screen: Screen, result: dict[str, Any], stale: Verdict, found: Verdict) -> None:
        verdict = "The promise was kept." if found.holds else "THE PROMISE WAS BROKEN."
        screen.say(
            f"Certificate: {found.compared:,} vectors from the topic against an exact solution of the graph in the log:"
            f" largest error {result['max_error']} (at {found.worst}), promised {result['accuracy']:g}, missing "
            f"{len(found.missing)}, too many {len(found.extra)}. {verdict}"
        )
        screen.say(
            f"The control, the {stale.compared:,} vectors of one day earlier: {result['stale_error']}."
        )
        screen.say(f"Errors are in {UNIT}.")
        screen.say(
            f"{result['events']:,} events at {result['events_per_second']:,.0f}/s, {result['published']:,} vectors "
            f"published; event to embedding p50 {result['p50_ms']} ms, p99 {result['p99_ms']} ms; {result['kills']} "
            f"kill -9, back after {result['recovery_seconds']} s; {result['seconds']} s in all."
        )
        screen.say("For a graph of your own: dgdm up --features 8, then dgdm produce FILE and dgdm tail.")
        if self._as_json:
            print(json.dumps(result))
        if not found.holds:
            raise SystemExit(1)


class _Acts:
    """The replay as a play: start, stories, the kill, the table of a day earlier, the certificate."""

    def __init__(self, replay: Replay, screen: Screen, plan: Plan, worker: ChildWorker) -> None:
        self._replay, self._screen, self._plan, self._worker = replay, screen, plan, worker
        told = stories(plan.year, plan.features, plan.scale, plan.begin, plan.end, STORIES)
        self._told = {story.key: story for story in told}
        self._earlier: dict[str, NDArray[np.float32]] | None = None
        self._recovering: asyncio.Task[None] | None = None

    async def play(self, log: Log, settings: Settings) -> tuple[Verdict, Verdict, list[str]]:
        """The verdicts on the table of a day earlier and on the last one, and what the numbers mean."""
        plan, replay, meter = self._plan, self._replay, self._replay.meter
        try:
            await asyncio.wait_for(replay.first_progress(), START)
        except TimeoutError:
            raise DemoError(f"no worker after {START:g} s: {self._worker.last_words()}") from None
        meter.state = "serving"
        try:
            await self._replay_all()
        finally:
            if self._recovering is not None:
                self._recovering.cancel()
                await asyncio.gather(self._recovering, return_exceptions=True)
        progress = await replay.settle()
        meter.ended = time.monotonic()
        if progress.sequence != meter.sent:
            raise DemoError(
                f"the worker applied {progress.sequence} of {meter.sent} events: see {settings.dead_letters_topic}"
            )
        self._screen.say("The last event is in. Now the graph again, from the log alone, and solved exactly.")
        values = await log_values(log, settings.events_topic, meter.sent)
        graph = await asyncio.to_thread(rebuilt, len(FEATURES), values)
        exact = await asyncio.to_thread(graph.exact, ALPHA)
        stale = compare(exact, self._earlier or {}, plan.accuracy)
        days = (plan.end - plan.begin) / DAY
        words = conclusions(plan.year, graph, replay.table, plan.scale, days)
        return stale, compare(exact, replay.table, plan.accuracy), words

    async def _replay_all(self) -> None:
        plan, replay = self._plan, self._replay
        middle = (plan.begin + plan.end) // 2
        for minute, event in stream(plan.year, plan.features, plan.days):
            if minute >= middle and replay.meter.kills == 0:
                await self._kill()
            if minute >= plan.end - DAY and self._earlier is None:
                await replay.settle()
                self._earlier = dict(replay.table)
            key = _key(minute, event)
            if key in self._told:
                await self._tell(event, self._told.pop(key))
            else:
                await replay.send(event, minute)

    async def _tell(self, event: GraphEvent, story: Story) -> None:
        """One event alone, so that what follows is its doing."""
        replay = self._replay
        await replay.settle()
        replay.changed.clear()
        await replay.send(event, story.minute)
        await replay.settle()
        took = 1000 * replay.meter.latency[-1]
        self._screen.say(ripple(story, self._plan.year, replay.changed, replay.table, took))

    async def _kill(self) -> None:
        """SIGKILL while events flow; they flow on while the successor recovers."""
        meter = self._replay.meter
        meter.kills += 1
        at = time.monotonic()
        await self._worker.kill()
        self._replay.forget_worker()
        self._screen.say(f"kill -9 at event {meter.sent:,}: the worker is gone. Starting it again.")
        meter.state = "recovering"
        self._worker.start()
        self._recovering = asyncio.create_task(self._recovered(at))

    async def _recovered(self, at: float) -> None:
        meter = self._replay.meter
        await self._replay.first_progress()
        meter.recovery = time.monotonic() - at
        meter.state = "serving"
        self._screen.say(
            f"It is back after {meter.recovery:.1f} s, and the embeddings go on where they were."
        )


def _key(minute: int, event: GraphEvent) -> Key:
    if isinstance(event, AddEdge | RemoveEdge):
        return minute, event.source, event.target
    return minute, event.id, ""


def _plan(days: int) -> Plan:
    try:
        year = load_year()
    except ValueError as error:
        raise DemoError(str(error)) from None
    features = hourly_features(year)
    shown = None if days == 365 else days
    end = int(year.arrived[year.landed].max()) if shown is None else first_minutes(days)
    return Plan(year, features, spread(features), shown, int(year.left.min()), end)


def _check_store(settings: Settings) -> None:
    """Before the worker, which would wait for it. Raises StoreError."""
    with contextlib.closing(connect_store(settings)) as store:
        store.check()


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """A temporary folder that goes, or the user's that stays."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="dgdm-demo-") as name:
            yield Path(name)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise DemoError(f"{keep} is not empty: the demo keeps its files in a new or empty folder")
    except OSError as error:
        raise DemoError(f"{keep} cannot be used: {error.strerror}") from None
    yield keep.resolve()
