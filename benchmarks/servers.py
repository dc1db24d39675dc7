"""Real Kafka and real Redis for a benchmark, as processes of this machine."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

KIT = Path(__file__).resolve().parent.parent / "deploy" / "offline" / "kafka"


@contextlib.contextmanager
def kafka() -> Iterator[str]:
    """The address of a broker of one's own."""
    with tempfile.TemporaryDirectory(prefix="dgdm-bench-") as folder:

        def run(*words: str) -> str:
            command = [sys.executable, str(KIT), *words, "--dir", f"{folder}/kafka"]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout

        try:
            yield f"kafka://{run('up').split()[-1]}"
        finally:
            run("down", "--wipe")


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """The address of a Redis of one's own, with AOF."""
    binary = shutil.which("redis-server")
    if binary is None:
        raise SystemExit("redis-server is not installed: apt-get install redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="dgdm-bench-") as folder:
        words = ["--port", str(port), "--dir", folder, "--appendonly", "yes", "--save", ""]
        server = subprocess.Popen([binary, *words], stdout=subprocess.DEVNULL)
        try:
            for _ in range(100):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait()
