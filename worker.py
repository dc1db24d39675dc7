"""The worker: one owner of one graph, with a log in front, a store beside and a stream behind.

It waits for the lease, restores, serves, and after a fault of the log begins again: recovery is the one way back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
import uuid
from enum import IntEnum
from typing import TYPE_CHECKING

import structlog

from .connections import connect_log, connect_store, rules_of
from .consumers.events import EventSource
from .consumers.tail import read_tail
from .log.interface import LogError, LogUnavailableError, ProducerFencedError
from .pipeline import KernelThread, Pipeline
from .producers.dead_letters import DeadLetterSink
from .producers.embeddings import EmbeddingSink
from .state.checkpoint import Checkpoint, FencedError, Report
from .state.deadline import Deadline
from .state.graph import GraphState, warm_up
from .state.lease import LeaseKeeper, wait_for_lease
from .state.lifecycle import Step, WorkerState, require_successor
from .state.loading import restore
from .state.recovery import (
    LogBounds,
    output_was_lost,
    require_history,
    require_last_record,
    require_same_graph,
    resume_offsets,
    take_ownership,
)
from .state.store import GraphStore, LastRecord, Meta, Owner, StoreError, StoreUnavailableError
from .telemetry import Metrics

if TYPE_CHECKING:
    from .log.interface import Log, LogReader
    from .settings import Settings

log = structlog.get_logger()

SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 5.0  # seconds between attempts after a fault
LONGEST_TRANSACTION = 900.0  # seconds: transaction.max.timeout.ms of a broker that was told nothing else


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
    """One worker process. `report` hears of every step of recovery and of commits, before and after it."""

    def __init__(self, settings: Settings, report: Report = lambda _step, _moment: None) -> None:
        self.state = WorkerState.RESTORING
        self.token = str(uuid.uuid4())
        self.metrics = Metrics()
        self._settings, self._report = settings, report
        self._stop = asyncio.Event()
        self._thread_stop = threading.Event()
        self._keeper: LeaseKeeper | None = None
        self._served_at = time.monotonic()
        self._owner_token = ""

    def stop(self) -> None:
        """Ask for a graceful stop; asked again, the process ends at once."""
        if self._stop.is_set():
            os._exit(1)
        self._stop.set()
        self._thread_stop.set()

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
            if not await self._knows_width(store):
                return Exit.REFUSED
            await self._warm_up()
            return await self._live(events, store)
        finally:
            if self._keeper is not None:
                await asyncio.to_thread(self._keeper.close)
            await events.close()
            store.close()
            if server is not None:
                await asyncio.to_thread(server[0].shutdown)
                server[0].server_close()
            for name in (signal.SIGTERM, signal.SIGINT):
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

    async def _warm_up(self) -> None:
        """Compile or load the kernels before the first event waits for them."""
        begun = time.monotonic()
        log.info("warming", message="loading the kernels; the first start compiles them, up to a minute")
        await asyncio.to_thread(warm_up, self._settings.directed)
        log.info("warm", message=f"kernels ready after {time.monotonic() - begun:.1f} s")

    async def _live(self, events: Log, store: GraphStore) -> Exit:
        pause = SHORTEST_PAUSE
        while not self._stop.is_set():
            try:
                await self._session(events, store)
            except (LogUnavailableError, StoreUnavailableError, ProducerFencedError) as error:
                if isinstance(error, ProducerFencedError) and not await self._still_owner(store):
                    return self._fenced(str(error))
                if time.monotonic() - self._served_at > self._settings.outage_budget:
                    log.error(  # noqa: TRY400 - an outage is a sentence, not a traceback
                        "outage", message=f"gave up after {self._settings.outage_budget:g} s: {error}"
                    )
                    return Exit.OUTAGE
                log.warning("recovering", message=f"starting again from the last checkpoint: {error}")
                self._enter(WorkerState.RESTORING)
                await self._sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            except FencedError as error:
                return self._fenced(str(error))
            except (LogError, StoreError, ValueError) as error:
                log.error("refused", message=str(error))  # noqa: TRY400 - the same
                return Exit.REFUSED
        if self.state is not WorkerState.STOPPING:
            self._enter(WorkerState.STOPPING)
        self._enter(WorkerState.CLOSED)
        return Exit.STOPPED

    async def _session(self, events: Log, store: GraphStore) -> None:
        """Restore and serve once, until stopped or until something fails."""
        settings = self._settings
        for finding in await asyncio.to_thread(store.check):
            if finding.fatal:
                raise StoreError(finding.message)
            log.warning("store_setting", message=finding.message)
        if not await self._hold_lease(store):
            return
        self._report(Step.TOKEN, "before")
        # A token for each session: a write of the last one that is still under way must not count as ours.
        self._owner_token = str(uuid.uuid4())
        owner = await asyncio.to_thread(take_ownership, store, self._owner_token)
        self._report(Step.TOKEN, "after")
        kernel = KernelThread()
        longest = min(2 * settings.checkpoint_interval + 60, LONGEST_TRANSACTION)
        writer = events.transactional_writer(f"dgdm-{settings.graph}", longest)
        letters = events.writer()
        source = EventSource(events, settings.events_topic, settings.isolation)
        pipeline: Pipeline | None = None
        try:
            self._report(Step.FENCE, "before")
            await writer.start()
            self._report(Step.FENCE, "after")
            await letters.start()
            await source.start()
            sink = EmbeddingSink(
                writer, settings.embeddings_topic, settings.progress_topic, settings.encoding
            )
            dead_letters = DeadLetterSink(letters, settings.dead_letters_topic)
            await sink.start()
            await dead_letters.start()
            pipeline = await self._restore(events, store, owner, source, sink, dead_letters, kernel)
            await pipeline.serve()
            self._enter(WorkerState.STOPPING)
            await pipeline.finish(Deadline.after(settings.stop_budget))
        finally:
            if pipeline is not None:
                await pipeline.close()
            await source.close()
            await letters.close()
            await writer.close()
            await asyncio.to_thread(kernel.close)

    async def _restore(
        self,
        events: Log,
        store: GraphStore,
        owner: Owner,
        source: EventSource,
        sink: EmbeddingSink,
        dead_letters: DeadLetterSink,
        kernel: KernelThread,
    ) -> Pipeline:
        settings = self._settings
        self._report(Step.LOAD, "before")
        stored = await asyncio.to_thread(store.meta)
        rules = rules_of(settings, stored)
        meta = Meta(
            features=rules.features,
            directed=rules.directed,
            aggregate=rules.aggregate,
            partitions=len(source.reader.partitions),
            alpha=settings.alpha,
            accuracy=rules.accuracy.tolist(),
            offset=rules.offset.tolist(),
        )
        graph = GraphState(rules, settings.alpha)
        if stored is not None:
            require_same_graph(stored, meta)
            await kernel(lambda: restore(graph, store, stored))
        self._report(Step.LOAD, "after")
        bounds = LogBounds(await source.reader.beginning_offsets(), await source.reader.end_offsets())
        if not settings.accept_lost_history:
            require_history(stored, bounds, settings.events_topic)
            await _require_same_log(source.reader, stored, bounds)
        self._report(Step.TAIL, "before")
        known = stored.output_offsets if stored is not None else {}
        tail = await read_tail(events, settings.embeddings_topic, known)
        if stored is not None and output_was_lost(stored, LogBounds(tail.begin, tail.end)):
            await kernel(graph.forget_published)
        await kernel(lambda: graph.mark_unknown(sorted(tail.keys)))
        self._report(Step.TAIL, "after")
        checkpoint = Checkpoint(
            graph=graph,
            store=store,
            owner=owner,
            meta=meta,
            output=sink,
            dead_letters=dead_letters,
            commit_group=lambda offsets: events.commit_group_offsets(
                f"dgdm-{settings.graph}", settings.events_topic, offsets
            ),
            kernel=kernel,
            report=self._report,
        )
        resumed = resume_offsets(stored, bounds)
        checkpoint.position.event_offsets = resumed
        checkpoint.position.last_records = dict(stored.last_records) if stored is not None else {}
        checkpoint.position.output_offsets = dict(known)
        sink.output_offsets = dict(tail.end)
        source.seek(resumed)
        pipeline = Pipeline(
            settings=settings,
            graph=graph,
            source=source,
            sink=sink,
            dead_letters=dead_letters,
            checkpoint=checkpoint,
            kernel=kernel,
            metrics=self.metrics,
            stop=self._stop,
            enter=self._enter,
            report=self._report,
        )
        await pipeline.replay(tail, bounds.end)
        if not self._stop.is_set():
            self._enter(WorkerState.SERVING)
        self._served_at = time.monotonic()
        log.info(
            "serving", message=f"serving {graph.nodes} nodes and {graph.arcs} arcs", sequence=graph.sequence
        )
        return pipeline

    async def _hold_lease(self, store: GraphStore) -> bool:
        if self._keeper is not None:
            return True
        self._report(Step.LEASE, "before")
        ttl = self._settings.lease_ttl
        held = await asyncio.to_thread(
            wait_for_lease,
            store,
            self.token,
            ttl,
            state=self.state.value,
            stop=self._thread_stop,
            on_wait=lambda holder, problem: log.info(
                "lease_wait",
                message=f"waiting for the lease: {problem or (f'{holder.token} holds it' if holder else 'nobody holds it')}",
            ),
        )
        if held:
            settings = self._settings
            self._keeper = LeaseKeeper(
                lambda: connect_store(settings, timeout=ttl / 3), self.token, self.state.value, ttl
            ).start()
            self._report(Step.LEASE, "after")
        return held

    async def _still_owner(self, store: GraphStore) -> bool:
        try:
            owner = await asyncio.to_thread(store.owner)
        except StoreUnavailableError:
            return True
        return owner is not None and owner.token == self._owner_token

    def _fenced(self, why: str) -> Exit:
        log.error("fenced", message=f"another worker owns the graph: {why}")
        self._enter(WorkerState.FENCED)
        return Exit.FENCED

    def _enter(self, state: WorkerState) -> None:
        if state is WorkerState.RESTORING and self.state is WorkerState.STOPPING:
            return
        require_successor(self.state, state)
        self.metrics.state.labels(self.state.value).set(0)
        self.metrics.state.labels(state.value).set(1)
        self.state = state
        if self._keeper is not None:
            self._keeper.state = state.value
        log.info("state", message=f"now {state}", state=state.value)

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return


async def _require_same_log(reader: LogReader, stored: Meta | None, bounds: LogBounds) -> None:
    """The last applied record must be the one the log holds, where it still holds it."""
    for partition, last in (stored.last_records if stored is not None else {}).items():
        if not bounds.begin.get(partition, 0) <= last.offset < bounds.end.get(partition, 0):
            continue
        reader.seek({partition: last.offset})
        found = next((r for r in await reader.poll(1, 5.0) if r.partition == partition), None)
        identity = None
        if found is not None:
            crc = EventSource.checksum(found)
            identity = LastRecord(found.offset, found.timestamp, crc)
        require_last_record(last, identity, f"{reader.topic}[{partition}]")
