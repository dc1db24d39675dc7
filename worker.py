"""The worker: one owner of one graph, with a log in front, a store beside and a stream behind.

It waits for the lease, restores and serves. When the log fails it keeps the graph, and goes on when the log is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
import uuid
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING

import structlog

from .connections import connect_log, connect_store, rules_of
from .log.interface import LogError, LogUnavailableError, ProducerFencedError
from .models import Models
from .session import Held, Session, require_topics
from .state.checkpoint import FencedError, Report
from .state.kernel_thread import KernelThread
from .state.lease import LeaseKeeper, wait_for_lease
from .state.lifecycle import Step, WorkerState, require_successor
from .state.recovery import take_ownership
from .state.store import GraphStore, Owner, StoreError, StoreUnavailableError
from .state.warming import warm_up
from .telemetry import Metrics

if TYPE_CHECKING:
    from .log.interface import Log
    from .settings import Settings

log = structlog.get_logger()

SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 5.0  # seconds between attempts after a fault
YOUNG = 50_000  # objects of batches that are alive at once are not looked at for garbage
REPLAYED = "stopped without a checkpoint, the next start replays from the last one"


class Exit(IntEnum):
    """Exit codes of a worker."""

    STOPPED = 0
    """By SIGTERM or Ctrl-C, with a last checkpoint."""
    REFUSED = 2
    """A mistake of settings, or a history that does not fit: starting again will not help."""
    FENCED = 3
    """Another worker owns the graph."""
    OUTAGE = 75
    """The log, or at a start the store, stayed away: start again (EX_TEMPFAIL)."""


class Worker:
    """One worker process. `report` hears of every step, before and after it."""

    def __init__(self, settings: Settings, report: Report = lambda _step, _moment: None) -> None:
        self.state = WorkerState.RESTORING
        self.token = str(uuid.uuid4())
        self.metrics = Metrics()
        self._settings, self._report = settings, report
        self._stop = asyncio.Event()
        self._thread_stop = threading.Event()
        self._ready = threading.Event()  # to hold the lease
        self._watching: asyncio.Task[bool] | None = None  # the lease
        self._keeper: LeaseKeeper | None = None
        self._kernel = KernelThread()
        self._models: Models | None = None
        self._renewals: set[asyncio.Task[None]] = set()
        self._renewing = asyncio.Lock()
        self._owner: Owner | None = None  # as of the taking
        self._held: Held | None = None
        self._away_since: float | None = None  # when log or store failed, until it serves again
        self._pause = SHORTEST_PAUSE
        self.metrics.enter(self.state, self.state)

    def stop(self) -> None:
        """Ask for a graceful stop; asked again, the process ends at once."""
        if self._stop.is_set():
            os._exit(1)
        self._stop.set()
        self._thread_stop.set()

    def renew(self) -> None:
        """Take the files of the models up again; events are served meanwhile."""
        task = asyncio.create_task(self._renew())
        self._renewals.add(task)
        task.add_done_callback(self._renewals.discard)

    async def _renew(self) -> None:
        async with self._renewing:
            if self._models is not None:
                for tell in await asyncio.to_thread(self._models.renew):
                    await self._kernel(tell)

    async def _end_renewals(self) -> None:
        renewals = list(self._renewals)
        for task in renewals:
            task.cancel()
        await asyncio.gather(*renewals, return_exceptions=True)

    async def run(self) -> Exit:
        """Serve until stopped; the exit code says why it ended."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self.stop)
        try:
            server = self.metrics.serve(self._settings)
        except OSError as error:
            port = self._settings.metrics_port
            log.error("refused", message=f"metrics_port = {port} cannot be opened: {error}")  # noqa: TRY400 - a sentence
            return Exit.REFUSED
        store = connect_store(self._settings)
        events = connect_log(self._settings)
        try:
            if not (await self._knows_width(store) and self._knows_models()):
                return Exit.REFUSED
            self._watch_lease(store)
            await self._warm_up()
            return await self._live(events, store)
        finally:
            await self._end_renewals()
            await self._stop_watching()
            if self._held is not None:
                await self._held.checkpoint.abandon()
            if self._keeper is not None:
                await asyncio.to_thread(self._keeper.close)
            await events.close()
            store.close()
            await asyncio.to_thread(self._kernel.close)
            if self._models is not None:
                await asyncio.to_thread(self._models.close)
            if server is not None:
                await asyncio.to_thread(server[0].shutdown)
                server[0].server_close()
            for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(name)
            log.info("worker_closed", message=f"closed after {self.state}", token=self.token)

    async def _knows_width(self, store: GraphStore) -> bool:
        """Refuse before anybody waits for kernels what is sure to be refused after."""
        with contextlib.suppress(StoreError):  # which the session meets too, and knows what to do about
            stored = await asyncio.to_thread(store.meta)
            if stored is None and await asyncio.to_thread(store.lease) is not None:
                return True  # its owner may store it before this one is to serve
            try:
                rules_of(self._settings, stored)
            except ValueError as error:
                log.error("refused", message=str(error))  # noqa: TRY400 - a sentence, not a traceback
                return False
        return True

    def _knows_models(self) -> bool:
        """The same for what regions and models need."""
        try:
            self._models = Models(self._settings, self.metrics.registry)
        except ValueError as error:
            log.error("refused", message=str(error))  # noqa: TRY400 - a sentence, not a traceback
            return False
        if self._models.wanted:  # else it ends the process, as ever
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.renew)
        return True

    async def _warm_up(self) -> None:
        """Compile or load the kernels before the first event waits for them."""
        begun = time.monotonic()
        log.info("warming", message="loading the kernels; the first start compiles them, up to a minute")
        await asyncio.to_thread(warm_up, self._settings.directed)
        gc.collect()
        gc.freeze()  # else each full collection looks at all that the compiler has left, for a tenth of a second
        gc.set_threshold(YOUNG, 20, 50)
        log.info("warm", message=f"kernels ready after {time.monotonic() - begun:.1f} s")

    async def _live(self, events: Log, store: GraphStore) -> Exit:
        while not self._stop.is_set():
            try:
                await self._session(events, store)
            except (LogUnavailableError, StoreUnavailableError, ProducerFencedError) as error:
                if self._stop.is_set():
                    log.warning("stopped_early", message=f"{REPLAYED}: {error}")
                    break
                if not await self._wait_for_another_try(error):
                    return Exit.OUTAGE
            except FencedError as error:
                log.error("fenced", message=f"another worker owns the graph: {error}")  # noqa: TRY400 - a sentence
                self._enter(WorkerState.FENCED)
                return Exit.FENCED
            except (LogError, StoreError, ValueError) as error:
                log.error("refused", message=str(error))  # noqa: TRY400 - the same
                return Exit.REFUSED
        if self.state is not WorkerState.STOPPING:
            self._enter(WorkerState.STOPPING)
        self._enter(WorkerState.CLOSED)
        return Exit.STOPPED

    async def _wait_for_another_try(self, error: Exception) -> bool:
        """False when the outage budget is spent."""
        now, budget = time.monotonic(), self._settings.outage_budget
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since > budget:
            log.error("outage", message=f"gave up after {budget:g} s: {error}")
            return False
        plan = "begins again" if self._held is None else "goes on with the graph in memory"
        log.warning("recovering", message=f"{plan} in {self._pause:g} s: {error}")
        served = self.state in (WorkerState.SERVING, WorkerState.PAUSED)
        self._enter(WorkerState.PAUSED if served else WorkerState.RESTORING)
        await self._sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return True

    async def _session(self, events: Log, store: GraphStore) -> None:
        """Serve once, until stopped or until something fails."""
        gc.collect()  # a session that failed is a cycle of tasks, errors and frames, with a whole publication in it
        session = Session(events, self._settings, self.metrics, self._kernel, self._report)
        serving = asyncio.create_task(self._serve(session, events, store))
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            budget = self._settings.stop_budget  # from the moment of a stop on, whatever is waited for
            if not serving.done() and not (await asyncio.wait({serving}, timeout=budget))[0]:
                log.warning("stopped_early", message=f"{REPLAYED}: not done within {budget:g} s")
                serving.cancel()
                await asyncio.wait({serving})
            if not serving.cancelled():
                await serving
        finally:
            await session.close()

    async def _serve(self, session: Session, events: Log, store: GraphStore) -> None:
        owner = await self._own(events, store)
        if owner is None:
            return
        models = self._models
        assert models is not None
        await session.start()
        if self._held is None:
            self._held = await session.load(store, owner, models.raw_features)
            await asyncio.to_thread(models.attach, self._held.graph)
        pipeline = await session.attach(self._held, models.head, models.encoding, self._stop, self._enter)
        if models.head is not None and not models.told:
            await session.predict_anew(self._held, self._stop)
            models.told = True
        if not self._stop.is_set():
            self._enter(WorkerState.SERVING)
            self._away_since, self._pause = None, SHORTEST_PAUSE
            graph = self._held.graph
            message = f"serving {graph.nodes} nodes and {graph.arcs} arcs"
            log.info("serving", message=message, sequence=graph.sequence)
        await pipeline.serve()
        self._enter(WorkerState.STOPPING)
        await pipeline.finish()

    async def _own(self, events: Log, store: GraphStore) -> Owner | None:
        """Who the store takes writes from: this worker. None when it was stopped before it got the lease."""
        if self._owner is not None:
            # The next writer fences whoever writes now: that must not be a successor.
            stored = await asyncio.to_thread(store.owner)
            if stored is not None and stored.token != self.token:
                raise FencedError(f"the store belongs to {stored.token}")
            return self._owner
        await require_topics(events, self._settings)
        for finding in await asyncio.to_thread(store.check):
            if finding.fatal:
                raise StoreError(finding.message)
            log.warning("store_setting", message=finding.message)
        if not await self._hold_lease(store):
            return None
        self._report(Step.TOKEN, "before")
        self._owner = await asyncio.to_thread(take_ownership, store, self.token)
        self._report(Step.TOKEN, "after")
        return self._owner

    async def _hold_lease(self, store: GraphStore) -> bool:
        if self._keeper is not None:
            return True
        self._report(Step.LEASE, "before")
        self._ready.set()
        held = await self._watch_lease(store)
        self._watching = None
        if held:
            settings = self._settings
            ttl = settings.lease_ttl
            self._keeper = LeaseKeeper(
                lambda: connect_store(settings, timeout=ttl / 3), self.token, self.state.value, ttl
            ).start()
            self._report(Step.LEASE, "after")
        return held

    def _watch_lease(self, store: GraphStore) -> asyncio.Task[bool]:
        """From the start on: a lease that nobody renews runs out while the kernels are loaded."""
        if self._watching is None:
            watch = partial(
                wait_for_lease,
                store,
                self.token,
                self._settings.lease_ttl,
                state=self.state.value,
                ready=self._ready,
                stop=self._thread_stop,
                on_wait=lambda holder, problem: log.info(
                    "lease_wait",
                    message=f"waiting for the lease: {problem or (f'{holder.token} holds it' if holder else 'nobody holds it')}",
                ),
            )
            self._watching = asyncio.create_task(asyncio.to_thread(watch))
        return self._watching

    async def _stop_watching(self) -> None:
        self._thread_stop.set()
        if self._watching is not None:
            await asyncio.gather(self._watching, return_exceptions=True)

    def _enter(self, state: WorkerState) -> None:
        require_successor(self.state, state)
        self.metrics.enter(self.state, state)
        self.state = state
        if self._keeper is not None:
            self._keeper.state = state.value
        log.info("state", message=f"now {state}", state=state.value)

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return
