"""What a worker does not start with: exit code 2, and a sentence that names the values and the way out."""

from __future__ import annotations

import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import CreateAclsRequest
from brokers import Broker, guarded_broker, shared_broker
from processes import WorkerProcess, make_topics, settings_of
from stores import running_redis
from streams import producer, require_truth, some_events
from typer.testing import CliRunner

from dgdm.cli import app
from dgdm.connections import connect_log
from dgdm.log.interface import Message
from dgdm.settings import Settings

pytestmark = pytest.mark.timeout(240)


async def refuses(settings: Settings, folder: Path, *words: str) -> None:
    with WorkerProcess(settings, folder) as worker:
        assert await worker.ended() == 2
        (line,) = worker.said("refused")
        for word in words:
            assert word in line["message"], line["message"]
        assert "sesame" not in worker.log.read_text()


async def run(settings: Settings, folder: Path, seed: int) -> None:
    """100 more events, applied and stored."""
    async with producer(settings) as events:
        for event in some_events(seed, 100):
            await events.send(event)
        with WorkerProcess(settings, folder) as worker:
            await events.visible(60)
            assert await worker.stop() == 0
    await require_truth(settings)


async def topic(settings: Settings, name: str, partitions: int = 1, **config: str) -> str:
    """A topic of this name beside the others; in `config` an underscore stands for a dot."""
    log = connect_log(settings)
    full = f"{settings.graph}.{name}"
    assert await log.create(full, partitions, {key.replace("_", "."): value for key, value in config.items()})
    await log.close()
    return full


async def filled(settings: Settings, name: str, count: int) -> str:
    """Another events topic, with other events."""
    full = await topic(settings, name, cleanup_policy="delete")
    async with producer(settings.model_copy(update={"events_topic": full})) as events:
        for event in some_events(77, count):
            await events.send(event)
    return full


async def test_topics_and_settings_that_do_not_fit_the_stored_graph(
    settings: Settings, tmp_path: Path
) -> None:
    await make_topics(settings)
    await run(settings, tmp_path, 1)
    flag = "accept_lost_history"
    events, embeddings = settings.events_topic, settings.embeddings_topic
    longer, shorter = await filled(settings, "longer", 150), await filled(settings, "shorter", 10)
    two = await topic(settings, "two", 2, cleanup_policy="delete")
    compacted = await topic(settings, "compacted", cleanup_policy="compact")
    deleted = await topic(settings, "deleted", cleanup_policy="delete")
    small = await topic(settings, "small", cleanup_policy="compact", max_message_bytes="400")
    cases: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        ({"events_topic": longer}, ("record at offset 99", longer, "created again", flag)),
        ({"events_topic": shorter}, ("offset 100", shorter, "0 to 10", flag)),
        ({"events_topic": two}, ("partitions = 2", "has 1")),
        ({"events_topic": f"{events}.no"}, (f"{events}.no does not exist", "dgdm topics create")),
        ({"events_topic": compacted}, (compacted, "cleanup.policy=compact, not delete")),
        ({"embeddings_topic": deleted}, (deleted, "cleanup.policy=delete, not compact")),
        ({"embeddings_topic": small}, ("4 features", "max.message.bytes", small, "400")),
        ({"graph": f"{settings.graph}-2"}, (settings.graph, f"{settings.graph}-2", settings.progress_topic)),
        ({"features": 5}, ("features = 5", "has 4")),
        ({"directed": True}, ("directed = True", "has False")),
    ]
    for changes, words in cases:
        await refuses(settings.model_copy(update=changes), tmp_path, *words)

    # An output that is not what was written is no reason: everything is published again.
    for name, records in (("empty", 0), ("other", 10)):
        changes = {"embeddings_topic": await topic(settings, name, cleanup_policy="compact")}
        settings = settings.model_copy(update=changes)
        if records:
            log = connect_log(settings)
            writer = log.writer()
            await writer.start()
            await writer.append(settings.embeddings_topic, 0, [Message(b"stranger", None)] * records)
            await writer.close()
            await log.close()
        await run(settings, tmp_path, 2 + records)
    assert settings.embeddings_topic != embeddings

    # These may change.
    for number, changes in enumerate(({"alpha": 0.4}, {"accuracy": [0.001]}, {"offset": [0.5]})):
        settings = settings.model_copy(update=changes)
        await run(settings, tmp_path, 20 + number)


async def test_direction_and_aggregate_are_frozen(settings: Settings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"directed": True})
    await make_topics(settings)
    with WorkerProcess(settings, tmp_path) as worker:
        assert await worker.stop() == 0
    await refuses(settings.model_copy(update={"aggregate": "out"}), tmp_path, "aggregate = 'out'", "has 'in'")
    await refuses(settings.model_copy(update={"directed": False}), tmp_path, "directed = False", "has True")


def test_a_mistake_in_the_settings_shows_no_secret(tmp_path: Path) -> None:
    (tmp_path / "dgdm.toml").write_text("kafka_passwort = 'open-sesame'\n")
    secret = {"DGDM_KAFKA_PASSWORD": "open-sesame", "DGDM_STORE": "redis://:open-sesame@localhost/0"}
    for mistake, words in (
        ({"DGDM_FEATURES": "4", "DGDM_ACCURACY": "0.1,0.2"}, "accuracy has 2 columns"),
        ({"DGDM_FEATURES": "-4"}, "features = '-4' (from DGDM_FEATURES)"),
        ({"DGDM_CONFIG": str(tmp_path / "dgdm.toml")}, "kafka_passwort"),
    ):
        done = CliRunner().invoke(app, ["worker"], env=secret | mistake)
        assert done.exit_code == 2
        assert words in done.output.replace("\n", " ")
        assert "sesame" not in done.output


async def test_a_port_that_is_taken(settings: Settings, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        taken.listen()
        await refuses(settings.model_copy(update={"metrics_port": port}), tmp_path, f"metrics_port = {port}")


async def test_a_store_of_another_format(tmp_path: Path) -> None:
    settings = settings_of(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db")
    await make_topics(settings)
    await run(settings, tmp_path, 1)
    with sqlite3.connect(tmp_path / "store.db") as db:
        db.execute("UPDATE graphs SET format = 99")
    db.close()
    await refuses(settings, tmp_path, "format 99", "reads format 1", "drop the graph")


@pytest.mark.integration
async def test_a_redis_that_will_not_do(tmp_path: Path) -> None:
    with running_redis("--requirepass", "open-sesame") as redis:
        right = redis.tcp_url.replace("//", "//:open-sesame@")
        settings = settings_of(shared_broker().url, right)
        await make_topics(settings)
        await run(settings, tmp_path, 1)
        wrong = settings.model_copy(update={"store": right.replace("open", "wrong")})
        await refuses(wrong, tmp_path, "password", str(redis.port))
        await refuses(settings.model_copy(update={"store": redis.tcp_url}), tmp_path, str(redis.port))
        with redis_client.Redis.from_url(right) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
            await refuses(settings, tmp_path, "allkeys-lru", "maxmemory-policy noeviction")
            client.config_set("maxmemory-policy", "noeviction")
            key = f"{{dgdm:{settings.graph}}}:meta"
            client.hset(key, "format", "99")
            await refuses(settings, tmp_path, "format 99", "reads format 1", "drop the graph")
            client.hset(key, "format", "1")
        await run(settings, tmp_path, 2)


TOPIC, TRANSACTIONAL_ID = 2, 5  # Kafka's numbers
READ, WRITE = 3, 4  # both imply DESCRIBE
LITERAL, ALLOW = 3, 3


async def allow(broker: Broker, kind: int, name: str, operation: int) -> None:
    client = AIOKafkaClient(bootstrap_servers=broker.bootstrap)
    await client.bootstrap()
    request = CreateAclsRequest(kind, name, LITERAL, "User:worker", "*", operation, ALLOW)
    response = await client.send(client.get_random_node(), request)
    assert [code for code, _ in response.creation_responses] == [0]
    await client.close()


@pytest.mark.integration
async def test_permissions_one_after_the_other(redis_url: str, tmp_path: Path) -> None:
    """Each missing right is named; those that docs/operating.md lists are enough, and none is too many."""
    with guarded_broker({"worker": "open-sesame"}) as (broker, address):
        plain = settings_of(broker.url, redis_url)
        await make_topics(plain)
        async with producer(plain) as events:
            for event in some_events(1, 100):
                await events.send(event)
            await events.add_node("bad", [1])

        def secured(password: str) -> Settings:
            login = {"kafka_protocol": "SASL_PLAINTEXT", "kafka_username": "worker"}
            given = plain.model_dump(exclude_unset=True) | login
            return Settings(**(given | {"log": address, "kafka_password": password}))

        await refuses(secured("wrong-sesame"), tmp_path, "user, password or SASL mechanism")
        settings = secured("open-sesame")
        for kind, name, operation in (
            (TOPIC, plain.dead_letters_topic, WRITE),
            (TOPIC, plain.progress_topic, READ),
            (TOPIC, plain.embeddings_topic, READ),
            (TOPIC, plain.events_topic, READ),
            (TRANSACTIONAL_ID, f"dgdm-{plain.graph}-0", WRITE),
            (TRANSACTIONAL_ID, f"dgdm-{plain.graph}-1", WRITE),
            (TOPIC, plain.embeddings_topic, WRITE),
            (TOPIC, plain.progress_topic, WRITE),
        ):
            what = "the topic" if kind == TOPIC else "the transactional id"
            await refuses(settings, tmp_path, f"no permission on {what}")
            await allow(broker, kind, name, operation)
        async with producer(plain) as events:
            await events.add_node("last", [1, 1, 1, 1])
            with WorkerProcess(settings, tmp_path) as worker:
                await events.visible(60)
                assert await worker.stop() == 0
                assert "the consumer group" in (await worker.says("group_offsets"))["message"]
        await require_truth(plain)
