"""Real Kafka and real Redis for a benchmark, as processes of this machine."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

KIT = Path(__file__).resolve().parent.parent / "deploy" / "offline" / "kafka"


class Server(NamedTuple):
    """One that runs."""

    url: str
    pid: int


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def kafka() -> Iterator[Server]:
    """A broker of one's own, with Java's full just-in-time compiler, as in production."""
    with tempfile.TemporaryDirectory(prefix="dgdm-bench-") as folder:

        def run(*words: str) -> str:
            command = [sys.executable, str(KIT), *words, "--dir", f"{folder}/kafka"]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout

        try:
            address = run("up", "--bench").split()[-1]
            yield Server(f"kafka://{address}", int(json.loads(run("status"))["1"]["pid"]))
        finally:
            run("down", "--wipe")


@contextlib.contextmanager
def redis() -> Iterator[Server]:
    """A Redis of one's own, with AOF."""
    binary = shutil.which("redis-server")
    if binary is None:
        raise SystemExit("redis-server is not installed: apt-get install redis-server")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="dgdm-bench-") as folder:
        words = ["--port", str(port), "--dir", folder, "--appendonly", "yes", "--save", ""]
        server = subprocess.Popen([binary, *words], stdout=subprocess.DEVNULL)
        try:
            for _ in range(100):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.05)
            yield Server(f"redis://127.0.0.1:{port}/0", server.pid)
        finally:
            server.terminate()
            server.wait()
