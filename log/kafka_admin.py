"""Questions to a Kafka cluster as single requests: aiokafka's admin client hides errors of single topics."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiokafka import errors
from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.metadata import MetadataRequest

from .interface import LogError, TopicInfo
from .kafka_client import KafkaConnection, log_error, shut_down, uncut

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiokafka.protocol.api import Request

_PAUSE = 0.02  # seconds


class KafkaAdmin:
    """Asks through a client that somebody else opened and closes."""

    def __init__(self, client: AIOKafkaClient, timeout: float) -> None:
        self._client = client
        self._timeout = timeout

    async def partitions(self, topics: Sequence[str]) -> dict[str, int]:
        """Number of partitions of each topic that exists; none is created by asking."""
        request = MetadataRequest(list(topics), allow_auto_topic_creation=False)
        doing = f"looking up {', '.join(topics)}"

        async def ask() -> dict[str, int]:
            found = {}
            response = await self._send(request)
            for code, topic, *_, partitions in response.topics:
                kind = errors.for_code(code)
                if kind is errors.NoError:
                    found[topic] = len(partitions)
                elif kind not in {errors.UnknownTopicOrPartitionError, errors.InvalidTopicError}:
                    raise kind(topic)
            return found

        return await self._persist(ask, doing) if topics else {}

    async def describe(self, topics: Sequence[str]) -> dict[str, TopicInfo]:
        """Partitions and configuration; the configuration is empty where this user may not see it."""
        partitions = await self.partitions(topics)
        resources = [(ConfigResourceType.TOPIC, topic, None) for topic in partitions]

        async def ask() -> dict[str, TopicInfo]:
            found = {}
            response = await self._send(DescribeConfigsRequest(resources))
            for code, _, _, topic, entries in response.resources:
                kind = errors.for_code(code)
                if kind is errors.UnknownTopicOrPartitionError:  # deleted a moment ago
                    continue
                if kind not in {errors.NoError, errors.TopicAuthorizationFailedError}:
                    raise kind(topic)
                config = {name: value for name, value, *_ in entries if value is not None}
                found[topic] = TopicInfo(topic, partitions[topic], config)
            return found

        return await self._persist(ask, f"describing {', '.join(topics)}") if partitions else {}

    async def create(self, topic: str, partitions: int, config: Mapping[str, str]) -> bool:
        """False when it exists already. Replicated as the broker's default says."""
        milliseconds = int(self._timeout * 1000)
        wanted: tuple[Any, ...] = (topic, partitions, -1, [], list(config.items()))

        async def ask() -> bool:
            ((_, code, message),) = (
                await self._send(CreateTopicsRequest([wanted], timeout=milliseconds, validate_only=False))
            ).topic_errors
            kind = errors.for_code(code)
            if kind is errors.TopicAlreadyExistsError:
                return False
            if kind is errors.InvalidConfigurationError or kind is errors.PolicyViolationError:
                raise LogError(f"creating topic {topic!r}: the broker refuses it: {message}")
            if kind is not errors.NoError:
                raise kind(topic)
            return True

        created: bool = await self._persist(ask, f"creating topic {topic!r}")
        if created:
            await self._until_known(topic)
        return created

    async def _until_known(self, topic: str) -> None:
        """Brokers learn of a new topic one after the other."""

        async def ask() -> None:
            if topic not in await self.partitions([topic]):
                raise errors.LeaderNotAvailableError(topic)  # retriable

        await self._persist(ask, f"waiting for the new topic {topic!r}")

    async def commit_offsets(self, group: str, topic: str, offsets: Mapping[int, int]) -> None:
        """Outside any group membership, as kafka-consumer-groups --reset-offsets does."""

        async def ask() -> None:
            coordinator = await self._send(FindCoordinatorRequest(group, 0))
            _raise(coordinator.error_code, group)
            rows = [(partition, offset, "") for partition, offset in offsets.items()]
            request = OffsetCommitRequest(group, -1, "", -1, [(topic, rows)])
            response = await self._send(request, coordinator.coordinator_id)
            for _, partitions in response.topics:
                for _, code in partitions:
                    _raise(
                        code,
                        topic if errors.for_code(code) is errors.TopicAuthorizationFailedError else group,
                    )

        await self._persist(ask, f"committing the offsets of group {group!r}")

    async def _send(self, request: Request[Any], node: int | None = None) -> Any:
        node = self._client.get_random_node() if node is None else node
        if node is None:  # a broker that comes back names none, itself not either: ask again
            await self._client.force_metadata_update()
            raise errors.NodeNotReadyError("no broker is known")  # retriable
        return await self._client.send(node, request)

    async def _persist(self, ask: Any, doing: str) -> Any:
        """Repeat while the answer is one that a moment may change, as long as a request may take."""
        last: BaseException | None = None
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    try:
                        return await ask()
                    except errors.KafkaError as exc:
                        if not exc.retriable:
                            raise
                        last = exc
                    await asyncio.sleep(_PAUSE)
        except (errors.KafkaError, OSError, TimeoutError) as exc:
            raise log_error(last if isinstance(exc, TimeoutError) and last else exc, doing) from exc


def _raise(code: int, name: str) -> None:
    kind = errors.for_code(code)
    if kind is not errors.NoError:
        raise kind(name)


async def open_client(connection: KafkaConnection) -> AIOKafkaClient:
    """A client that has found the cluster. Raises LogUnavailableError, NotAuthorizedError."""
    client = AIOKafkaClient(**connection.options)
    try:
        await uncut(client.bootstrap())
    except errors.KafkaConnectionError:
        raise await connection.diagnose() from None
    except BaseException:
        await close_client(client)
        raise
    return client


async def close_client(client: AIOKafkaClient) -> None:
    """Within a bound, whatever the broker does."""
    await shut_down(client.close(), [], client)
