"""A real Kafka as a local process, by the offline kit's `kafka` script: for every test that needs a broker.

`shared_broker()` is the one that well-behaved tests share. A test that kills or reconfigures takes its own:
`with own_broker(prop=…) as broker`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parent.parent
REQUIRED = os.environ.get("DGDM_REQUIRE_INTEGRATION", "") not in ("", "0")


def kit() -> Path:
    """The kit's `kafka` script. Skips the test in words, or fails it when integration tests are required."""
    offline = os.environ.get("DGDM_OFFLINE")
    for folder in (Path(offline) if offline else None, ROOT / "deploy" / "offline"):
        if folder is not None and (folder / "kafka").is_file():
            if shutil.which("java") is None:
                _cannot("Kafka needs Java on the PATH (deploy/offline/up installs it)")
            return folder / "kafka"
    _cannot("no Kafka: neither deploy/offline/kafka nor $DGDM_OFFLINE/kafka is there")
    raise AssertionError


def _cannot(reason: str) -> None:
    if REQUIRED:
        pytest.fail(f"DGDM_REQUIRE_INTEGRATION=1, but {reason}")
    pytest.skip(reason)


class Broker:
    """One Kafka node; same ports and data through kill and start."""

    def __init__(self, folder: Path, prop: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._kit = kit()
        props = [f"--prop={name}={value}" for name, value in (prop or {}).items()]
        self.bootstrap = self._run("up", *props).strip()

    @property
    def url(self) -> str:
        """Address for `open_log`."""
        return f"kafka://{self.bootstrap}"

    @property
    def folder(self) -> Path:
        """Of its files."""
        return self._folder

    def kill9(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._run("kill9", "1")

    def start(self) -> None:
        """Start again; returns when it is ready."""
        self._run("start", "1")

    def pause(self) -> None:
        """SIGSTOP: connections stay, answers do not come."""
        self._run("pause", "1")

    def resume(self) -> None:
        """SIGCONT."""
        self._run("resume", "1")

    def down(self) -> None:
        """Kill it and remove its folder."""
        if self._folder.exists():
            self._run("down", "--wipe")

    def _run(self, command: str, *args: str) -> str:
        done = subprocess.run(
            [sys.executable, str(self._kit), command, *args, "--dir", str(self._folder)],
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        if done.returncode:
            raise RuntimeError(f"kafka {command}: {done.stderr or done.stdout}")
        return done.stdout


@functools.cache
def shared_broker() -> Broker:
    """One broker per test process, taken down at its end. Make topics with names of your own; do not kill it."""
    folder = Path(tempfile.mkdtemp(prefix="dgdm-kafka-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # runs last
    broker = Broker(folder / "cluster")
    atexit.register(broker.down)
    return broker


@contextlib.contextmanager
def own_broker(prop: Mapping[str, str] | None = None) -> Iterator[Broker]:
    """A broker that the test may kill, freeze and configure."""
    with tempfile.TemporaryDirectory(prefix="dgdm-kafka-") as folder:
        broker = Broker(Path(folder) / "cluster", prop)
        try:
            yield broker
        finally:
            broker.down()


@contextlib.contextmanager
def guarded_broker(users: Mapping[str, str]) -> Iterator[tuple[Broker, str]]:
    """(broker, address that asks for SASL PLAIN): `users` have no rights yet; the broker's own address has all."""
    guarded, plain, controller = free_ports(3)
    accounts = " ".join(f'user_{name}="{password}"' for name, password in users.items())
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    names = f"PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{guarded}"
    prop = {
        "listeners": f"{names},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": names,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT"
        ),
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": f"{module} required {accounts};",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    with own_broker(prop) as broker:
        broker.bootstrap = f"127.0.0.1:{plain}"
        yield broker, f"kafka://127.0.0.1:{guarded}"


def free_ports(count: int) -> list[int]:
    """Ports below the range that clients are given, so that nobody takes them while a broker is down."""
    found: list[int] = []
    for port in range(20000 + os.getpid() % 5000, 32000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                continue
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")
