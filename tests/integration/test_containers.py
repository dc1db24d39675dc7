"""A worker process, killed once, against the stock images of Kafka and of two versions of Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.containers import why_no_docker
from processes import WorkerProcess, make_topics, stored_meta, until
from streams import producer, require_truth, some_events
from testcontainers.community.kafka import KafkaContainer
from testcontainers.community.redis import RedisContainer

from dgdm.settings import Settings

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def kafka_url() -> Iterator[str]:
    """A stock broker; one broker cannot hold three replicas, which is Kafka's default for these topics."""
    if reason := why_no_docker():
        pytest.skip(reason)
    container = (
        KafkaContainer("confluentinc/cp-kafka:8.1.1")
        .with_kraft()
        .with_env("KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR", "1")
        .with_env("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1")
        .with_env("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1")
    )
    with container as kafka:
        yield f"kafka://{kafka.get_bootstrap_server()}"


@pytest.fixture(params=["redis:7", "redis:8"])
def settings(request: pytest.FixtureRequest, kafka_url: str) -> Iterator[Settings]:
    """A graph of its own, on the given version of Redis."""
    name = request.param.replace(":", "-")
    container = RedisContainer(request.param).with_command("redis-server --maxmemory-policy noeviction")
    with container as redis:
        host, port = redis.get_container_host_ip(), redis.get_exposed_port(6379)
        yield Settings(
            log=kafka_url,
            store=f"redis://{host}:{port}/0",
            graph=name,
            features=4,
            accuracy=[0.01],
            checkpoint_interval=0.3,
            lease_ttl=1.0,
            events_topic=f"{name}.events",
            embeddings_topic=f"{name}.embeddings",
            progress_topic=f"{name}.progress",
            dead_letters_topic=f"{name}.dead-letters",
        )


async def test_killed_in_the_middle(settings: Settings, tmp_path: Path, seed: int) -> None:
    await make_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            await worker.serves()
            for event in some_events(seed, 1000):
                await events.send(event)
            await events.visible(60)
            await until(lambda: stored_meta(settings), "a checkpoint to come back from")
            for event in some_events(seed + 1, 1000):
                await events.send(event)
            worker.kill()
        for event in some_events(seed + 2, 500):
            await events.send(event)
        with WorkerProcess(settings, tmp_path) as worker:
            await events.visible(60)
            assert await worker.stop() == 0
    await require_truth(settings)
