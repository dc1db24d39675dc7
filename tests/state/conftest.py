from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
from stores import RedisProcess, redis_server, store_url

from dgdm.state import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dgdm.state.store import GraphStore

__all__ = ["count_leftovers", "redis_server", "store", "store_url"]


@pytest.fixture
def store(store_url: str) -> Iterator[GraphStore]:
    opened = open_store(store_url, "g")
    yield opened
    opened.close()


def leftovers(store: GraphStore, store_url: str, server: RedisProcess | None) -> int:
    """Key generations or spaces stored beside the one in use."""
    if store_url.startswith("sqlite"):
        with sqlite3.connect(store_url.removeprefix("sqlite:///")) as db:
            spaces = {
                space
                for table in ("features", "raw", "vectors", "arcs", "ids")
                for (space,) in db.execute(f"SELECT DISTINCT space FROM {table}")
            }
            current = {space for (space,) in db.execute("SELECT space FROM graphs")}
        db.close()
        return len(spaces - current)
    assert server is not None
    keys = server.command("KEYS", "{dgdm:g}:*").decode().split("\r\n")
    data = {key.split(":")[2] for key in keys if key.startswith("{") and key.count(":") > 2}
    current_of = server.command("HGET", "{dgdm:g}:meta", "generation").decode().split("\r\n")[1]
    return len(data - {current_of})


@pytest.fixture
def count_leftovers(store_url: str, store: GraphStore, request: pytest.FixtureRequest) -> Callable[[], int]:
    server = None if store_url.startswith("sqlite") else request.getfixturevalue("redis_server")
    return lambda: leftovers(store, store_url, server)
