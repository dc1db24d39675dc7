"""Kafka's records: read in batches, without a group; written in whole batches, in transactions or without."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors

from .interface import (
    Isolation,
    LogError,
    LogUnavailableError,
    Message,
    Record,
    RecordRejectedError,
    unknown_topic,
)
from .kafka_admin import KafkaAdmin
from .kafka_client import CLOSE_TIMEOUT, KafkaConnection, log_error, shut_down, translated, uncut
from .limits import BATCH_OVERHEAD, TopicLimits, check_messages, check_seek, limits_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence

T = TypeVar("T")

METADATA_AGE = 1500  # ms: aiokafka looks a new leader up no sooner when an offset request fails
FETCH_BYTES = 4 << 20  # of one partition; a larger record comes alone
BATCH_BYTES = 512 << 10


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
                await uncut(self._assign(consumer))
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
        # Until the first poll: a fetch at the end of a topic keeps every other question waiting for half a second.
        consumer.pause(*self._places.values())
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
        consumer.resume(*consumer.paused())
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


class KafkaWriter:
    """A writer; with a transactional id, a transactional one."""

    def __init__(
        self, connection: KafkaConnection, transactional_id: str | None = None, timeout: float | None = None
    ) -> None:
        self._connection = connection
        self._id = transactional_id
        self._timeout = timeout
        self._producer: AIOKafkaProducer | None = None
        self._topics: dict[str, TopicLimits] = {}
        self._in_transaction = False
        self._dead: LogError | None = LogError("this writer has not been started")

    async def start(self) -> None:
        """Connect; with a transactional id also fence the predecessor and abort what it left open."""
        transaction = {} if self._timeout is None else {"transaction_timeout_ms": int(self._timeout * 1000)}
        producer = AIOKafkaProducer(
            **self._connection.options,
            **transaction,
            transactional_id=self._id,
            enable_idempotence=True,
            max_batch_size=BATCH_BYTES,
            metadata_max_age_ms=30_000,
        )
        self._producer = producer
        doing = "starting to write" if self._id is None else f"starting transactional id {self._id!r}"
        try:
            async with asyncio.timeout(self._connection.delivery_timeout):
                await uncut(producer.start())
        except errors.KafkaConnectionError:
            await self.close()
            raise await self._connection.diagnose() from None
        except TimeoutError as exc:
            await self.close()
            raise LogUnavailableError(
                f"{doing}: the broker gave no producer id within {self._connection.delivery_timeout:.0f} s "
                "(one broker alone needs transaction.state.log.replication.factor=1 and min.isr=1)"
            ) from exc
        except (errors.KafkaError, AssertionError) as exc:  # aiokafka asserts that a broker is known
            await self.close()
            raise log_error(exc, doing) from exc
        except BaseException:
            await self.close()
            raise
        self._dead = None

    async def close(self) -> None:
        """Abort an open transaction and disconnect, in bounded time; twice and after a failed start is fine.

        What a dead writer left open is aborted by its successor, or by the broker when it times out.
        """
        producer, self._producer = self._producer, None
        if producer is None:
            return
        healthy = self._dead is None
        self._dead = LogError("this writer is closed")
        if healthy and self._in_transaction:
            with suppress(errors.KafkaError, AssertionError, TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await producer.abort_transaction()
        sender, pending = producer._sender, producer._message_accumulator  # noqa: SLF001 - stop() hangs without a broker
        await shut_down(
            producer.stop() if healthy else _mark_closed(producer), [sender, pending], producer.client
        )
        pending.fail_all(errors.ProducerClosed())  # a call that still waits
        for batch in (*chain.from_iterable(pending._batches.values()), *pending._pending_batches):  # noqa: SLF001 - the same
            _seen(batch.future)
            _seen(batch._drain_waiter)  # noqa: SLF001 - nobody waits for a whole batch's
        waiter = producer._txn_manager.wait_for_transaction_end()  # noqa: SLF001 - its error is ours already
        if waiter is not None and waiter.done() and not waiter.cancelled():
            waiter.exception()

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has. Raises UnknownTopicError."""
        async with self._outcome(f"looking up {topic!r}") as producer:
            return (await self._limits(producer, topic)).partitions

    async def append(self, topic: str, partition: int, messages: Sequence[Message]) -> int:
        """Write in order and wait for the acknowledgement: the offset after the last message."""
        async with self._outcome(f"writing to {topic!r}") as producer:
            if self._id is not None and not self._in_transaction:
                raise LogError("append to a transactional writer outside a transaction: call begin first")
            limits = await self._limits(producer, topic)
            try:
                sizes = check_messages(topic, limits, partition, messages)
            except RecordRejectedError:  # unless somebody has raised the limit since
                del self._topics[topic]
                limits = await self._limits(producer, topic)
                sizes = check_messages(topic, limits, partition, messages)
            batches = _split(producer, messages, sizes, limits.max_message_bytes)
            return await self._send(producer, topic, partition, batches)

    async def begin(self, ahead: Iterable[tuple[str, int]] = ()) -> None:
        """Open a transaction; the broker counts its life from its first partition, written to or told `ahead`."""
        async with self._outcome("beginning a transaction") as producer:
            if self._in_transaction:
                raise LogError("a transaction is open already: commit or abort it first")
            await self._in_time(producer.begin_transaction())
            self._in_transaction = True
            for partition in ahead:
                producer._txn_manager.maybe_add_partition_to_txn(TopicPartition(*partition))  # noqa: SLF001 - else with the first record

    async def commit(self) -> None:
        """Commit it. Raises ProducerFencedError, LogUnavailableError (outcome unknown)."""
        async with self._outcome("committing a transaction") as producer:
            self._require_transaction()
            await self._in_time(producer.commit_transaction())
            self._in_transaction = False

    async def abort(self) -> None:
        """Abort it. Raises ProducerFencedError, LogUnavailableError."""
        async with self._outcome("aborting a transaction") as producer:
            self._require_transaction()
            await self._in_time(producer.abort_transaction())
            self._in_transaction = False

    def _require_transaction(self) -> None:
        if not self._in_transaction:
            raise LogError("no transaction is open: call begin first")

    async def _send(
        self, producer: AIOKafkaProducer, topic: str, partition: int, batches: Iterator[Any]
    ) -> int:
        sent, count = [], 0
        for batch in batches:
            future = await self._in_time(producer.send_batch(batch, topic, partition=partition))
            future.add_done_callback(_seen)
            sent.append(future)
            count = batch.record_count()
        for future in sent:
            last = await self._in_time(future)
        if last.offset < 0:
            raise LogUnavailableError(
                f"writing to {topic!r}: the broker has the records but has forgotten where"
            )
        return int(last.offset) + count

    async def _in_time(self, awaitable: Awaitable[T]) -> T:
        """An idempotent producer of aiokafka retries for ever; this is how long we wait."""
        async with asyncio.timeout(self._connection.delivery_timeout):
            return await awaitable

    async def _limits(self, producer: AIOKafkaProducer, topic: str) -> TopicLimits:
        if topic not in self._topics:
            admin = KafkaAdmin(producer.client, self._connection.request_timeout)
            info = (await admin.describe([topic])).get(topic)
            if info is None:
                raise unknown_topic(topic, f"on {self._connection.bootstrap}")
            producer.client.add_topic(topic)
            self._topics[topic] = limits_of(info.partitions, info.config)
        return self._topics[topic]

    @asynccontextmanager
    async def _outcome(self, doing: str) -> AsyncIterator[AIOKafkaProducer]:
        """Refuse when dead; die of all but the interface's own refusals: what was written is unknown then."""
        if self._dead is not None or self._producer is None:
            raise _again(self._dead or LogError("this writer is closed"))
        sender = self._producer._sender.sender_task  # noqa: SLF001 - where a fenced producer keeps its error
        try:
            if sender.done():
                raise errors.ProducerClosed
            yield self._producer
        except LogUnavailableError as exc:
            self._dead = exc
            raise
        except LogError:
            raise
        except asyncio.CancelledError:
            self._dead = LogUnavailableError(f"{doing} was cancelled: what it wrote is unknown")
            raise
        except (
            errors.KafkaError,
            errors.IllegalOperation,
            AssertionError,
            OSError,
        ) as exc:  # aiokafka asserts states
            failed = sender.exception() if sender.done() and not sender.cancelled() else None
            self._dead = log_error(failed or exc, doing)
            raise self._dead from exc


def _split(
    producer: AIOKafkaProducer, messages: Sequence[Message], sizes: Sequence[int], limit: int
) -> Iterator[Any]:
    """Batches in order, none above the topic's limit; timestamps are the moment of writing."""
    room = min(BATCH_BYTES, limit) - BATCH_OVERHEAD
    batch, used = producer.create_batch(), 0
    for (key, value, headers), size in zip(messages, sizes, strict=True):
        if used and used + size > room:
            batch.close()
            yield batch
            batch, used = producer.create_batch(), 0
        batch.append(timestamp=None, key=key, value=value, headers=list(headers))
        used += size
    batch.close()
    yield batch


def _seen(future: asyncio.Future[Any]) -> None:
    """The first failure of several is raised; the others are not to be complained about."""
    if not future.cancelled():
        future.exception()


def _again(error: LogError) -> LogError:
    """A new exception each time: one that is raised again and again grows its traceback."""
    return type(error)(*error.args)


async def _mark_closed(producer: AIOKafkaProducer) -> None:
    producer._closed = True  # noqa: SLF001 - its stop() would wait for what cannot be sent
