"""Both logs for one test body."""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from brokers import shared_broker

from dgdm.log import Log, open_log
from dgdm.log.sqlite import SqliteLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

T = TypeVar("T")
_numbers = itertools.count()


class Place:
    """A log's address, what the interface does not offer, and a list of things to close."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_kafka = url.startswith("kafka")
        self.closing = contextlib.AsyncExitStack()
        self.log: Log = open_log(url)

    async def started(self, client: T) -> T:
        """Start a reader or writer; it is closed at the end of the test."""
        opened: Any = client
        await opened.start()
        self.closing.push_async_callback(opened.close)
        return client

    async def new_topic(self, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create a topic that no other test uses."""
        name = f"t{os.getpid()}-{next(_numbers)}"
        assert await self.log.create(name, partitions, config or {})
        return name

    async def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """What retention does, at once."""
        if isinstance(self.log, SqliteLog):
            await self.log.delete_records(topic, before)
            return
        async with admin(self.url) as client:
            await client.delete_records(
                {TopicPartition(topic, p): RecordsToDelete(before_offset=o) for p, o in before.items()}
            )

    async def group_offsets(self, group: str, topic: str) -> dict[int, int]:
        """What a lag tool sees."""
        if isinstance(self.log, SqliteLog):
            return await self.log.group_offsets(group, topic)
        async with admin(self.url) as client:
            found = await client.list_consumer_group_offsets(group)
        return {place.partition: value.offset for place, value in found.items() if place.topic == topic}


@contextlib.asynccontextmanager
async def admin(url: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """aiokafka's own admin client: the independent view."""
    client = AIOKafkaAdminClient(bootstrap_servers=url.removeprefix("kafka://"))
    await client.start()
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
def kafka_url() -> str:
    """The shared broker."""
    return shared_broker().url


@pytest.fixture(params=["sqlite", "kafka"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """Either log."""
    url = f"sqlite:///{tmp_path}/log.db" if request.param == "sqlite" else shared_broker().url
    here = Place(url)
    try:
        yield here
    finally:
        await here.closing.aclose()
        await here.log.close()
