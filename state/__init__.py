"""What survives a crash: the graph's rows, vectors and offsets in a store, and the lease on them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from .store import RewriteStep, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .store import GraphStore

_GRAPH = re.compile(r"[A-Za-z0-9._-]{1,128}")


def open_store(
    url: str,
    graph: str,
    *,
    username: str | None = None,
    password: str | None = None,
    cafile: str | None = None,
    certfile: str | None = None,
    keyfile: str | None = None,
    timeout: float = 5.0,
    on_step: Callable[[RewriteStep], None] | None = None,
) -> GraphStore:
    """The store at `url`: redis://, rediss:// (TLS), unix:// or sqlite:///PATH (four slashes: absolute).

    Connects at the first call, so a store that is down is not an error here. `username` and `password` win
    over those of the URL; the files are for rediss:// only; `timeout` (seconds) bounds every single wait.
    Raises StoreError for an address or a name that cannot be used.
    """
    if not _GRAPH.fullmatch(graph):
        raise StoreError(f"graph name {graph[:140]!r}: use 1 to 128 of the characters A-Z a-z 0-9 . _ -")
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "sqlite":
        from .sqlite_store import SqliteStore  # noqa: PLC0415 - only the store in use is imported

        path = unquote(rest.removeprefix("/"))
        if not rest.startswith("/") or not path or path.endswith("/"):
            raise StoreError(
                f"store address {url!r} names no file: write sqlite:///dgdm.db or sqlite:////var/dgdm.db"
            )
        return SqliteStore(Path(path), graph, timeout, on_step)
    if separator and scheme in {"redis", "rediss", "unix"}:
        from .redis_store import RedisStore  # noqa: PLC0415 - the same
        from .redis_wire import RedisAddress, RedisTls  # noqa: PLC0415 - the same

        address = RedisAddress(url, username, password, RedisTls(cafile, certfile, keyfile), timeout)
        return RedisStore(address, graph, on_step)
    raise StoreError(f"store address scheme {scheme[:20]!r}: use redis://, rediss://, unix:// or sqlite:///")
