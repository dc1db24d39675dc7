"""Kafka only: a broker with passwords and permissions; a SQLite log has the rights of its file."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import CreateAclsRequest
from brokers import Broker, guarded_broker
from logtools import Place, messages, read_to_end, values

from dgdm.log import Log, LogUnavailableError, NotAuthorizedError, open_log
from dgdm.log.security import KafkaSecurity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

TOPIC, GROUP, TRANSACTIONAL_ID = 2, 3, 5  # Kafka's numbers
READ, WRITE, DESCRIBE, DESCRIBE_CONFIGS = 3, 4, 8, 10
LITERAL, ALLOW = 3, 3


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[Broker, str]]:
    """Users with a password and no rights."""
    with guarded_broker({"alice": "open-sesame", "bob": "builder"}) as both:
        yield both


@pytest.fixture
async def place(guarded: tuple[Broker, str]) -> AsyncIterator[Place]:
    """The same broker by its unguarded address."""
    here = Place(guarded[0].url)
    yield here
    await here.close()


def as_user(guarded: tuple[Broker, str], name: str, password: str) -> Log:
    return open_log(guarded[1], KafkaSecurity("SASL_PLAINTEXT", "PLAIN", name, password))


async def allow(broker: Broker, kind: int, name: str, user: str, *operations: int) -> None:
    client = AIOKafkaClient(bootstrap_servers=broker.bootstrap)
    await client.bootstrap()
    for operation in operations:
        request = CreateAclsRequest(kind, name, LITERAL, f"User:{user}", "*", operation, ALLOW)
        response = await client.send(client.get_random_node(), request)
        assert [code for code, _ in response.creation_responses] == [0]
    await client.close()


async def test_a_wrong_password_is_told_everywhere_and_never_shown(
    guarded: tuple[Broker, str], caplog: pytest.LogCaptureFixture
):
    for logger in ("", "aiokafka"):  # a command may have silenced the client in this process
        caplog.set_level(logging.DEBUG, logger)
    log = as_user(guarded, "alice", "wrong-sesame")
    for start in (
        log.reader("t", "read_committed").start,
        log.writer().start,
        log.transactional_writer("id", 10).start,
        lambda: log.describe(["t"]),
    ):
        with pytest.raises(NotAuthorizedError, match="user, password or SASL mechanism") as caught:
            await start()
        assert "sesame" not in str(caught.value)
    right = as_user(guarded, "alice", "open-sesame")
    with pytest.raises(NotAuthorizedError, match="the topic: t"):  # she may log in, and nothing else
        await right.describe(["t"])
    for client in (log, right):
        await client.close()
    assert len(caplog.records) > 10
    assert "sesame" not in caplog.text


async def test_a_mechanism_that_the_broker_does_not_offer(guarded: tuple[Broker, str]):
    log = open_log(guarded[1], KafkaSecurity("SASL_PLAINTEXT", "SCRAM-SHA-256", "alice", "open-sesame"))
    with pytest.raises(NotAuthorizedError, match="mechanism"):
        await log.writer().start()


async def test_no_password_where_one_is_asked_for(guarded: tuple[Broker, str]):
    with pytest.raises(LogUnavailableError, match=r"TLS or a password|not requests"):
        await open_log(guarded[1]).writer().start()


async def test_permissions_on_topic_group_and_transactional_id(guarded: tuple[Broker, str], place: Place):
    broker, _ = guarded
    topic = await place.new_topic()
    seen = await place.new_topic()
    log = as_user(guarded, "bob", "builder")
    place.closing.push_async_callback(log.close)

    with pytest.raises(NotAuthorizedError, match=topic):
        await log.describe([topic])
    with pytest.raises(NotAuthorizedError, match=topic):
        await log.reader(topic, "read_committed").start()
    with pytest.raises(NotAuthorizedError, match="permission"):
        await log.create("mine", 1, {})
    with pytest.raises(NotAuthorizedError, match="the transactional id: id-of-bob"):
        await log.transactional_writer("id-of-bob", 10).start()
    with pytest.raises(NotAuthorizedError, match="group"):
        await log.commit_group_offsets("g", topic, {0: 1})

    await allow(broker, TRANSACTIONAL_ID, "id-of-bob", "bob", WRITE, DESCRIBE)
    await allow(broker, TOPIC, topic, "bob", READ, WRITE)  # both imply DESCRIBE
    await allow(broker, TOPIC, seen, "bob", DESCRIBE)
    await allow(broker, GROUP, "g", "bob", READ)

    info = (await log.describe([topic]))[topic]
    assert (info.partitions, info.config) == (1, {})  # configurations need a permission of their own
    await allow(broker, TOPIC, topic, "bob", DESCRIBE_CONFIGS)
    assert (await log.describe([topic]))[topic].config["cleanup.policy"] == "delete"
    await log.commit_group_offsets("g", topic, {0: 1})

    writer = await place.started(log.transactional_writer("id-of-bob", 10))
    await writer.begin()
    await writer.append(topic, 0, messages("a"))
    await writer.commit()
    reader = await place.started(log.reader(topic, "read_committed"))
    assert values(await read_to_end(reader, {0: 2})) == [b"a"]

    blind = await place.started(log.reader(seen, "read_committed"))
    with pytest.raises(NotAuthorizedError, match=seen):
        await blind.poll(1, 10)
    await writer.begin()
    with pytest.raises(NotAuthorizedError, match=seen):
        await writer.append(seen, 0, messages("a"))
    plain = await place.started(log.writer())
    with pytest.raises(NotAuthorizedError, match=seen):
        await plain.append(seen, 0, messages("a"))
    # Dead: what the broker did with the batch is not known.
    with pytest.raises(NotAuthorizedError, match=seen):
        await plain.append(topic, 0, messages("a"))
