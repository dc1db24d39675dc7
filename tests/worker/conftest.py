"""Both pairs of log and store for one test body."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from away import Away
from brokers import shared_broker
from processes import settings_of
from stores import running_redis

from dgdm.settings import Settings


@pytest.fixture(scope="session")
def redis_url() -> Any:
    """A real Redis for all worker tests."""
    with running_redis() as server:
        yield server.url


@pytest.fixture(params=["sqlite", pytest.param("kafka-redis", marks=pytest.mark.integration)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of a graph of its own, on each pair."""
    if request.param == "sqlite":
        return settings_of(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db")
    return settings_of(shared_broker().url, request.getfixturevalue("redis_url"))


@pytest.fixture
def away(settings: Settings) -> Iterator[Away]:
    """A store that can be taken away."""
    with contextlib.ExitStack() as stack:
        yield Away(settings, stack)
