"""The stream: embeddings, tombstones and progress, inside the transactions of one fenced writer."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..log import partition_of
from ..log.interface import LogError, Message, UnknownTopicError
from ..log.limits import limits_of, single_batch_bytes
from ..schemas.embeddings import encode_embeddings
from ..schemas.ids import MAX_ID_BYTES
from ..schemas.predictions import encode_predictions
from ..schemas.progress import Progress, encode_progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ..log.interface import Log, TransactionalWriter
    from ..schemas.events import Encoding

LONGEST_NUMBER = -1.17549435e-38  # as JSON it has as many characters as any float32
LAST_MOMENT = 2**63 - 1


class Answer(Protocol):
    """What one version of a head made of some vectors."""

    @property
    def outputs(self) -> NDArray[np.float32]:
        """[k, out]."""

    @property
    def name(self) -> str:
        """Of the head."""

    @property
    def digest(self) -> str:
        """Of the version."""


class Head(Protocol):
    """A model of vectors, whose versions may be swapped while it is asked."""

    def run(self, x: NDArray[np.float32], /) -> Answer:
        """x [k, F] → [k, out], all by one version."""


class EmbeddingSink:
    """Writes to the embeddings and the progress topic; a transaction is begun when there is something to write.

    With a head, what it makes of the vectors goes to `predictions_topic` in the same transaction.

    The writers take turns: while one commits, which takes up to 40 ms, the next one writes. Its transaction is begun
    just before, with the partitions the last one wrote to, or its first records would wait for the log to learn of them.
    """

    def __init__(
        self,
        writers: Sequence[TransactionalWriter],
        topic: str,
        progress_topic: str,
        encoding: Encoding,
        predictions_topic: str | None = None,
    ) -> None:
        self.output_offsets: dict[int, int] = {}
        self.head: Head | None = None
        self._writers = deque(writers)  # the first is the one that writes now
        self._topic, self._progress_topic = topic, progress_topic
        self._predictions_topic = predictions_topic
        self._encoding: Encoding = encoding
        self._partitions: dict[str, int] = {}
        self._open = False
        self._written: set[tuple[str, int]] = set()  # in the open transaction
        self._beginning = asyncio.Lock()

    async def start(self) -> None:
        """Learn the number of partitions. Raises UnknownTopicError."""
        for writer in self._writers:
            for topic in (self._topic, self._progress_topic, self._predictions_topic):
                if topic is not None:
                    self._partitions[topic] = await writer.partitions(topic)

    async def publish(
        self, ids: Sequence[str], vectors: NDArray[np.float32], tombstones: Sequence[str], sequence: int
    ) -> None:
        """Write vectors [k, F] and tombstones and wait for their acknowledgement.

        A node that is in both has come back: its vector stands last.
        """
        now = int(time.time() * 1000)
        values = encode_embeddings(ids, vectors, sequence, now, self._encoding)
        self.output_offsets |= await self._write(self._topic, ids, values, tombstones)
        await self.predict(ids, vectors, tombstones, sequence)

    async def predict(
        self, ids: Sequence[str], vectors: NDArray[np.float32], tombstones: Sequence[str], sequence: int
    ) -> None:
        """Write what the head makes of vectors [k, F], if there is one; it works in a thread of its own."""
        head, topic = self.head, self._predictions_topic
        if head is None or topic is None:
            return
        answer = await asyncio.to_thread(head.run, vectors)
        now, model = int(time.time() * 1000), (answer.name, answer.digest)
        values = encode_predictions(ids, answer.outputs, model, sequence, now, self._encoding)
        await self._write(topic, ids, values, tombstones)

    async def _write(
        self, topic: str, ids: Sequence[str], values: Sequence[bytes], tombstones: Sequence[str]
    ) -> dict[int, int]:
        """The ends of the partitions, acknowledged."""
        keys = [node.encode() for node in (*tombstones, *ids)]
        messages = list(map(Message, keys, (*(None for _ in tombstones), *values)))
        return {
            partition: await self._append(topic, partition, part)
            for partition, part in _partitioned(messages, self._partitions[topic]).items()
        }

    async def publish_progress(self, progress: Progress) -> None:
        """Write a progress record and wait for its acknowledgement."""
        message = Message(progress.graph.encode(), encode_progress(progress, self._encoding))
        await self._append(self._progress_topic, 0, [message])

    @property
    def open(self) -> bool:
        """Whether a transaction is open: it must be committed in time, also when there is nothing in it."""
        return self._open

    async def commit(self, *, more: bool) -> None:
        """Commit the open transaction, if there is one; what is written meanwhile is in the next one.

        When `more` is to come the next one is begun ahead. Not while something is on its way, nor while another
        commit is.
        """
        if self._open:
            writer, written = self._writers[0], self._written
            self._writers.rotate(-1)
            self._open, self._written = False, set()
            if more and written:
                await self._begun(written)
            await writer.commit()

    async def _append(self, topic: str, partition: int, messages: list[Message]) -> int:
        """The offset after the last message, acknowledged."""
        writer = await self._begun()
        self._written.add((topic, partition))
        return await writer.append(topic, partition, messages)

    async def _begun(self, ahead: Iterable[tuple[str, int]] = ()) -> TransactionalWriter:
        """The writer, in a transaction."""
        async with self._beginning:  # vectors and progress may be the first at the same time
            writer = self._writers[0]
            if not self._open:
                await writer.begin(ahead)
                self._open = True
            return writer


def _partitioned(messages: list[Message], partitions: int) -> dict[int, list[Message]]:
    if partitions == 1:
        return {0: messages} if messages else {}
    parts: dict[int, list[Message]] = {}
    for message in messages:
        parts.setdefault(partition_of(message.key or b"", partitions), []).append(message)
    return parts


async def check_limits(log: Log, topic: str, features: int, encoding: Encoding) -> None:
    """Raise LogError when the topic cannot take a vector of that many features: before the first one is due."""
    info = (await log.describe([topic])).get(topic)
    if info is None:
        raise UnknownTopicError(f"there is no topic {topic!r}: `dgdm topics create`")
    vectors = np.full((1, features), LONGEST_NUMBER, np.float32)
    (value,) = encode_embeddings(["x" * MAX_ID_BYTES], vectors, LAST_MOMENT, LAST_MOMENT, encoding)
    size = single_batch_bytes(Message(b"x" * MAX_ID_BYTES, value))
    most = limits_of(info.partitions, info.config).max_message_bytes
    if size > most:
        way_out = " or choose encoding = msgpack" if encoding == "json" else ""
        raise LogError(
            f"a vector of {features} features takes up to {size} bytes, and max.message.bytes of topic {topic!r} "
            f"is {most}: raise it to {size}{way_out}"
        )
