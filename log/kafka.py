"""The log on a Kafka cluster, by aiokafka."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .kafka_admin import KafkaAdmin, close_client, open_client
from .kafka_client import KafkaConnection
from .kafka_records import KafkaReader, KafkaWriter
from .limits import check_new_topic
from .security import KafkaSecurity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiokafka.client import AIOKafkaClient

    from .interface import Isolation, TopicInfo


class KafkaLog:
    """A Kafka cluster. Times in seconds: one request, one write with its retries, a reader's patience."""

    def __init__(
        self,
        bootstrap: str,
        security: KafkaSecurity | None = None,
        *,
        request_timeout: float = 10.0,
        delivery_timeout: float = 30.0,
        silence: float = 5.0,
    ) -> None:
        self._connection = KafkaConnection(
            bootstrap, security or KafkaSecurity(), request_timeout, delivery_timeout, silence
        )
        self._client: AIOKafkaClient | None = None
        self._opening = asyncio.Lock()

    def reader(self, topic: str, isolation: Isolation) -> KafkaReader:
        """A reader, not started."""
        return KafkaReader(self._connection, topic, isolation)

    def writer(self) -> KafkaWriter:
        """An idempotent writer, not started."""
        return KafkaWriter(self._connection)

    def transactional_writer(self, transactional_id: str, timeout: float) -> KafkaWriter:
        """A transactional writer, not started; `timeout` seconds is the longest life of one transaction."""
        return KafkaWriter(self._connection, transactional_id, timeout)

    async def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """What is known of each topic that exists; no configuration where this user may not see it."""
        return await (await self._admin()).describe(topics)

    async def create(self, topic: str, partitions: int, config: Mapping[str, str]) -> bool:
        """Create the topic with the broker's replication factor; False when it exists already."""
        check_new_topic(topic, partitions)
        return await (await self._admin()).create(topic, partitions, config)

    async def commit_group_offsets(self, group: str, topic: str, offsets: Mapping[int, int]) -> None:
        """Record how far a group has read: for lag tools only."""
        await (await self._admin()).commit_offsets(group, topic, offsets)

    async def close(self) -> None:
        """Disconnect; readers and writers are closed by those who started them."""
        client, self._client = self._client, None
        if client is not None:
            await close_client(client)

    async def _admin(self) -> KafkaAdmin:
        async with self._opening:
            if self._client is None:
                self._client = await open_client(self._connection)
        return KafkaAdmin(self._client, self._connection.request_timeout)
