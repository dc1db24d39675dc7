"""One event's way: poll, stage, kernel, publish, checkpoint; from a restored graph until it must stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from .consumers.events import LOOK, EventBatch, EventSource
from .schemas.progress import Progress
from .state.deadline import Deadline
from .state.lifecycle import Step, WorkerState
from .state.store import LastRecord

if TYPE_CHECKING:
    from .consumers.tail import Tail
    from .producers.dead_letters import DeadLetterSink
    from .producers.embeddings import EmbeddingSink
    from .settings import Settings
    from .state.checkpoint import Checkpoint, Report
    from .state.graph import GraphState, Publication
    from .telemetry import Metrics

T = TypeVar("T")
log = structlog.get_logger()

IDLE = 0.2  # seconds one poll waits for the first record
LARGEST_WRITE = 256 << 20  # bytes of one checkpoint, about: what a store takes in one transaction
SLICE = 0.25  # seconds the kernel thread may push before the loop has its say again


class KernelThread:
    """The one thread that touches the arrays."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "dgdm-kernel")

    async def __call__(self, function: Callable[[], T], /) -> T:
        """Run it there."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    def close(self) -> None:
        """Wait for what runs."""
        self._pool.shutdown()


class Pipeline:
    """The loop of one owner of a graph."""

    def __init__(
        self,
        *,
        settings: Settings,
        graph: GraphState,
        source: EventSource,
        sink: EmbeddingSink,
        dead_letters: DeadLetterSink,
        checkpoint: Checkpoint,
        kernel: KernelThread,
        metrics: Metrics,
        stop: asyncio.Event,
        enter: Callable[[WorkerState], None],
        report: Report,
    ) -> None:
        self._settings, self._graph, self._source = settings, graph, source
        self._sink, self._dead_letters, self._checkpoint = sink, dead_letters, checkpoint
        self._kernel, self._metrics, self._stop = kernel, metrics, stop
        self._enter, self._report = enter, report
        self._polling: asyncio.Task[EventBatch] | None = None
        self._publishing: asyncio.Task[None] | None = None
        self._told: dict[int, int] | None = None  # event offsets of the last progress record
        self._told_at = 0.0
        self._solved_at = time.monotonic()
        self._stored_at = time.monotonic()
        self._floor_told = False
        self._changed = False  # since the last checkpoint
        width = graph.rules.features
        self._dirty_limit = min(settings.dirty_rows, LARGEST_WRITE // (8 * width + 512))
        self._oldest: int | None = None  # timestamp of the first record no publication covers yet

    async def replay(self, tail: Tail, ends: Mapping[int, int]) -> None:
        """Catch up without publishing until nothing consumers hold is ahead, then announce what differs."""
        self._report(Step.REPLAY, "before")
        offsets = self._checkpoint.position.event_offsets
        while not self._stop.is_set():
            if self._graph.sequence >= tail.sequence or all(offsets.get(p, 0) >= e for p, e in ends.items()):
                break
            await self._apply(await self._next_batch(), push=False)
            offsets = self._checkpoint.position.event_offsets
            await self._commit_if_due()
        self._report(Step.REPLAY, "after")
        if self._stop.is_set():
            return
        self._report(Step.ANNOUNCE, "before")
        while not await self._kernel(lambda: self._graph.push(Deadline.after(SLICE))):
            pass
        await self._publish_all()
        self._checkpoint.position.tail_owed = False
        self._changed = True
        self._report(Step.ANNOUNCE, "after")

    async def serve(self) -> None:
        """Apply, publish and store until `stop` is set. Raises LogError, FencedError."""
        while not self._stop.is_set():
            batch = await self._next_batch()
            await self._apply(batch, push=not self._catching_up())
            if not self._catching_up() and self._graph.pending_count:
                await self._kernel(lambda: self._graph.push(Deadline.after(SLICE)))
            await self._publish_if_free()
            await self._commit_if_due()
            await self._pause_if_full()

    async def finish(self) -> None:
        """Publish and store everything applied. Raises LogError, FencedError."""
        await self._stop_polling()
        if not self._checkpoint.position.tail_owed:  # else consumers may hold something newer than this
            while not await self._kernel(lambda: self._graph.push(Deadline.after(SLICE))):
                pass
            await self._publish_all()
        stored = False
        while not stored:  # a write may be under way, or find that the store went back in time
            stored = await self._checkpoint.commit()
            await self._checkpoint.written()
            stored = stored and not self._checkpoint.went_back

    async def close(self) -> None:
        """Drop what is under way to and from the log; a write to the store goes on."""
        await self._stop_polling()
        if self._publishing is not None:
            self._publishing.cancel()
            await asyncio.gather(self._publishing, return_exceptions=True)

    # -- in

    async def _next_batch(self) -> EventBatch:
        """The next batch, or an empty one when something else is to be done first."""
        if self._polling is None:
            self._polling = asyncio.create_task(self._source.poll(self._settings.batch, IDLE))
        waiting: set[asyncio.Task[Any]] = {self._polling}
        if self._publishing is not None:
            waiting.add(self._publishing)
        busy = self._graph.pending_count > 0 and not self._catching_up()
        patience = 0 if busy else IDLE if self._all_told else max(0.001, self._settings.progress_interval)
        await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not self._polling.done():
            return EventBatch()
        task, self._polling = self._polling, None
        batch = task.result()
        # Read and decoded while the kernel works on this batch.
        self._polling = asyncio.create_task(self._source.poll(self._settings.batch, IDLE))
        return batch

    async def _stop_polling(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)
            self._polling = None

    async def _apply(self, batch: EventBatch, *, push: bool) -> None:
        """The log is asked for nothing until position and graph agree again: it may fail then."""
        refused = list(batch.invalid)
        start, before = 0, self._graph.sequence
        while start < len(batch.events):
            staged = self._graph.stage(batch.events, start)
            self._report(Step.PUSH, "before")
            ran = await self._kernel(
                partial(self._graph.run, staged, push=push, deadline=Deadline.after(SLICE))
            )
            self._report(Step.PUSH, "after")
            refused += [(batch.records[index], error) for index, error in staged.rejected + ran.rejected]
            start = staged.consumed
        if batch.records and self._oldest is None:
            self._oldest = batch.records[0].timestamp
        if batch.offsets and batch.offsets != self._checkpoint.position.event_offsets:
            self._checkpoint.position.event_offsets = batch.offsets
            self._changed = True
        for partition, last in batch.last.items():
            self._checkpoint.position.last_records[partition] = LastRecord(*last)
        self._metrics.count_events(self._graph.sequence - before)
        self._metrics.count_refused(error.reason.value for _, error in refused)
        self._metrics.lag.set(self._source.behind(self._checkpoint.position.event_offsets))
        self._metrics.dirty.set(self._graph.dirty_count)
        await self._dead_letters.put(self._source.topic, refused)

    def _catching_up(self) -> bool:
        """Backlog is large: repair only, and solve once every `max_staleness`."""
        if self._source.lag < self._settings.catch_up:
            return False
        return time.monotonic() - self._solved_at < self._settings.max_staleness

    # -- out

    async def _publish_if_free(self) -> None:
        if self._publishing is not None:
            if not self._publishing.done():
                return
            task, self._publishing = self._publishing, None
            task.result()
        if self._catching_up():
            return
        self._solved_at = time.monotonic()
        graph = self._graph
        if not (graph.moved_count or graph.owed_tombstones) and (self._all_told or self._too_soon()):
            return
        offsets = dict(self._checkpoint.position.event_offsets)
        publication = await self._kernel(lambda: graph.gather(self._settings.publish_limit))
        self._publishing = asyncio.create_task(self._send(publication, offsets, self._take_oldest()))

    async def _publish_all(self) -> None:
        """Until consumers hold everything."""
        while True:
            if self._publishing is not None:
                task, self._publishing = self._publishing, None
                await task
            offsets = dict(self._checkpoint.position.event_offsets)
            publication = await self._kernel(lambda: self._graph.gather(self._settings.publish_limit))
            self._told_at = 0.0
            await self._send(publication, offsets, self._take_oldest())
            if publication.complete:
                return

    async def _send(
        self, publication: Publication, event_offsets: dict[int, int], oldest: int | None
    ) -> None:
        """Write, wait for the acknowledgement, then let P follow; only then may progress speak of it."""
        if publication.ids or publication.tombstones:
            self._report(Step.PUBLISH, "before")
            await self._sink.publish(
                publication.ids, publication.vectors, publication.tombstones, publication.sequence
            )
            self._report(Step.PUBLISH, "after")
            await self._kernel(lambda: self._graph.acknowledge(publication))
            self._metrics.count_published(len(publication.ids), len(publication.tombstones))
            self._changed = True
        if oldest is not None:
            self._metrics.latency.observe(max(0.0, time.time() - oldest / 1000))
        late = time.monotonic() - self._told_at > self._settings.max_staleness
        if (publication.complete and not self._too_soon()) or late:
            await self._tell(publication, event_offsets)

    async def _tell(self, publication: Publication, event_offsets: dict[int, int]) -> None:
        rules = self._graph.rules
        await self._sink.publish_progress(
            Progress(
                graph=self._settings.graph,
                sequence=publication.sequence,
                event_offsets=event_offsets,
                output_offsets=dict(self._sink.output_offsets),
                bound=publication.bound,
                accuracy=rules.accuracy.tolist(),
                nodes=publication.nodes,
                arcs=publication.arcs,
                ts=int(time.time() * 1000),
            )
        )
        self._told, self._told_at = event_offsets, time.monotonic()
        self._changed = True  # the transaction it is in must end
        self._metrics.look_at(self._graph, publication)
        if self._graph.floor_active and not self._floor_told:
            log.warning(
                "float32_floor",
                message=f"features are too large for float32 to keep the accuracy: the bound is {publication.bound}",
            )
        self._floor_told = self._graph.floor_active

    @property
    def _all_told(self) -> bool:
        """The last progress record covers everything read, also what was refused."""
        return self._told == self._checkpoint.position.event_offsets

    def _too_soon(self) -> bool:
        return time.monotonic() - self._told_at < self._settings.progress_interval

    def _take_oldest(self) -> int | None:
        oldest, self._oldest = self._oldest, None
        return oldest

    # -- durable

    async def _commit_if_due(self) -> None:
        self._checkpoint.check()
        due = time.monotonic() - self._stored_at >= self._settings.checkpoint_interval
        changed = self._changed or self._checkpoint.went_back
        if changed and (due or self._graph.dirty_count >= self._dirty_limit // 2):
            await self._commit()
        elif due and not self._checkpoint.writing:
            self._metrics.all_is_stored()

    async def _commit(self) -> None:
        if self._publishing is not None:
            task, self._publishing = self._publishing, None
            await task
        self._stored_at = time.monotonic()
        if await self._checkpoint.commit():
            self._changed = False

    async def _pause_if_full(self) -> None:
        """The store is away and the changed rows have reached their limit: stop applying until it is back."""
        if self._graph.dirty_count < self._dirty_limit or not self._checkpoint.writing:
            return
        await self._commit()  # no transaction stays open in a pause
        self._enter(WorkerState.PAUSED)
        over = {asyncio.create_task(self._stop.wait()), asyncio.create_task(self._checkpoint.settled())}
        try:
            while not (await asyncio.wait(over, timeout=LOOK, return_when=asyncio.FIRST_COMPLETED))[0]:
                await self._source.look_for_the_end()
                self._metrics.lag.set(self._source.behind(self._checkpoint.position.event_offsets))
        finally:
            for task in over:
                task.cancel()
            await asyncio.gather(*over, return_exceptions=True)
        self._checkpoint.check()
        if not self._stop.is_set():
            self._enter(WorkerState.SERVING)
