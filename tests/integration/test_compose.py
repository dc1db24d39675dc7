"""The project's own docker-compose.yml: up, events from the host, a certificate, a killed worker, a certificate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from integration.containers import free_port, why_no_docker
from streams import producer, some_events

from dgdm.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
# The first build fetches the dependencies and compiles the kernels.
pytestmark = pytest.mark.timeout(900)

Compose = Callable[..., str]


def _run(command: list[str], environment: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env={**os.environ, **environment}
    )
    assert done.returncode == 0, (
        f"{command}: exit {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    )
    return done.stdout


@pytest.fixture
def ports() -> dict[str, str]:
    """Ports of the host for the three services, all different."""
    names = ("KAFKA_PORT", "REDIS_PORT", "METRICS_PORT")
    numbers: set[int] = set()
    while len(numbers) < len(names):
        numbers.add(free_port())
    return dict(zip(names, map(str, numbers), strict=True))


@pytest.fixture
def compose(ports: dict[str, str]) -> Iterator[Compose]:
    """`docker compose ARGUMENTS` for a project of its own, gone with its volumes afterwards."""
    if reason := why_no_docker():
        pytest.skip(reason)
    project = ["docker", "compose", "-p", f"dgdm-test-{uuid.uuid4().hex[:8]}"]

    def call(*arguments: str) -> str:
        return _run([*project, *arguments], {**ports, "DGDM_FEATURES": "4"}, ROOT)

    try:
        yield call
    finally:
        call("down", "-v", "--remove-orphans", "-t", "5")


def certified(settings: Settings, folder: Path) -> int:
    """What `dgdm certify` says on the host: the promise holds; how many nodes it checked."""
    environment = {
        "DGDM_LOG": settings.log,
        "DGDM_STORE": settings.store,
        "DGDM_FEATURES": str(settings.features),
        "PYTHONPATH": f"{ROOT}/.path",
    }
    said = json.loads(_run([sys.executable, "-m", "dgdm", "certify", "--json"], environment, folder))
    assert said["holds"] is True, said
    assert not said["missing"], said
    assert not said["extra"], said
    return int(said["nodes"])


async def test_certificate_before_and_after_a_kill(
    compose: Compose, ports: dict[str, str], tmp_path: Path, seed: int
) -> None:
    settings = Settings(
        log=f"kafka://127.0.0.1:{ports['KAFKA_PORT']}",
        store=f"redis://127.0.0.1:{ports['REDIS_PORT']}/0",
        features=4,
    )
    compose("up", "-d", "--build", "--wait")
    async with producer(settings) as events:
        for event in some_events(seed, 1000):
            await events.send(event)
        await events.visible(60)
        assert certified(settings, tmp_path) > 0
        for event in some_events(seed + 1, 1000):
            await events.send(event)
        compose("kill", "-s", "KILL", "worker")
        for event in some_events(seed + 2, 500):
            await events.send(event)
        compose("up", "-d", "--wait")
        await events.visible(60)
    assert certified(settings, tmp_path) > 0
