"""`dgdm doctor`: each finding, with the fault it is about."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from away import Away
from brokers import shared_broker
from processes import WorkerProcess, environment_of, make_topics, settings_of, until
from stores import free_port, running_redis
from streams import producer, send_slowly, some_events
from typer.testing import CliRunner

from dgdm.cli import app
from dgdm.connections import connect_log
from dgdm.settings import Settings

pytestmark = pytest.mark.timeout(240)


async def doctor(settings: Settings) -> tuple[int, dict[str, tuple[bool, str]]]:
    """Exit code, and (well, message) of each thing looked at."""
    done = await asyncio.to_thread(
        CliRunner().invoke, app, ["doctor", "--json"], env=environment_of(settings)
    )
    findings = json.loads(done.output)
    return done.exit_code, {found["what"]: (found["ok"], found["message"]) for found in findings}


async def ready(settings: Settings) -> tuple[int, str]:
    """Exit code and word of `--ready`."""
    done = await asyncio.to_thread(
        CliRunner().invoke, app, ["doctor", "--ready"], env=environment_of(settings)
    )
    return done.exit_code, done.output


async def finds(settings: Settings, what: str, *words: str) -> None:
    """This and nothing else is wrong, but for the worker that does not run."""
    code, findings = await doctor(settings)
    assert code == 1
    assert not findings[what][0], findings
    for word in words:
        assert word in findings[what][1]
    assert {name for name, (well, _) in findings.items() if not well} <= {what, "worker"}


async def test_before_a_worker_and_while_it_serves_and_pauses(away: Away, tmp_path: Path) -> None:
    settings = away.settings.model_copy(update={"dirty_rows": 40, "lease_ttl": 1.0})
    await finds(settings, "log", f"topic {settings.events_topic} does not exist", "dgdm topics create")
    await make_topics(settings)
    await finds(settings, "worker", f"no worker holds graph '{settings.graph}'", "dgdm worker")
    code, findings = await doctor(settings)
    assert findings["store"] == (True, "empty")
    assert findings["progress"] == (True, "nothing published yet")
    assert (await ready(settings))[0] == 1
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            await events.add_node("a", [1, 0, 0, 0])
            await events.add_edge("a", "b")
            await events.visible(60)

            async def well() -> bool:
                code, findings = await doctor(settings)
                return code == 0 and "2 nodes, 2 arcs, sequence 2" in findings["store"][1]

            await until(well, "all is well and stored")
            code, findings = await doctor(settings)
            assert findings["progress"][1].startswith("sequence 2, 2 nodes, bound 0.00")
            assert findings["worker"] == (True, f"{settings.graph}: serving")
            assert await ready(settings) == (0, "serving\n")
            away.go()
            await send_slowly(events, some_events(1, 300))
            await worker.says("state", "now paused")
            code, output = await ready(settings)
            assert code != 0
            if settings.store.startswith("sqlite"):  # its lease lies in another file
                await until(lambda: is_paused(settings), "the lease says that it is paused")
            else:
                assert "does not answer" in output
                await finds_no_store(settings)
            away.come()
            await events.visible(60)
            assert await worker.stop() == 0
    assert (await ready(settings))[0] == 1


async def is_paused(settings: Settings) -> bool:
    return await ready(settings) == (1, "paused\n")


async def finds_no_store(settings: Settings) -> None:
    """Neither the store nor who holds the lease."""
    code, findings = await doctor(settings)
    assert code == 1
    assert {name for name, (well, _) in findings.items() if not well} == {"store", "worker"}
    assert "does not answer" in findings["store"][1]


async def test_topics_that_are_not_as_they_should_be(settings: Settings) -> None:
    await make_topics(settings)
    log = connect_log(settings)
    small, deleted = f"{settings.graph}.small", f"{settings.graph}.deleted"
    await log.create(small, 1, {"cleanup.policy": "compact", "max.message.bytes": "400"})
    await log.create(deleted, 1, {"cleanup.policy": "delete"})
    await log.close()
    await finds(settings.model_copy(update={"embeddings_topic": small}), "log", small, "400", "raise it")
    await finds(
        settings.model_copy(update={"embeddings_topic": deleted}), "log", deleted, "cleanup.policy=delete"
    )


async def test_topics_of_another_graph(settings: Settings, tmp_path: Path) -> None:
    await make_topics(settings)
    with WorkerProcess(settings, tmp_path) as worker:
        assert await worker.stop() == 0
    other = settings.model_copy(update={"graph": f"{settings.graph}-2"})
    await finds(other, "progress", settings.graph, other.graph, settings.progress_topic)


@pytest.mark.integration
async def test_servers_that_are_not_as_they_should_be() -> None:
    with running_redis("--requirepass", "open-sesame", "--maxmemory-policy", "allkeys-lru") as redis:
        right = redis.tcp_url.replace("//", "//:open-sesame@")
        settings = settings_of(shared_broker().url, right)
        await make_topics(settings)
        await finds(settings, "store", "allkeys-lru", "noeviction")
        for store, word in ((right.replace("open", "wrong"), "password"), (redis.tcp_url, "Authentication")):
            code, findings = await doctor(settings.model_copy(update={"store": store}))
            assert code == 1
            assert not findings["store"][0]
            assert word in findings["store"][1]
            assert "sesame" not in str(findings)
        nobody = settings.model_copy(update={"log": f"kafka://127.0.0.1:{free_port()}"})
        code, findings = await doctor(nobody)
        assert code == 1
        assert not findings["log"][0]
        assert "Connection refused" in findings["log"][1]
    with running_redis("--appendonly", "no") as redis:
        code, findings = await doctor(settings.model_copy(update={"store": redis.tcp_url}))
        assert findings["store"][0], "a snapshot is enough for a worker that can replay"
        assert "appendonly yes" in findings["store"][1]
