"""Both pairs of log and store for one test body."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from brokers import shared_broker
from stores import running_redis

from dgdm.settings import Settings

_numbers = itertools.count()


@pytest.fixture(scope="session")
def redis_url() -> Any:
    """A real Redis for all worker tests."""
    with running_redis() as server:
        yield server.url


@pytest.fixture(params=["sqlite", pytest.param("kafka-redis", marks=pytest.mark.integration)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of a graph of its own, quick to take over and to checkpoint."""
    name = f"g{os.getpid()}-{next(_numbers)}"
    if request.param == "sqlite":
        log, store = f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db"
    else:
        log, store = shared_broker().url, request.getfixturevalue("redis_url")
    return Settings(
        log=log,
        store=store,
        graph=name,
        features=4,
        accuracy=[0.01],
        checkpoint_interval=0.3,
        lease_ttl=0.3,
        events_topic=f"{name}.events",
        embeddings_topic=f"{name}.embeddings",
        progress_topic=f"{name}.progress",
        dead_letters_topic=f"{name}.dead-letters",
    )
