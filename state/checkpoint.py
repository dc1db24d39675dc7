"""The Checkpoint: events applied, vectors published and offsets, committed together in one written order."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

import structlog

from .collecting import collect, collect_all
from .lifecycle import Step
from .memory import return_free_memory
from .merging import merged
from .store import (
    GraphStore,
    LastRecord,
    Meta,
    Owner,
    StoreChanges,
    StoreConflictError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from .graph import GraphState

log = structlog.get_logger()

Moment = Literal["before", "after"]
Report = Callable[[Step, Moment], None]

MOST_PARTS = 16  # of one checkpoint
RETRY_FIRST, RETRY_LONGEST = 0.1, 2.0  # seconds between attempts at a store that does not answer


class FencedError(Exception):
    """Another worker owns the graph: nothing of this one may be written any more."""


class Output(Protocol):
    """What a checkpoint asks of the sink of embeddings."""

    @property
    def output_offsets(self) -> dict[int, int]:
        """Offsets after the last acknowledged record, by partition."""

    async def commit(self, *, more: bool) -> None:
        """Commit the open transaction, if there is one; `more` says that another is to follow."""


class DeadLetters(Protocol):
    """What a checkpoint asks of the sink of dead letters."""

    async def flush(self) -> None:
        """Wait until everything put is acknowledged."""


class OnKernelThread(Protocol):
    """Runs a function in the one thread that may touch the arrays."""

    def __call__(self, function: Callable[[], Any], /) -> Awaitable[Any]:
        """Await its result."""


@dataclass(slots=True)
class Position:
    """How far the log has been applied. Offsets are the next to read."""

    event_offsets: dict[int, int] = field(default_factory=dict)
    last_records: dict[int, LastRecord] = field(default_factory=dict)
    output_offsets: dict[int, int] = field(default_factory=dict)  # after what is committed, and held since
    tail_owed: bool = True  # what consumers were sent after `output_offsets` is still to be sent again


class Checkpoint:
    """Where one owner stands, and the one way to make it durable: `seal`, then `write`. Nothing else writes state.

    1. barrier: vectors, tombstones and progress are acknowledged (the caller has seen to it);
    2. the log's transaction is committed, and the output offsets of the barrier count from then on;
    3. gather: dead letters are acknowledged, and what changed is copied, with the offsets; the most of it was copied
       before, in parts, so that no event waits long (`gather_ahead`);
    4. in a thread: one compare-and-set on (token, sequence) writes it all;
    5. the group's offsets, for lag tools only.

    Processing may go on between 2 and 3, and after 3; what it publishes is in the next transaction, and after a
    crash in the tail. While an earlier write still waits for the store only 1 and 2 are taken: a transaction never
    outlives the checkpoint interval.
    """

    def __init__(
        self,
        *,
        graph: GraphState,
        store: GraphStore,
        owner: Owner,
        meta: Meta,
        position: Position,
        dead_letters: DeadLetters,
        commit_group: Callable[[Mapping[int, int]], Awaitable[None]],
        kernel: OnKernelThread,
        report: Report,
        stored: Callable[[float], None],
    ) -> None:
        """`stored(seconds)` hears of each write the store has acknowledged, and how long it all took."""
        self.owner = owner
        self.position = position
        self._meta = meta
        self._graph, self._store, self._dead_letters = graph, store, dead_letters
        self._output: Output | None = None
        self._commit_group, self._kernel, self._report = commit_group, kernel, report
        self._stored = stored
        self._writing: asyncio.Task[None] | None = None
        self._went_back: tuple[Owner | None] | None = None
        self._begun = 0.0
        self._parts: list[StoreChanges] = []  # gathered, and not handed to the store yet
        self._rows_in_parts = 0
        self._gathered_at = 0.0

    def attach(self, output: Output) -> None:
        """Publish through this from now on: the first output, or the next after the log has failed.

        What the last one wrote after its last commit may be seen by some consumers only: a tail is owed. A
        write to the store goes on meanwhile.
        """
        self._output = output
        self.position.tail_owed = True

    @property
    def meta(self) -> Meta:
        """What a checkpoint would say now of the log and of the frozen settings; counts are the collector's."""
        position = self.position
        return replace(
            self._meta,
            event_offsets=dict(position.event_offsets),
            output_offsets=dict(position.output_offsets),
            last_records=dict(position.last_records),
        )

    @property
    def went_back(self) -> bool:
        """The store lost what it had acknowledged; the next commit writes everything."""
        return self._went_back is not None

    @property
    def dirty_rows(self) -> int:
        """Rows the store must hear of, at most: one that is in several parts counts for each."""
        return min(self._rows_in_parts + self._graph.dirty_count, self._graph.used)

    async def gather_ahead(self, interval: float) -> None:
        """A part of step 3, if it is time for one: they are spread over an interval [s].

        Not when parts hold as many rows as there are: what changes all the time would be copied again and again.
        """
        apart = time.monotonic() - self._gathered_at
        due = apart >= interval / MOST_PARTS and self._graph.dirty_count > 0
        room = len(self._parts) < MOST_PARTS and self._rows_in_parts < self._graph.used
        if due and room:
            await self._kernel(partial(self._gather, self.meta))

    def _gather(self, meta: Meta) -> None:
        """In the kernel thread, where nothing comes between copying and keeping it."""
        self._gathered_at = time.monotonic()
        self._rows_in_parts += self._graph.dirty_count
        self._parts.append(collect(self._graph, meta))

    @property
    def writing(self) -> bool:
        """Whether a write to the store is still under way."""
        return self._writing is not None and not self._writing.done()

    async def seal(self, *, more: bool) -> None:
        """Steps 1 and 2; `more` says that there is another to follow. Raises LogError."""
        assert self._output is not None, "attach an output first"
        self._begun = time.monotonic()
        with self._step(Step.BARRIER):
            ends = dict(self._output.output_offsets)
        with self._step(Step.TRANSACTION):
            await self._output.commit(more=more)
        if not self.position.tail_owed:
            self.position.output_offsets = ends

    async def write(self, *, gently: bool = False) -> bool:
        """Steps 3 to 5, between two batches; False while an earlier write is under way. Raises FencedError, LogError.

        `gently` is a store's (`GraphStore.commit`).
        """
        await self._dead_letters.flush()
        if self.writing:
            return False
        await self.written()
        owner = self.owner._replace(sequence=self.owner.sequence + 1)
        with self._step(Step.GATHER):
            meta = self.meta
            if self._went_back is None:
                await self._kernel(partial(self._gather, meta))
                write = self._write(owner, self._parts, self._begun, gently=gently)
            else:
                everything = await self._kernel(lambda: list(collect_all(self._graph, meta)))
                write = self._rewrite(owner, everything, self._went_back[0], self._begun)
            self._parts, self._rows_in_parts = [], 0
        self._writing = asyncio.create_task(write)
        return True

    async def settled(self) -> None:
        """Wait until no write is under way; cancelled, it leaves the write alone."""
        if self._writing is not None:
            await asyncio.wait({self._writing})

    async def written(self) -> None:
        """Wait for the write under way. Raises FencedError."""
        if self._writing is not None:
            task, self._writing = self._writing, None
            await task

    def check(self) -> None:
        """Raise what a write in the background ended with. Raises FencedError."""
        if self._writing is not None and self._writing.done():
            task, self._writing = self._writing, None
            task.result()

    async def abandon(self) -> None:
        """Drop a write that still waits for the store: recovery finds out what it did."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
            self._writing = None

    async def _write(self, owner: Owner, parts: list[StoreChanges], begun: float, *, gently: bool) -> None:
        """Repeat the same payload until its outcome is known: the store refuses it when it is already there."""
        with self._step(Step.STORE):
            changes = await asyncio.to_thread(merged, parts)
            try:
                await self._insist(lambda: self._store.commit(owner, changes, gently=gently))
            except StoreConflictError as conflict:
                stored = conflict.stored
                if stored != owner:
                    if stored is not None and (
                        stored.token != owner.token or stored.sequence >= owner.sequence
                    ):
                        raise FencedError(f"the store belongs to {stored.token}") from conflict
                    log.warning("store_went_back", message="the store went back in time", stored=str(stored))
                    self._went_back = (stored,)
                    return
        await self._done(owner, changes.meta, begun)

    async def _rewrite(
        self, owner: Owner, everything: list[StoreChanges], over: Owner | None, begun: float
    ) -> None:
        """The store lost what it had acknowledged: write the whole graph beside the rest, then switch."""
        with self._step(Step.STORE):
            try:
                await self._insist(lambda: self._store.rewrite(owner, over, everything))
            except StoreConflictError as conflict:
                if conflict.stored != owner:
                    raise FencedError(f"the store is at {conflict.stored}") from conflict
        self._went_back = None
        await self._done(owner, everything[-1].meta, begun)

    async def _insist(self, write: Callable[[], None]) -> None:
        pause = RETRY_FIRST
        while True:
            try:
                await asyncio.to_thread(write)
            except StoreUnavailableError as error:
                log.warning("store_unavailable", message=f"the store does not answer: {error}")
                await asyncio.sleep(pause)
                pause = min(2 * pause, RETRY_LONGEST)
            else:
                return

    async def _done(self, owner: Owner, meta: Meta, begun: float) -> None:
        self.owner = owner
        self._stored(time.monotonic() - begun)
        await asyncio.to_thread(return_free_memory)
        with self._step(Step.GROUP):
            await self._commit_group(meta.event_offsets)

    @contextlib.contextmanager
    def _step(self, step: Step) -> Iterator[None]:
        self._report(step, "before")
        yield
        self._report(step, "after")
