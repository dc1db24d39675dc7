"""One session of a worker: readers and writers, a graph loaded or still held, and what consumers were sent last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from .connections import rules_of
from .consumers.events import EventSource
from .consumers.progress import require_own_topic
from .consumers.tail import read_tail
from .log.interface import LogError
from .log.topics import check_topics, plans
from .pipeline import Pipeline
from .producers.dead_letters import DeadLetterSink
from .producers.embeddings import EmbeddingSink, Head, check_limits
from .state.checkpoint import Checkpoint, OnKernelThread, Position, Report
from .state.graph import GraphState
from .state.id_table import ids_of
from .state.kernel_thread import KernelThread
from .state.lifecycle import Step, WorkerState
from .state.loading import restore
from .state.raw_features import RawFeatures
from .state.recovery import (
    LogBounds,
    output_was_lost,
    require_history,
    require_last_record,
    require_same_graph,
    resume_offsets,
)
from .state.store import GraphStore, LastRecord, Meta, Owner

if TYPE_CHECKING:
    from .log.interface import Log, LogReader
    from .settings import Settings
    from .state.encoding import Encoding
    from .telemetry import Metrics

log = structlog.get_logger()

TURNS = 2  # writers of embeddings: one writes while the other commits
LONGEST_TRANSACTION = 900.0  # seconds: transaction.max.timeout.ms of a broker that was told nothing else


class Held(NamedTuple):
    """A graph in memory and what belongs to it: it outlives a session that the log has ended.

    The log is asked for nothing between the first event of a batch and the position behind it, and a write to the
    store goes on by itself; so whenever the log fails this is whole, and the next session goes on with it.
    """

    graph: GraphState
    checkpoint: Checkpoint
    dead_letters: DeadLetterSink


async def require_topics(events: Log, settings: Settings) -> None:
    """Raise LogError for topics that are missing, would lose records, or belong to another graph."""
    names = (settings.events_topic, settings.embeddings_topic, settings.progress_topic)
    problems = await check_topics(
        events, plans(*names, settings.dead_letters_topic, predictions=settings.predicted_topic)
    )
    if problems:
        raise LogError("; ".join(problems))
    await require_own_topic(events, settings.progress_topic, settings.graph)


class Session:
    """Readers and writers of a worker from one failure of the log to the next."""

    def __init__(
        self, events: Log, settings: Settings, metrics: Metrics, kernel: KernelThread, report: Report
    ) -> None:
        self._log, self._settings, self._metrics = events, settings, metrics
        self._kernel, self._report = kernel, report
        longest = min(2 * settings.checkpoint_interval + 60, LONGEST_TRANSACTION)
        self._writers = [
            events.transactional_writer(f"dgdm-{settings.graph}-{turn}", longest) for turn in range(TURNS)
        ]
        self._letters = events.writer()
        self._source = EventSource(events, settings.events_topic, settings.isolation)
        self._sink = EmbeddingSink(
            self._writers,
            settings.embeddings_topic,
            settings.progress_topic,
            settings.encoding,
            settings.predicted_topic,
        )
        self._pipeline: Pipeline | None = None

    async def start(self) -> None:
        """Connect; a transactional writer fences its predecessor, which may be the last session's."""
        self._report(Step.FENCE, "before")
        for writer in self._writers:
            await writer.start()
        self._report(Step.FENCE, "after")
        await self._letters.start()
        await self._source.start()
        await self._sink.start()

    async def close(self) -> None:
        """Drop what is under way to and from the log, and disconnect, in bounded time."""
        if self._pipeline is not None:
            await self._pipeline.close()
        await asyncio.gather(self._source.close(), self._letters.close(), *(w.close() for w in self._writers))

    async def load(self, store: GraphStore, owner: Owner, raw_features: int) -> Held:
        """The graph as the store has it; of so many `raw_features` an encoder makes its features, 0 for none."""
        settings = self._settings
        self._report(Step.LOAD, "before")
        stored = await asyncio.to_thread(store.meta)
        rules = rules_of(settings, stored)
        await check_limits(self._log, settings.embeddings_topic, rules.features, settings.encoding)
        meta = Meta(
            features=rules.features,
            directed=rules.directed,
            aggregate=rules.aggregate,
            partitions=len(self._source.reader.partitions),
            alpha=settings.alpha,
            accuracy=rules.accuracy.tolist(),
            offset=rules.offset.tolist(),
            raw_features=raw_features,
        )
        graph, position = GraphState(rules, settings.alpha), Position()
        graph.raw = RawFeatures(raw_features) if raw_features else None
        if stored is not None:
            require_same_graph(stored, meta)
            await self._kernel(lambda: restore(graph, store, stored))
            position.event_offsets = dict(stored.event_offsets)
            position.last_records = dict(stored.last_records)
            position.output_offsets = dict(stored.output_offsets)
        self._report(Step.LOAD, "after")
        letters = DeadLetterSink(self._letters, settings.dead_letters_topic)
        checkpoint = Checkpoint(
            graph=graph,
            store=store,
            owner=owner,
            meta=meta,
            position=position,
            dead_letters=letters,
            commit_group=GroupOffsets(self._log, settings),
            kernel=_gathering(self._kernel, self._metrics),
            report=self._report,
            stored=self._metrics.count_checkpoint,
        )
        return Held(graph, checkpoint, letters)

    async def attach(
        self,
        held: Held,
        head: Head | None,
        encoding: Encoding | None,
        stop: asyncio.Event,
        enter: Callable[[WorkerState], None],
    ) -> Pipeline:
        """Go on where the graph stands, until all is announced: what was sent since the last commit is unknown."""
        self._sink.head = head
        settings, graph, checkpoint = self._settings, held.graph, held.checkpoint
        reader, position = self._source.reader, held.checkpoint.position
        await held.dead_letters.use(self._letters)
        known = checkpoint.meta if position.event_offsets else None
        bounds = LogBounds(await reader.beginning_offsets(), await reader.end_offsets())
        if known is not None:
            require_same_graph(known, replace(known, partitions=len(reader.partitions)))
        if not settings.accept_lost_history:
            require_history(known, bounds, settings.events_topic)
            await _require_same_log(reader, position.last_records, bounds)
        self._report(Step.TAIL, "before")
        tail = await read_tail(self._log, settings.embeddings_topic, position.output_offsets)
        if known is not None and output_was_lost(known, LogBounds(tail.begin, tail.end)):
            await self._kernel(graph.forget_published)
        await self._kernel(graph.reconsider)
        await self._kernel(lambda: graph.mark_unknown(sorted(tail.keys)))
        self._report(Step.TAIL, "after")
        position.event_offsets = resume_offsets(known, bounds)
        self._source.seek(position.event_offsets)
        self._sink.output_offsets = dict(tail.end)
        checkpoint.attach(self._sink)
        self._pipeline = Pipeline(
            settings=settings,
            graph=graph,
            source=self._source,
            sink=self._sink,
            dead_letters=held.dead_letters,
            checkpoint=checkpoint,
            kernel=self._kernel,
            metrics=self._metrics,
            stop=stop,
            enter=enter,
            report=self._report,
            encoding=encoding,
        )
        await self._pipeline.replay(tail, bounds.end)
        return self._pipeline

    async def predict_anew(self, held: Held, stop: asyncio.Event) -> None:
        """Predictions of every vector that consumers hold: they may be another head's, or none."""
        graph, limit = held.graph, self._settings.publish_limit
        rows = await self._kernel(lambda: graph.rows()[graph.arrays.announced[graph.rows()] == 1])
        for start in range(0, len(rows), limit):
            if stop.is_set():
                return
            part = rows[start : start + limit]
            vectors = graph.rules.raw(graph.arrays.P[part])
            await self._sink.predict(ids_of(graph.ids, part), vectors, [], graph.sequence)


def _gathering(kernel: KernelThread, metrics: Metrics) -> OnKernelThread:
    """What a checkpoint does in the kernel thread, as a stage. A checkpoint outlives its session: this holds none."""

    def timed(function: Callable[[], Any]) -> Any:
        with metrics.timed("gather"):
            return function()

    return lambda function: kernel(partial(timed, function))


class GroupOffsets:
    """What lag tools see, and nobody else: a failure is said once, and changes nothing."""

    def __init__(self, events: Log, settings: Settings) -> None:
        self._log, self._group, self._topic = events, f"dgdm-{settings.graph}", settings.events_topic
        self._told = False

    async def __call__(self, offsets: Mapping[int, int]) -> None:
        """Commit these."""
        try:
            await self._log.commit_group_offsets(self._group, self._topic, offsets)
        except LogError as error:
            if not self._told:
                log.warning("group_offsets", message=f"lag tools do not see how far this worker is: {error}")
            self._told = True
        else:
            self._told = False


async def _require_same_log(
    reader: LogReader, last_records: Mapping[int, LastRecord], bounds: LogBounds
) -> None:
    """The last applied record must be the one the log holds, where it still holds it."""
    for partition, last in last_records.items():
        if not bounds.begin.get(partition, 0) <= last.offset < bounds.end.get(partition, 0):
            continue
        reader.seek({partition: last.offset})
        found = next((r for r in await reader.poll(1, 5.0) if r.partition == partition), None)
        identity = None
        if found is not None:
            crc = EventSource.checksum(found)
            identity = LastRecord(found.offset, found.timestamp, crc)
        require_last_record(last, identity, f"{reader.topic}[{partition}]")
