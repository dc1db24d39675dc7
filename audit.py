"""The certificate of a live stream: one progress record, the graph up to it, the table up to it.

The graph comes from the log, or from checkpoint and log where the log no longer begins at 0, or an encoder makes the
features; the vectors come from the embeddings topic; nothing comes from the worker.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .connections import connect_log, connect_store, rules_of
from .consumers.embeddings import EmbeddingStream
from .consumers.events import EventSource
from .consumers.progress import read_progress
from .diffusion.exact import Certificate, certify
from .models import cpu_encoder
from .schemas.embeddings import Embedding
from .state.encoding import Encoded, encode
from .state.graph import GraphState
from .state.loading import restore
from .state.raw_features import RawFeatures
from .state.solution import solve

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .log.interface import Log
    from .schemas.progress import Progress
    from .settings import Settings
    from .state.store import GraphStore, Meta

ATTEMPTS = 5
SHOWN = 10  # columns, or ids of a list


class NothingToCertifyError(Exception):
    """There is no progress record of this graph, or no graph to compare with."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What the exact solution says of the table of one progress record."""

    progress: Progress
    certificate: Certificate
    missing: list[str]  # in the graph, not in the table
    extra: list[str]  # in the table, not in the graph
    unchecked: int  # overwritten since: they wait for another record
    exact: dict[str, NDArray[np.float64]]

    @property
    def holds(self) -> bool:
        """Whether every promise was kept."""
        return self.certificate.holds and not self.missing and not self.extra

    def report(self) -> dict[str, Any]:
        """All of it but the exact vectors, for scripts."""
        return {
            "holds": self.holds,
            "error": self.certificate.error,
            "bound": self.certificate.bound,
            "accuracy": self.progress.accuracy,
            "sequence": self.progress.sequence,
            "nodes": len(self.exact),
            "missing": self.missing[:SHOWN],
            "extra": self.extra[:SHOWN],
            "unchecked": self.unchecked,
            "worst": self.certificate.worst,
        }

    def sentences(self) -> list[str]:
        """The same for people."""
        found, held = self.certificate, len(self.exact) - len(self.missing) - self.unchecked
        columns = zip(found.error, found.bound, self.progress.accuracy, strict=True)
        lines = [
            f"column {number}: largest error {error:.4g}, promised {bound:.4g} (accuracy asked for: {accuracy:g})"
            for number, (error, bound, accuracy) in enumerate(columns)
        ]
        if len(lines) > SHOWN:
            lines[SHOWN:] = [f"… {len(lines) - SHOWN} more columns: --json has them all"]
        nearest = ", ".join(f"{node} {share:.0%}" for node, share in found.worst)
        lines.append(f"nearest to the promise: {nearest or 'no vectors'}")
        for what, ids in (
            ("missing from the topic", self.missing),
            ("in the topic, not in the graph", self.extra),
        ):
            lines += [f"{what}: {len(ids)}, {', '.join(ids[:SHOWN])}"] if ids else []
        if self.unchecked:
            lines.append(f"{self.unchecked} nodes changed since that record and are not compared")
        verdict = "THE PROMISE IS BROKEN" if not self.holds else "the promise is kept"
        lines.append(
            f"{verdict}: {held} vectors against the exact solution after {self.progress.sequence} events"
        )
        return lines


async def audit(settings: Settings, *, from_log: bool = False) -> Audit:
    """Take the last progress record and check it. Raises NothingToCertifyError, LogError, StoreError."""
    log, store = connect_log(settings), connect_store(settings)
    found: Audit | None = None
    try:
        for _ in range(ATTEMPTS):
            progress = await read_progress(log, settings.progress_topic, settings.graph)
            if progress is None:
                raise NothingToCertifyError(
                    f"{settings.progress_topic} has no record of graph {settings.graph!r}: has its worker run?"
                )
            graph = await _graph_at(settings, log, None if from_log else store, progress)
            if graph is not None:
                found = await _compare(settings, log, progress, graph)
                if found.holds or settings.encoder is None:
                    return found
                # rows that were encoded anew are in the checkpoint before a progress record speaks of them
            await asyncio.sleep(settings.progress_interval)
        if found is not None:
            return found
        raise NothingToCertifyError(
            "the checkpoint is ahead of every progress record: try again when events flow"
        )
    finally:
        await log.close()
        store.close()


async def _graph_at(
    settings: Settings, log: Log, store: GraphStore | None, progress: Progress
) -> GraphState | None:
    """The graph after exactly the events of the progress record; None when the checkpoint is later."""
    stored = None if store is None else await asyncio.to_thread(store.meta)
    source = EventSource(log, settings.events_topic, settings.isolation)
    await source.start()
    try:
        begin = await source.reader.beginning_offsets()
        known: dict[str, Any] = {"features": settings.features or len(progress.accuracy)}
        if stored is not None:  # what the worker was told, when it stored the graph
            known |= {name: getattr(stored, name) for name in ("alpha", "directed", "aggregate")}
        told = settings.model_copy(update=known)
        graph = GraphState(rules_of(told, stored), told.alpha)
        encoded = await asyncio.to_thread(_encoder_of, settings, graph, stored)
        start = begin
        if stored is not None and store is not None and (any(begin.values()) or graph.raw is not None):
            if any(stored.event_offsets.get(p, 0) > end for p, end in progress.event_offsets.items()):
                return None
            await asyncio.to_thread(restore, graph, store, stored)
            start = {p: stored.event_offsets.get(p, 0) for p in begin}
        elif any(begin.values()):
            raise NothingToCertifyError(
                f"{settings.events_topic} begins at {begin}, not 0: certify with the store"
            )
        source.seek(start)
        while any(source.reader.positions().get(p, 0) < end for p, end in progress.event_offsets.items()):
            batch = await source.poll(50_000, 1.0)
            within = [
                record.value
                for record in batch.records
                if record.offset < progress.event_offsets.get(record.partition, 0)
            ]
            graph.apply(within, push=False, encoded=None if encoded is None else encoded(within))
        if graph.sequence != progress.sequence:
            raise NothingToCertifyError(
                f"up to that progress record the log holds {graph.sequence} events that can be applied, and the worker "
                f"applied {progress.sequence}: give certify the worker's settings (unknown_nodes, max_nodes, …)"
            )
        return graph
    finally:
        await source.close()


def _encoder_of(
    settings: Settings, graph: GraphState, stored: Meta | None
) -> Callable[[list[bytes | None]], Encoded] | None:
    """How events after the checkpoint become X, and the graph told of it; None where they carry X."""
    if settings.encoder is None:
        if stored is not None and stored.raw_features:
            raise NothingToCertifyError(
                "an encoder makes the features of this graph: give certify the worker's encoder"
            )
        return None
    try:
        encoder, width = cpu_encoder(settings.encoder)
    except ValueError as error:
        raise NothingToCertifyError(str(error)) from None
    zeros = encoder.run(np.zeros((1, width), np.float32))
    others = {} if stored is None else {d: n for d, n in stored.encoders.items() if n and d != zeros.digest}
    if others:
        raise NothingToCertifyError(
            f"{sum(others.values())} nodes are as encoder {', '.join(others)} has them, and {settings.encoder} is "
            f"{zeros.digest}: certify when all are encoded anew"
        )
    graph.raw = RawFeatures(width)
    graph.raw.use(zeros.digest, graph.rules.scaled(zeros.outputs[0]), graph.rows())
    return lambda values: encode(values, encoder, width, graph.rules)


async def _compare(settings: Settings, log: Log, progress: Progress, graph: GraphState) -> Audit:
    exact = await asyncio.to_thread(solve, graph)
    async with EmbeddingStream(log, settings.embeddings_topic, start="beginning") as stream:
        table: dict[str, NDArray[np.float32]] = {}
        later: set[str] = set()
        end = await stream.end()
        while any(stream.positions().get(p, 0) < e for p, e in end.items()):
            for change, record in await stream.poll_records():
                if record.offset >= progress.output_offsets.get(record.partition, 0):
                    later.add(change.id)
                elif isinstance(change, Embedding):
                    table[change.id] = change.vector
                else:
                    table.pop(change.id, None)
    missing = [node for node in exact if node not in table and node not in later]
    extra = [node for node in table if node not in exact and node not in later]
    ids = [node for node in exact if node in table]
    width = graph.rules.features
    truth = np.array([exact[node] for node in ids]).reshape(len(ids), width)
    held = np.array([table[node] for node in ids], np.float64).reshape(len(ids), width)
    unchecked = sum(node not in table for node in exact) - len(missing)
    return Audit(progress, certify(ids, truth, held, progress.bound), missing, extra, unchecked, exact)
