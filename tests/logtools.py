"""Small helpers for tests that read and write logs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from dgdm.log import Log, Message, open_log
from dgdm.log.sqlite import SqliteLog
from dgdm.log.sqlite_file import create_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from dgdm.log import LogReader, Record

T = TypeVar("T")
_numbers = itertools.count()

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 30.0  # seconds before a test gives up


async def until(condition: Callable[[], Awaitable[object]], what: str) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + PATIENCE
    while not await condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        await asyncio.sleep(0.01)


async def read_to_end(reader: LogReader, to: Mapping[int, int] | None = None) -> list[Record]:
    """Everything from the reader's position to the end as of now, or to these offsets.

    After the end of a transaction name the offsets: Kafka writes its markers a moment after the writer's call
    has returned, and until then the end under read_committed stands before it.
    """
    ends = to or await reader.end_offsets()
    found: list[Record] = []
    deadline = time.monotonic() + PATIENCE
    while any(reader.positions()[p] < end for p, end in ends.items()):
        assert time.monotonic() < deadline, f"{reader.positions()} does not reach {ends}"
        found += await reader.poll(5000, 0.02)
    return found


def values(records: Iterable[Record]) -> list[bytes | None]:
    """Values only."""
    return [record.value for record in records]


def messages(*texts: str) -> list[Message]:
    """One message per text, which is key and value."""
    return [Message(text.encode(), text.encode()) for text in texts]


def run_python(program: str, *args: str) -> subprocess.Popen[str]:
    """A process of its own with dgdm importable; its standard output is a pipe."""
    path = os.pathsep.join([str(ROOT / ".path"), str(ROOT / "tests")])
    return subprocess.Popen(
        [sys.executable, "-c", program, *args],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


async def line_of(process: subprocess.Popen[str]) -> str:
    """The next line the process prints; fails the test when it ends instead."""
    assert process.stdout is not None
    line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), PATIENCE)
    assert line, f"the process ended with {process.poll()}"
    return line.strip()


def kill9(process: subprocess.Popen[str]) -> None:
    """SIGKILL, and wait."""
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


class Place:
    """A log's address, what the interface does not offer, and a list of things to close."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_kafka = url.startswith("kafka")
        self.closing = contextlib.AsyncExitStack()
        self.log: Log = open_log(url)
        if isinstance(self.log, SqliteLog):
            create_file(Path(url.removeprefix("sqlite:///")))  # a broker is there before its topics

    async def close(self) -> None:
        """Close what was started, then the log."""
        await self.closing.aclose()
        await self.log.close()

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
