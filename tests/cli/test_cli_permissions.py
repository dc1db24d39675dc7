"""The permissions that docs/operating.md names are enough for a worker and for the tools beside it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import CreateAclsRequest
from brokers import guarded_broker
from clitools import dgdm, make_topics, up
from processes import stored_meta, until

from dgdm.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

TOPIC, GROUP, TRANSACTIONAL_ID = 2, 3, 5  # Kafka's numbers
READ, WRITE, DESCRIBE, DESCRIBE_CONFIGS = 3, 4, 8, 10
TOPICS = ("dgdm.events", "dgdm.embeddings", "dgdm.progress", "dgdm.dead-letters")
OF_THE_WORKER = [
    (TOPIC, "dgdm.events", READ),
    *((TOPIC, topic, operation) for topic in TOPICS[1:] for operation in (READ, WRITE)),
    *((TRANSACTIONAL_ID, name, DESCRIBE) for name in ("dgdm-default-0", "dgdm-default-1")),
    *((TRANSACTIONAL_ID, name, WRITE) for name in ("dgdm-default-0", "dgdm-default-1")),
    (GROUP, "dgdm-default", READ),
    *((TOPIC, topic, DESCRIBE_CONFIGS) for topic in TOPICS),
]
OF_WHO_SENDS = [(TOPIC, "dgdm.events", WRITE), (TOPIC, "dgdm.progress", READ)]


async def allow(bootstrap: str, user: str, permissions: list[tuple[int, str, int]]) -> None:
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    for kind, name, operation in permissions:
        request = CreateAclsRequest(kind, name, 3, f"User:{user}", "*", operation, 3)  # this very name; allow
        response = await client.send(client.get_random_node(), request)
        assert [code for code, _ in response.creation_responses] == [0]
    await client.close()


def test_the_permissions_of_the_page_are_enough(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stored() -> bool:
        return (meta := await stored_meta(Settings())) is not None and meta.event_sequence == 1

    def be(user: str) -> None:
        monkeypatch.setenv("DGDM_KAFKA_USERNAME", user)
        monkeypatch.setenv("DGDM_KAFKA_PASSWORD", f"{user}-sesame")

    with guarded_broker({"worker": "worker-sesame", "sender": "sender-sesame"}) as (broker, address):
        monkeypatch.setenv("DGDM_LOG", broker.url)
        make_topics()
        asyncio.run(allow(broker.bootstrap, "worker", OF_THE_WORKER))
        asyncio.run(allow(broker.bootstrap, "sender", OF_WHO_SENDS))
        monkeypatch.setenv("DGDM_LOG", address)
        monkeypatch.setenv("DGDM_KAFKA_PROTOCOL", "SASL_PLAINTEXT")
        be("worker")
        with up("--features", "1", "--set", "checkpoint_interval=0.2", command="worker"):
            be("sender")
            event = '{"type": "AddNode", "id": "a", "features": [1]}'
            sent = dgdm("produce", "-", "--wait", input=event)
            assert sent.exit_code == 0, sent.output
            refused = dgdm("tail", "--beginning")
            assert (refused.exit_code, "no permission on the topic: dgdm.embeddings" in refused.stderr) == (
                2,
                True,
            )
            be("worker")
            asyncio.run(until(stored, "a checkpoint, and the group's offsets with it"))
            for command in (
                ["certify"],
                ["doctor"],
                ["doctor", "--ready"],
                ["tail", "--beginning", "--limit", "1"],
            ):
                done = dgdm(*command)
                assert done.exit_code == 0, done.output
