"""A live stream followed by the oracle: at each quiet point a verdict on everything that is stored and held."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import oracle
from processes import until
from streams import Stored, read_store

from dgdm.connections import connect_log, connect_store
from dgdm.consumers.progress import MARKERS, read_progress
from dgdm.log import Isolation, Log, Record
from dgdm.settings import Settings

ISOLATIONS: tuple[Isolation, ...] = ("read_committed", "read_uncommitted")


class Verdict(NamedTuple):
    """What the oracle says of one quiet point."""

    sequence: int
    nodes: int
    arcs: int
    error: float  # largest of a vector that a consumer holds, under either isolation
    bound: float  # of the last progress record
    wrong: list[str]  # broken promises, in words


class Truth:
    """The oracle's graph and two consumers' tables; each reads on from where it was."""

    def __init__(self, settings: Settings) -> None:
        assert settings.features is not None
        self._settings = settings
        self.graph = oracle.Oracle(settings.features, settings.alpha, accuracy=settings.accuracy[0])
        self._held: dict[Isolation, dict[str, np.ndarray]] = {isolation: {} for isolation in ISOLATIONS}
        self._positions: dict[tuple[str, Isolation], dict[int, int]] = {}
        self._last: dict[Isolation, int] = dict.fromkeys(ISOLATIONS, -1)  # offset of the last record

    async def verdict(self) -> Verdict:
        """Of a stream in which everything sent is visible and nothing more is being sent."""
        log = connect_log(self._settings)
        try:
            return await self._verdict(log)
        finally:
            await log.close()

    def holds(self, records: Iterable[tuple[Any, bytes | None]]) -> bool:
        """Whether a consumer that begins with these records now holds the same table."""
        mine, theirs = self._held["read_committed"], oracle.table(records)
        return mine.keys() == theirs.keys() and all(same(mine[node], theirs[node]) for node in mine)

    async def _verdict(self, log: Log) -> Verdict:
        settings, graph = self._settings, self.graph
        for record in await self._read_on(log, settings.events_topic, "read_committed"):
            graph.apply(record.value)
        await self._until_stored(log)
        progress = await read_progress(log, settings.progress_topic, settings.graph)
        assert progress is not None
        stored = await asyncio.to_thread(read_store, settings)
        wrong = self._differences(stored)
        if progress.sequence != graph.sequence:
            wrong.append(f"the last progress record is at {progress.sequence}, the log at {graph.sequence}")
        exact = graph.exact()
        errors = {name: oracle.largest_error(exact, held) for name, held in self._held.items()}
        for name, error in errors.items():
            if error > max(progress.bound):
                wrong.append(f"{name}: an error of {error:g}, promised were {max(progress.bound):g}")
        if max(progress.bound) > settings.accuracy[0]:
            wrong.append(f"the bound is {max(progress.bound):g}, asked was {settings.accuracy[0]:g}")
        arcs = len(graph.weights())
        return Verdict(graph.sequence, len(graph.x), arcs, max(errors.values()), max(progress.bound), wrong)

    def _differences(self, stored: Stored) -> list[str]:
        """Between the store and the oracle: sequence, nodes, features and weights equal to the last bit."""
        graph, held = self.graph, self._held["read_committed"]
        wrong = []
        if stored.meta.event_sequence != graph.sequence:
            wrong.append(f"{stored.meta.event_sequence} events stored, {graph.sequence} in the log")
        if stored.weights != graph.weights():
            arcs = set(stored.weights.items()) ^ set(graph.weights().items())
            wrong.append(f"{len(arcs)} stored weights differ: {sorted(arcs)[:5]}")
        for what, mine, theirs in (
            ("features", graph.x, stored.features),
            ("vectors that consumers hold", held, stored.vectors),
        ):
            differ = {
                node for node in mine.keys() | theirs.keys() if not same(mine.get(node), theirs.get(node))
            }
            if differ:
                wrong.append(f"{what}: {len(differ)} differ from the stored ones: {sorted(differ)[:5]}")
        return wrong

    async def _follow(self, log: Log, isolation: Isolation) -> None:
        records = await self._read_on(log, self._settings.embeddings_topic, isolation)
        oracle.table(((r.key or b"", r.value) for r in records), self._held[isolation])
        self._last[isolation] = max([self._last[isolation], *(r.offset for r in records)])

    async def _read_on(self, log: Log, topic: str, isolation: Isolation) -> list[Record]:
        """What came since the last time."""
        reader = log.reader(topic, isolation)
        await reader.start()
        try:
            reader.seek(self._positions.get((topic, isolation), {}))
            end = await reader.end_offsets()
            records: list[Record] = []
            while any(reader.positions().get(p, 0) < e for p, e in end.items()):
                records += await reader.poll(10_000, MARKERS)
            self._positions[topic, isolation] = reader.positions()
            return records
        finally:
            await reader.close()

    async def _until_stored(self, log: Log) -> None:
        """Every vector that was sent is committed, and the checkpoint speaks of it and of every event."""
        store = connect_store(self._settings)

        async def stored() -> bool:
            for isolation in ISOLATIONS:
                await self._follow(log, isolation)
            meta = await asyncio.to_thread(store.meta)
            return (
                meta is not None
                and meta.event_sequence >= self.graph.sequence
                and meta.output_offsets.get(0, 0)
                > self._last["read_uncommitted"]
                == self._last["read_committed"]
            )

        try:
            await until(stored, f"a checkpoint at sequence {self.graph.sequence}")
        finally:
            store.close()


def same(a: Any, b: Any) -> bool:
    """The same numbers, to the last bit."""
    return a is not None and b is not None and np.array_equal(a, b)
