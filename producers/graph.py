"""GraphProducer: how programs write graph events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec
import numpy as np

from ..consumers.progress import ProgressFollower, reached
from ..log import open_log
from ..log.interface import Log, LogError, Message
from ..log.limits import TopicLimits, check_messages, limits_of
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
from ..schemas.reasons import InvalidEvent, Reason, shortened
from .outbox import Outbox

if TYPE_CHECKING:
    from types import TracebackType

    from ..log.security import KafkaSecurity
    from ..schemas.progress import Progress

logger = logging.getLogger("dgdm.producers")

Id = str | int
SMALL = 1_024  # bytes: a value shorter than the topic's limit by this fits with its key and all else


class GraphProducer:
    """Writes events with the right keys, in batches, in the order of the calls, each once.

        async with GraphProducer("kafka://localhost:9092") as producer:
            await producer.add_edge("alice", "bob", weight=2.0)
            await producer.visible()

    Events wait in a bounded queue and are written by a task of its own: when the queue is full, the methods wait.
    What is wrong with an event is said at once (InvalidEvent, or RecordRejectedError when it is too large for the
    topic), and the producer goes on. What is wrong with the log is said by the next call, by `flush` and by
    `close`, and ends the producer: what of the last `flush` on was written is unknown then.
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
        """`batch` is the most events written at once, `linger` how many seconds a lone event waits for others."""
        if batch < 1 or linger < 0:
            raise ValueError(f"batch={batch} is at least 1 and linger={linger} at least 0")
        self._own_log = isinstance(log, str)
        self._log: Log = open_log(log, security) if isinstance(log, str) else log
        self._topic, self._graph = topic, graph
        self._encoding: Encoding = encoding
        self._limits: TopicLimits | None = None
        self._writer = self._log.writer()
        self._outbox = Outbox(self._writer, topic, batch=batch, linger=linger)
        self._follower = ProgressFollower(self._log, progress_topic, graph)
        self._closed = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.close()
        elif issubclass(kind, Exception):
            try:
                await self.close()
            except LogError as problem:  # the body's own error is the one to be seen
                logger.warning("%s", problem, extra={"event": "producer_failed"})
        else:  # cancelled, or the program ends
            await self._disconnect()

    @property
    def offsets(self) -> dict[int, int]:
        """Offsets after the last acknowledged event, by partition."""
        return dict(self._outbox.offsets)

    async def start(self) -> None:
        """Connect. Raises LogError."""
        try:
            await self._writer.start()
            info = (await self._log.describe([self._topic])).get(self._topic)
            if info is not None:
                self._limits = limits_of(info.partitions, info.config)
            await self._outbox.start()
        except BaseException:
            await self._disconnect()
            raise

    async def close(self) -> None:
        """Write what waits, then disconnect; may be called twice. Raises LogError."""
        if self._closed:
            return
        try:
            if self._outbox.accepted:
                await self._outbox.flush()
        finally:
            await self._disconnect()

    async def add_node(self, node: Id, features: Sequence[float] | Any = None) -> None:
        """A node with features [F], zeros by default; of a node that is there the features are set."""
        await self.send(AddNode(node, features))  # type: ignore[arg-type]

    async def set_features(self, node: Id, features: Sequence[float] | Any) -> None:
        """New features [F] of a node."""
        await self.send(SetFeatures(node, features))  # type: ignore[arg-type]

    async def remove_node(self, node: Id) -> None:
        """Remove a node and its edges."""
        await self.send(RemoveNode(node))  # type: ignore[arg-type]

    async def add_edge(
        self, source: Id, target: Id, weight: float = 1.0, op: Literal["set", "add"] = "set"
    ) -> None:
        """Set the weight of an edge, or add to it."""
        await self.send(AddEdge(source, target, weight, op))  # type: ignore[arg-type]

    async def remove_edge(self, source: Id, target: Id) -> None:
        """Remove an edge."""
        await self.send(RemoveEdge(source, target))  # type: ignore[arg-type]

    async def send(self, event: GraphEvent) -> None:
        """Any event. Raises InvalidEvent, LogError; waits while the queue is full."""
        event = _plain(event)
        value = encode_event(event, self._encoding)
        message = Message(event_key(event), value)
        if self._limits is not None and len(value) + SMALL > self._limits.max_message_bytes:
            check_messages(self._topic, self._limits, 0, [message])
        await self._outbox.put(message)

    async def flush(self) -> dict[int, int]:
        """Wait until everything sent is acknowledged: the offsets after it, by partition. Raises LogError."""
        return await self._outbox.flush()

    async def visible(self, timeout: float = 30.0) -> None:  # noqa: ASYNC109 - the user's patience
        """Wait until the embeddings topic reflects everything sent, for those who read it uncommitted.

        An event that the worker refuses counts as reflected: it is in the dead letters. Raises TimeoutError, LogError.
        """
        wanted: dict[int, int] | None = None
        try:
            async with asyncio.timeout(timeout):
                wanted = ends = await self.flush()
                if wanted:
                    self._follower.start()
                    await self._follower.wait_until(lambda progress: reached(progress.event_offsets, ends))
        except TimeoutError:
            raise TimeoutError(self._why_not(wanted, timeout)) from None

    def _why_not(self, wanted: dict[int, int] | None, seconds: float) -> str:
        if wanted is None:
            waiting = self._outbox.accepted - self._outbox.acknowledged
            return f"the log has not acknowledged {waiting} events in {seconds:g} s"
        latest: Progress | None = self._follower.latest
        if latest is None:
            problem = f" ({self._follower.problem})" if self._follower.problem else ""
            return (
                f"{self._follower.topic} has no record of graph {self._graph!r} after {seconds:g} s{problem}: "
                "is its worker running (`dgdm doctor`)?"
            )
        return (
            f"after {seconds:g} s the worker of graph {self._graph!r} is at event offsets {latest.event_offsets}, "
            f"these events end at {wanted}: it is behind, or stopped (`dgdm doctor`)"
        )

    async def _disconnect(self) -> None:
        self._closed = True
        await self._outbox.close()
        await self._follower.close()
        try:
            await self._writer.close()
        finally:
            if self._own_log:
                await self._log.close()


def _plain(event: GraphEvent) -> GraphEvent:
    """NumPy's scalars become Python's, foreign arrays become NumPy's; `encode_event` judges the rest."""
    if not isinstance(event, GraphEvent):
        raise InvalidEvent(Reason.WRONG_TYPE, f"{shortened(event)} is no graph event")
    changed: dict[str, Any] = {}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if isinstance(value, np.generic):
            changed[name] = value.item()
        elif name == "features" and not isinstance(value, np.ndarray) and hasattr(value, "__array__"):
            changed[name] = np.asarray(value)
    return msgspec.structs.replace(event, **changed) if changed else event
