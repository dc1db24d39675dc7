"""The stream: embeddings, tombstones and progress, inside the transactions of one fenced writer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..log import partition_of
from ..log.interface import Message
from ..schemas.embeddings import encode_embeddings
from ..schemas.progress import Progress, encode_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ..log.interface import TransactionalWriter
    from ..schemas.events import Encoding


class EmbeddingSink:
    """Writes to the embeddings and the progress topic; a transaction is begun when there is something to write."""

    def __init__(
        self, writer: TransactionalWriter, topic: str, progress_topic: str, encoding: Encoding
    ) -> None:
        self.output_offsets: dict[int, int] = {}
        self._writer, self._topic, self._progress_topic = writer, topic, progress_topic
        self._encoding: Encoding = encoding
        self._partitions = 0
        self._open = False

    async def start(self) -> None:
        """Learn the number of partitions. Raises UnknownTopicError."""
        self._partitions = await self._writer.partitions(self._topic)
        await self._writer.partitions(self._progress_topic)

    async def publish(
        self, ids: Sequence[str], vectors: NDArray[np.float32], tombstones: Sequence[str], sequence: int
    ) -> None:
        """Write vectors [k, F] and tombstones and wait for their acknowledgement.

        A node that is in both has come back: its vector stands last.
        """
        by_partition: dict[int, list[Message]] = {}
        for node in tombstones:
            key = node.encode()
            by_partition.setdefault(partition_of(key, self._partitions), []).append(Message(key, None))
        values = encode_embeddings(ids, vectors, sequence, int(time.time() * 1000), self._encoding)
        for node, value in zip(ids, values, strict=True):
            key = node.encode()
            by_partition.setdefault(partition_of(key, self._partitions), []).append(Message(key, value))
        for partition, messages in by_partition.items():
            await self._begin()
            end = await self._writer.append(self._topic, partition, messages)
            self.output_offsets[partition] = end

    async def publish_progress(self, progress: Progress) -> None:
        """Write a progress record and wait for its acknowledgement."""
        await self._begin()
        message = Message(progress.graph.encode(), encode_progress(progress, self._encoding))
        await self._writer.append(self._progress_topic, 0, [message])

    async def commit(self) -> None:
        """Commit the open transaction, if there is one."""
        if self._open:
            self._open = False
            await self._writer.commit()

    async def _begin(self) -> None:
        if not self._open:
            await self._writer.begin()
            self._open = True
