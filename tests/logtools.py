"""Small helpers for tests that read and write logs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dgdm.log import Message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from dgdm.log import LogReader, Record

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 30.0  # seconds before a test gives up


async def until(condition: Callable[[], Awaitable[object]], what: str) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + PATIENCE
    while not await condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        await asyncio.sleep(0.01)


async def read_to_end(reader: LogReader) -> list[Record]:
    """Everything from the reader's position to the end as of now."""
    ends = await reader.end_offsets()
    found: list[Record] = []
    deadline = time.monotonic() + PATIENCE
    while any(reader.positions()[p] < end for p, end in ends.items()):
        assert time.monotonic() < deadline, f"{reader.positions()} does not reach {ends}"
        found += await reader.poll(5000, 0.2)
    return found


def values(records: Iterable[Record]) -> list[bytes | None]:
    """Values only."""
    return [record.value for record in records]


def messages(*texts: str) -> list[Message]:
    """One message per text, which is key and value."""
    return [Message(text.encode(), text.encode()) for text in texts]


def run_python(program: str, *args: str) -> subprocess.Popen[str]:
    """A process of its own with dgdm importable; its standard output is a pipe."""
    path = os.pathsep.join([str(ROOT / ".path"), str(ROOT / "tests")])
    return subprocess.Popen(
        [sys.executable, "-c", program, *args],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


async def line_of(process: subprocess.Popen[str]) -> str:
    """The next line the process prints; fails the test when it ends instead."""
    assert process.stdout is not None
    line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), PATIENCE)
    assert line, f"the process ended with {process.poll()}"
    return line.strip()


def kill9(process: subprocess.Popen[str]) -> None:
    """SIGKILL, and wait."""
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
