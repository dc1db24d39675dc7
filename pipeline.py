"""One event's way: poll, stage, kernel, publish, checkpoint; from a restored graph until it must stop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from .backlog import Backlog
from .reading import FEW, IDLE, NOTHING, Read, Reading
from .schemas.progress import Progress
from .state.deadline import Deadline
from .state.lifecycle import Step, WorkerState
from .state.store import LastRecord

if TYPE_CHECKING:
    from .consumers.events import EventSource
    from .consumers.tail import Tail
    from .producers.dead_letters import DeadLetterSink
    from .producers.embeddings import EmbeddingSink
    from .schemas.reasons import InvalidEvent
    from .settings import Settings
    from .state.checkpoint import Checkpoint, Report
    from .state.encoding import Encoding
    from .state.graph import GraphState, Publication
    from .state.kernel_thread import KernelThread
    from .telemetry import Metrics

log = structlog.get_logger()

LOOK = 0.5  # seconds between two looks at the end of the log in a pause
LARGEST_WRITE = 256 << 20  # bytes of one checkpoint, about: what a store takes in one transaction
SLICE = 0.25  # seconds the kernel thread may push before the loop has its say again
BRIEF = 0.002  # seconds a push may hold the loop itself up


class _Turn(NamedTuple):
    """What one turn of the kernel thread came to."""

    refused: list[tuple[int, InvalidEvent]]
    publication: Publication | None


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
        encoding: Encoding | None = None,
    ) -> None:
        self._settings, self._graph, self._source, self._encoding = settings, graph, source, encoding
        self._sink, self._dead_letters, self._checkpoint = sink, dead_letters, checkpoint
        self._kernel, self._metrics, self._stop = kernel, metrics, stop
        self._enter, self._report = enter, report
        self._reading = Reading(source, settings.batch, encoding)
        self._publishing: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._arrived: deque[Publication] = deque()  # acknowledged, and P has not followed yet
        self._told: tuple[dict[int, int], int] | None = None  # offsets, `remade`: by the last progress record
        self._told_at = 0.0
        self._backlog = Backlog(settings.catch_up, settings.max_staleness)
        self._stored_at = time.monotonic()
        self._sealing: asyncio.Task[None] | None = None
        self._floor_told = self._changed = False  # changed: applied, since the last checkpoint
        row = 8 * graph.rules.features + 512 + (0 if graph.raw is None else graph.raw.row_bytes)
        self._dirty_limit = min(settings.dirty_rows, LARGEST_WRITE // row)
        self._oldest: int | None = None  # timestamp of the first record no publication covers yet

    async def replay(self, tail: Tail, ends: Mapping[int, int]) -> None:
        """Catch up without publishing until nothing consumers hold is ahead, then announce what differs."""
        self._report(Step.REPLAY, "before")
        offsets = self._checkpoint.position.event_offsets
        while not self._stop.is_set():
            if self._graph.sequence >= tail.sequence or all(offsets.get(p, 0) >= e for p, e in ends.items()):
                break
            await self._advance(await self._next_batch(), push=False, limit=None)
            offsets = self._checkpoint.position.event_offsets
            await self._commit_if_due()
        self._report(Step.REPLAY, "after")
        if self._stop.is_set():
            return
        self._report(Step.ANNOUNCE, "before")
        await self._push_all()
        await self._publish_all()
        self._checkpoint.position.tail_owed = False
        self._changed = True
        self._report(Step.ANNOUNCE, "after")

    async def serve(self) -> None:
        """Apply, publish and store until `stop` is set. Raises LogError, FencedError."""
        while not self._stop.is_set():
            batch = await self._next_batch()
            if self._backlog.is_repaired_only(self._source.lag):
                await self._advance(batch, push=False, limit=0 if self._late() else None)
            else:
                await self._advance(batch, push=True, limit=self._settings.publish_limit)
                await self._checkpoint.gather_ahead(self._settings.checkpoint_interval)
            await self._commit_if_due()
            await self._pause_if_full()

    async def finish(self) -> None:
        """Publish and store everything applied. Raises LogError, FencedError."""
        await self._reading.stop()
        if not self._checkpoint.position.tail_owed:  # else consumers may hold something newer than this
            await self._push_all()
            await self._publish_all()
        stored = False
        while not stored:  # a write may be under way, or find that the store went back in time
            stored = await self._commit()
            await self._checkpoint.written()
            stored = stored and not self._checkpoint.went_back

    async def close(self) -> None:
        """Drop what is under way to and from the log; a write to the store goes on."""
        await self._reading.stop()
        writing = [task for task in (self._publishing, self._telling, self._sealing) if task is not None]
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)

    # -- in

    async def _next_batch(self) -> Read:
        """The next batch, or an empty one when something else is to be done first."""
        reading, lag, backlog = self._reading.task, self._source.lag, self._backlog
        held = backlog.waits(lag)
        waiting: set[asyncio.Future[Any]] = set() if held else {reading}
        if self._publishing is not None and self._graph.news:
            waiting.add(self._publishing)
        if (
            self._encoding is not None
            and not backlog.is_large(lag)
            and (due := self._encoding.due) is not None
        ):
            waiting.add(asyncio.wrap_future(due))
        busy = self._graph.pending_count > 0 and not backlog.is_repaired_only(lag)
        patience = 0 if busy else IDLE if self._all_told else max(0.001, self._settings.progress_interval)
        if waiting:
            await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        return NOTHING if held or not reading.done() else await self._reading.take()

    async def _advance(self, read: Read, *, push: bool, limit: int | None) -> None:
        """One turn of the kernel thread, then what it asks of the loop.

        At most `limit` vectors are published: with 0 consumers hear how far and how exact it is, with None nothing.
        Few events that meet nothing pending are worked off by the loop itself. The log is asked for nothing until
        position and graph agree again: it may fail then.
        """
        position, graph, batch = self._checkpoint.position, self._graph, read.batch
        offsets, before = dict(batch.offsets) or position.event_offsets, graph.sequence
        self._settle()
        if batch.records:
            self._report(Step.PUSH, "before")
        brief = push and len(read.values) < FEW and self._encoding is None and graph.settles_at_once
        seconds = (BRIEF if brief else SLICE) if push else 0.0
        turn = await self._kernel(partial(self._turn, read, offsets, seconds, limit=limit), brief=brief)
        if batch.records:
            self._report(Step.PUSH, "after")
            self._oldest = batch.records[0].timestamp if self._oldest is None else self._oldest
        if offsets != position.event_offsets:
            position.event_offsets = offsets
            self._changed = True
        for partition, last in batch.last.items():
            position.last_records[partition] = LastRecord(*last)
        self._metrics.count_events(graph.sequence - before)
        self._metrics.count_refused(error.reason.value for _, error in turn.refused)
        self._metrics.lag.set(self._source.behind(position.event_offsets))
        self._metrics.dirty.set(self._checkpoint.dirty_rows)
        if push:
            self._backlog.pushed(all_is_told=not (graph.pending_count or graph.moved_count))
        self._publish(turn.publication, offsets)
        refused = [(batch.records[index], error) for index, error in turn.refused]
        await self._dead_letters.put(self._source.topic, refused)

    def _turn(
        self, read: Read | None, offsets: dict[int, int], seconds: float, *, limit: int | None
    ) -> _Turn:
        """As the kernel thread, everything at once: each way there and back costs a tenth of a millisecond.

        A push takes about so many `seconds` at most; with 0 there is none.
        """
        graph, timed = self._graph, self._metrics.timed
        self._follow()
        refused = []
        with timed("apply"):
            if read is not None and read.values:
                refused = graph.apply(read.values, push=False, encoded=read.encoded).refused
        if seconds:
            if self._encoding is not None:
                self._encoding.step()
            with timed("push"):
                graph.push(Deadline.after(seconds))
        if limit is None or self._is_publishing:
            return _Turn(refused, None)
        self._follow()  # what has arrived meanwhile is what the next publication is measured by
        untold = self._told != (offsets, graph.remade) and not self._too_soon()
        if not (graph.news or untold):
            return _Turn(refused, None)
        with timed("select"):
            return _Turn(refused, graph.gather(limit))

    def _follow(self) -> None:
        """As the kernel thread: P becomes what consumers hold by now."""
        with self._metrics.timed("acknowledge"):
            while self._arrived:  # the loop may add one at any time
                self._graph.acknowledge(self._arrived.popleft())

    # -- out

    def _settle(self) -> None:
        """Take notice of what has been written. Raises what went wrong with it."""
        for task in (self._publishing, self._telling):
            if task is not None and task.done():
                task.result()
        self._publishing = None if self._publishing is None or self._publishing.done() else self._publishing
        self._telling = None if self._telling is None or self._telling.done() else self._telling

    @property
    def _is_publishing(self) -> bool:
        """Also after a failure, which the loop will take notice of."""
        task = self._publishing
        return task is not None and (not task.done() or task.cancelled() or task.exception() is not None)

    async def _quiet(self) -> None:
        """Wait until nothing is on its way to the log."""
        while tasks := [task for task in (self._publishing, self._telling) if task is not None]:
            await asyncio.wait(tasks)
            self._settle()

    async def _push_all(self) -> None:
        while not await self._kernel(lambda: self._graph.push(Deadline.after(SLICE))):
            pass

    async def _publish_all(self) -> None:
        """Until consumers hold everything."""
        complete = False
        while not complete:
            await self._quiet()
            self._told_at = 0.0
            offsets = self._checkpoint.position.event_offsets
            limit = self._settings.publish_limit
            turn = await self._kernel(partial(self._turn, None, offsets, 0.0, limit=limit))
            complete = turn.publication is None or turn.publication.complete
            self._publish(turn.publication, offsets)
        await self._quiet()

    def _publish(self, publication: Publication | None, offsets: dict[int, int]) -> None:
        if publication is not None:  # then the last one has arrived
            oldest, self._oldest = self._oldest, None
            self._publishing = asyncio.create_task(self._send(publication, offsets, oldest))

    async def _send(self, publication: Publication, offsets: dict[int, int], oldest: int | None) -> None:
        """Write and wait for the acknowledgement; only then may P follow, and progress speak of it."""
        if publication.ids or publication.tombstones:
            self._report(Step.PUBLISH, "before")
            await self._sink.publish(
                publication.ids, publication.vectors, publication.tombstones, publication.sequence
            )
            self._report(Step.PUBLISH, "after")
            self._arrived.append(publication)
            self._metrics.count_published(len(publication.ids), len(publication.tombstones))
        if oldest is not None:
            self._metrics.latency.observe(max(0.0, time.time() - oldest / 1000))
        tell = self._telling is None and ((publication.complete and not self._too_soon()) or self._late())
        self._told = (offsets, publication.remade) if tell else None  # None: one that speaks of this is owed
        if tell:
            # Beside the next publication: it speaks of the topic up to here.
            self._telling = asyncio.create_task(self._tell(publication, self._progress(publication, offsets)))

    def _progress(self, publication: Publication, offsets: dict[int, int]) -> Progress:
        return Progress(
            graph=self._settings.graph,
            sequence=publication.sequence,
            event_offsets=offsets,
            output_offsets=dict(self._sink.output_offsets),
            bound=publication.bound,
            accuracy=self._graph.rules.accuracy.tolist(),
            nodes=publication.nodes,
            arcs=publication.arcs,
            ts=int(time.time() * 1000),
        )

    async def _tell(self, publication: Publication, progress: Progress) -> None:
        await self._sink.publish_progress(progress)
        self._told_at = time.monotonic()
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
        return self._told == (self._checkpoint.position.event_offsets, self._graph.remade)

    def _too_soon(self) -> bool:
        return time.monotonic() - self._told_at < self._settings.progress_interval

    def _late(self) -> bool:
        return time.monotonic() - self._told_at > self._settings.max_staleness

    # -- durable

    async def _commit_if_due(self) -> None:
        """The log commits beside the next batches, then the store is given what has changed."""
        self._checkpoint.check()
        if self._sealing is not None:
            if self._sealing.done():
                await self._write()
            return
        due = time.monotonic() - self._stored_at >= self._settings.checkpoint_interval
        changed = self._changed or self._sink.open or self._checkpoint.went_back
        if changed and (due or self._much_is_dirty):
            await self._seal(more=True)
        elif due and not self._checkpoint.writing:
            self._metrics.all_is_stored()

    @property
    def _much_is_dirty(self) -> bool:
        return self._checkpoint.dirty_rows >= self._dirty_limit // 2

    async def _commit(self) -> bool:
        """Everything, now."""
        if self._sealing is not None:
            await self._write()
        await self._seal(more=False)
        return await self._write()

    async def _seal(self, *, more: bool) -> None:
        await self._quiet()
        self._stored_at, self._changed = time.monotonic(), False
        self._sealing = asyncio.create_task(self._checkpoint.seal(more=more))

    async def _write(self) -> bool:
        if self._sealing is not None:
            await asyncio.wait({self._sealing})
            task, self._sealing = self._sealing, None
            task.result()
        await self._kernel(self._follow)
        # Else the next one waits already, or a stop does.
        gently = not (self._much_is_dirty or self._stop.is_set())
        written = await self._checkpoint.write(gently=gently)
        self._changed = self._changed or not written
        return written

    async def _pause_if_full(self) -> None:
        """The store is away and the changed rows have reached their limit: stop applying until it is back."""
        if self._checkpoint.dirty_rows < self._dirty_limit or not self._checkpoint.writing:
            return
        await self._commit()  # no transaction stays open in a pause
        self._enter(WorkerState.PAUSED)
        over = {asyncio.create_task(self._stop.wait()), asyncio.create_task(self._checkpoint.settled())}
        try:
            while not (await asyncio.wait(over, timeout=LOOK, return_when=asyncio.FIRST_COMPLETED))[0]:
                await self._source.ask_for_the_end()
                self._metrics.lag.set(self._source.behind(self._checkpoint.position.event_offsets))
        finally:
            for task in over:
                task.cancel()
            await asyncio.gather(*over, return_exceptions=True)
        self._checkpoint.check()
        if not self._stop.is_set():
            self._enter(WorkerState.SERVING)
