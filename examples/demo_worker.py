"""The demo's worker: a child process that can be started, killed with SIGKILL, and stopped."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

KEPT = ("DGDM_KAFKA_", "DGDM_REDIS_")  # credentials pass through; other settings are the demo's own
PATIENCE = 15.0  # seconds a graceful stop may take


class DemoError(Exception):
    """The demo cannot go on; the message says why, and what to do."""


class ChildWorker:
    """`python -m dgdm worker` with its settings in the environment and its log in a file."""

    def __init__(self, settings: Mapping[str, str], log_file: Path) -> None:
        self._settings, self._log_file = settings, log_file
        self._process: subprocess.Popen[bytes] | None = None
        self._expected = False  # whether its end is our doing

    def start(self) -> None:
        """Start it, in a session of its own: Ctrl-C is for the demo, which then stops it."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("DGDM_") or k.startswith(KEPT)}
        root = Path(__file__).parents[2]  # where the package is imported from, when it is not installed
        path = [str(root)] if (root / "dgdm" / "examples").is_dir() else []
        path += kept.get("PYTHONPATH", "").split(os.pathsep)
        environment = kept | {f"DGDM_{name.upper()}": value for name, value in self._settings.items()}
        environment["PYTHONPATH"] = os.pathsep.join(part for part in path if part)
        self._expected = False
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dgdm", "worker"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def kill(self) -> None:
        """SIGKILL: no goodbye, no last checkpoint."""
        assert self._process is not None
        self._expected = True
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    def stop(self) -> None:
        """Stop it and wait; a worker that does not stop in time is killed. May be called twice."""
        if self._process is None:
            return
        self._expected = True
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    async def watch(self) -> None:
        """Raises DemoError when the worker ends on its own."""
        while True:
            process = self._process
            if process is not None and process.poll() is not None and not self._expected:
                raise DemoError(f"the worker ended with exit code {process.returncode}: {self.last_words()}")
            await asyncio.sleep(0.1)

    def last_words(self) -> str:
        """The message of the worker's last log line that has one."""
        lines = self._log_file.read_text(errors="replace").splitlines() if self._log_file.exists() else []
        for line in reversed(lines[-50:]):
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if record.get("level") in ("error", "critical") and "message" in record:
                return str(record["message"])
        return lines[-1] if lines else "it said nothing"
