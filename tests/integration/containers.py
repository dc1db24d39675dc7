"""What the tests with containers share: is there an engine, and ports that stay free while a container is down."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess


def why_no_docker() -> str | None:
    """In words, what is missing; None when the engine answers."""
    if shutil.which("docker") is None:
        return "the docker command is not installed"
    done = subprocess.run(["docker", "version"], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        return f"the docker engine does not answer: {done.stderr.strip()[-200:]}"
    return None


def free_port() -> int:
    """Below the range that Docker and clients draw from."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
