"""GraphProducer: how programs write graph events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from ..consumers.progress import follow_progress
from ..log import open_log, partition_of
from ..log.interface import Log, Message
from ..schemas.events import (
    AddEdge,
    AddNode,
    Encoding,
    GraphEvent,
    RemoveEdge,
    RemoveNode,
    SetFeatures,
    encode_event,
    event_key,
)
from ..schemas.ids import parse_id

if TYPE_CHECKING:
    from types import TracebackType

    from ..log.security import KafkaSecurity

Id = str | int


class GraphProducer:
    """Writes events with the right keys, in batches, in order, each once.

    Events wait in a bounded queue: when it is full, the methods wait. What is wrong with an event is said at
    once (InvalidEvent); what is wrong with the log is said by the next call, by `flush` and on leaving.

        async with GraphProducer("kafka://localhost:9092") as producer:
            await producer.add_edge("alice", "bob", weight=2.0)
            await producer.visible()
    """

    def __init__(
        self,
        log: str | Log,
        topic: str = "dgdm.events",
        *,
        progress_topic: str = "dgdm.progress",
        graph: str = "default",
        security: KafkaSecurity | None = None,
        encoding: Encoding = "msgpack",
        batch: int = 5_000,
        linger: float = 0.005,
    ) -> None:
        self._own_log = isinstance(log, str)
        self._log: Log = open_log(log, security) if isinstance(log, str) else log
        self._topic, self._progress_topic, self._graph = topic, progress_topic, graph
        self._encoding: Encoding = encoding
        self._batch, self._linger = batch, linger
        self._writer = self._log.writer()
        self._queue: asyncio.Queue[Message] = asyncio.Queue(4 * batch)
        self._sending: asyncio.Task[None] | None = None
        self._partitions = 1
        self.offsets: dict[int, int] = {}  # after the last acknowledged event, by partition

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self.flush()
        finally:
            await self.close()

    async def start(self) -> None:
        """Connect. Raises LogError."""
        await self._writer.start()
        self._partitions = await self._writer.partitions(self._topic)
        self._sending = asyncio.create_task(self._send())

    async def close(self) -> None:
        """Disconnect; what was not flushed may be lost."""
        if self._sending is not None:
            self._sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._sending
        await self._writer.close()
        if self._own_log:
            await self._log.close()

    async def add_node(self, node: Id, features: Sequence[float] | Any = None) -> None:
        """A node with features [F], zeros by default."""
        await self.send(AddNode(parse_id(_plain(node)), features))

    async def set_features(self, node: Id, features: Sequence[float] | Any) -> None:
        """New features [F] of a node."""
        await self.send(SetFeatures(parse_id(_plain(node)), features))

    async def remove_node(self, node: Id) -> None:
        """Remove a node and its edges."""
        await self.send(RemoveNode(parse_id(_plain(node))))

    async def add_edge(
        self, source: Id, target: Id, weight: float = 1.0, op: Literal["set", "add"] = "set"
    ) -> None:
        """Set the weight of an edge, or add to it."""
        await self.send(AddEdge(parse_id(_plain(source)), parse_id(_plain(target)), weight, op))

    async def remove_edge(self, source: Id, target: Id) -> None:
        """Remove an edge."""
        await self.send(RemoveEdge(parse_id(_plain(source)), parse_id(_plain(target))))

    async def send(self, event: GraphEvent) -> None:
        """Any event. Raises InvalidEvent; waits while the queue is full."""
        self._raise_failure()
        message = Message(event_key(event), encode_event(event, self._encoding))
        while self._queue.full():
            await asyncio.sleep(self._linger)
            self._raise_failure()
        self._queue.put_nowait(message)

    async def flush(self) -> dict[int, int]:
        """Wait until everything sent is acknowledged: the offsets after it, by partition. Raises LogError."""
        if self._sending is None:
            raise RuntimeError("the producer is not started: use `async with`, or await start()")
        waiting = asyncio.create_task(self._queue.join())
        await asyncio.wait({waiting, self._sending}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
        self._raise_failure()
        return dict(self.offsets)

    async def visible(self, timeout: float = 30.0) -> None:  # noqa: ASYNC109 - the user's patience
        """Wait until the embeddings topic reflects everything sent. Raises TimeoutError, LogError."""
        wanted = await self.flush()
        try:
            async with asyncio.timeout(timeout):
                async for progress in follow_progress(self._log, self._progress_topic, self._graph):
                    if all(progress.event_offsets.get(p, 0) >= end for p, end in wanted.items()):
                        return
        except TimeoutError:
            raise TimeoutError(
                f"no progress record of graph {self._graph!r} reached offsets {wanted} in {timeout:g} s: is its "
                "worker running (`dgdm doctor`)?"
            ) from None

    async def _send(self) -> None:
        while True:
            messages = [await self._queue.get()]
            if self._queue.qsize() < self._batch:
                await asyncio.sleep(self._linger)
            while len(messages) < self._batch and not self._queue.empty():
                messages.append(self._queue.get_nowait())
            for partition, part in self._by_partition(messages).items():
                self.offsets[partition] = await self._writer.append(self._topic, partition, part)
            for _ in messages:
                self._queue.task_done()

    def _by_partition(self, messages: list[Message]) -> dict[int, list[Message]]:
        if self._partitions == 1:
            return {0: messages}
        parts: dict[int, list[Message]] = {}
        for message in messages:
            parts.setdefault(partition_of(message.key or b"", self._partitions), []).append(message)
        return parts

    def _raise_failure(self) -> None:
        if self._sending is not None and self._sending.done():
            self._sending.result()


def _plain(node: Any) -> Any:
    """NumPy's integers are integers."""
    return node.item() if hasattr(node, "item") else node
