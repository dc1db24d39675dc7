"""Reading Kafka: all partitions of a topic assigned, no group, in batches."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition, errors

from .interface import Isolation, LogError, LogUnavailableError, Record, unknown_topic
from .kafka_admin import KafkaAdmin
from .kafka_client import KafkaConnection, shut_down, translated
from .limits import check_seek

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

METADATA_AGE = 1500  # ms: aiokafka looks a new leader up no sooner when an offset request fails
FETCH_BYTES = 4 << 20  # of one partition; a larger record comes alone


class KafkaReader:
    """All partitions of one topic."""

    def __init__(self, connection: KafkaConnection, topic: str, isolation: Isolation) -> None:
        self.topic = topic
        self._isolation = isolation
        self._connection = connection
        self._consumer: AIOKafkaConsumer | None = None
        self._places: dict[int, TopicPartition] = {}
        self._positions: dict[int, int] = {}
        self._heard: dict[int, tuple[int | None, float]] = {}
        self._looked = 0.0

    async def start(self) -> None:
        """Connect. Raises UnknownTopicError, NotAuthorizedError, LogUnavailableError."""
        consumer = AIOKafkaConsumer(
            **self._connection.options,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=self._isolation,
            metadata_max_age_ms=METADATA_AGE,
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        self._consumer = consumer
        try:
            with translated(f"starting to read {self.topic!r}"):
                await self._assign(consumer)
        except BaseException:
            await self.close()
            raise

    async def _assign(self, consumer: AIOKafkaConsumer) -> None:
        try:
            await consumer.start()
        except errors.KafkaConnectionError:
            raise await self._connection.diagnose() from None
        count = await self._partition_count(consumer)
        self._places = {number: TopicPartition(self.topic, number) for number in range(count)}
        consumer.assign(list(self._places.values()))
        self.seek(await self.beginning_offsets())
        self._looked = time.monotonic()

    async def _partition_count(self, consumer: AIOKafkaConsumer) -> int:
        admin = KafkaAdmin(consumer._client, self._connection.request_timeout)  # noqa: SLF001 - not offered in public
        count = (await admin.partitions([self.topic])).get(self.topic)
        if count is None:
            raise unknown_topic(self.topic, f"on {self._connection.bootstrap}")
        return count

    async def close(self) -> None:
        """Disconnect within a bound; may be called twice and after a failed start."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            owners = [consumer, consumer._fetcher, consumer._coordinator]  # noqa: SLF001 - they hold its tasks
            owners = [owner for owner in owners if owner is not None]
            await shut_down(consumer.stop(), owners, consumer._client)  # noqa: SLF001 - the same

    @property
    def partitions(self) -> Sequence[int]:
        """Partition numbers, ascending."""
        return sorted(self._places)

    def seek(self, positions: Mapping[int, int]) -> None:
        """Next offsets to read, by partition."""
        check_seek(self.topic, self._places, positions)
        for number, offset in positions.items():
            self._started.seek(self._places[number], offset)
            self._positions[number] = offset

    def positions(self) -> dict[int, int]:
        """Next offsets to read, past transaction markers."""
        return dict(self._positions)

    async def poll(self, max_records: int, timeout: float) -> list[Record]:  # noqa: ASYNC109 - the interface's name
        """Records in offset order within each partition; [] when none came within `timeout` seconds.

        Raises OffsetOutOfRangeError, NotAuthorizedError, UnknownTopicError; LogUnavailableError when nobody
        has answered for a while (the `silence` of the log).
        """
        consumer = self._started
        if time.monotonic() - self._looked > 1.0:  # the last answers may be old because nobody has asked
            self._heard.clear()
        with translated(f"reading {self.topic!r}"):
            fetched = await consumer.getmany(timeout_ms=int(timeout * 1000), max_records=max_records)
            for number, place in self._places.items():
                self._positions[number] = await consumer.position(place)
        self._looked = time.monotonic()
        if fetched:
            self._heard.clear()
            return [
                Record(partition, r.offset, r.timestamp, r.key, r.value, _headers(r.headers))
                for (_, partition), batch in fetched.items()
                for r in batch
            ]
        await asyncio.sleep(0)  # with timeout 0 nothing above lets the fetcher run
        await self._check_silence(consumer)
        return []

    async def _check_silence(self, consumer: AIOKafkaConsumer) -> None:
        """An idle topic is answered twice a second; aiokafka says nothing when the answers stop."""
        for number, place in self._places.items():
            answer = consumer.last_poll_timestamp(place)
            last, since = self._heard.get(number, (answer, self._looked))
            if answer != last or number not in self._heard:
                self._heard[number] = (answer, self._looked)
            elif self._looked - since > self._connection.silence:
                await self._partition_count(consumer)  # UnknownTopicError, when it was deleted
                raise LogUnavailableError(
                    f"partition {number} of {self.topic!r} has not answered for {self._looked - since:.0f} s"
                )

    def known_ends(self) -> dict[int, int]:
        """Ends as of the last answers; where there was none yet, the position."""
        consumer = self._started
        ends = {}
        for number, place in self._places.items():
            committed = consumer.last_stable_offset(place) if self._isolation == "read_committed" else None
            end = consumer.highwater(place) if committed is None or committed < 0 else committed
            ends[number] = max(end or 0, self._positions[number])
        return ends

    async def beginning_offsets(self) -> dict[int, int]:
        """First offsets the log still holds."""
        with translated(f"looking up the first offsets of {self.topic!r}"):
            found = await self._started.beginning_offsets(list(self._places.values()))
        return {place.partition: offset for place, offset in found.items()}

    async def end_offsets(self) -> dict[int, int]:
        """Ends under the reader's isolation: with read_committed aiokafka asks for the last stable offset."""
        with translated(f"looking up the end of {self.topic!r}"):
            found = await self._started.end_offsets(list(self._places.values()))
        return {place.partition: offset for place, offset in found.items()}

    @property
    def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise LogError(f"the reader of {self.topic!r} is not started, or closed")
        return self._consumer


def _headers(headers: Sequence[tuple[str, bytes | None]]) -> Sequence[tuple[str, bytes]]:
    return tuple((name, value or b"") for name, value in headers) if headers else ()
