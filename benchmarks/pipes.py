"""A program behind a pipe that answers each line with one."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence


class Answering:
    """One such program."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def answer(self) -> str:
        """The next line that it says. Raises SystemExit when it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args!r} ended with exit code {self._process.wait()}")
        return line

    def seconds(self, command: str) -> float:
        """How long this took it."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return float(self.answer())


@contextlib.contextmanager
def answering(command: Sequence[str]) -> Iterator[Answering]:
    """Start it; it ends when its input does."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Answering(process)
        finally:
            process.kill()
