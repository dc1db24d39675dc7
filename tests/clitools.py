"""The command line for tests: in this process, and as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.testing import CliRunner, Result

from dgdm.cli import _create, app
from dgdm.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent


def commands(group: Any = None, path: str = "") -> dict[str, Any]:
    """Every command that the help shows, by its path."""
    group = group or typer.main.get_command(app)
    found = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, f"{name} ")
        elif not command.hidden:
            found[path + name] = command
    return found


def make_topics() -> None:
    """Those of the default graph, in the log of this folder."""
    asyncio.run(_create(Settings(), 1))


def dgdm(*args: str, **options: Any) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, list(args), prog_name="dgdm", **options)


def process(*args: str, **options: Any) -> subprocess.Popen[str]:
    """Run a command as its users do; all three streams are pipes unless told otherwise."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    env = {**os.environ, "PYTHONPATH": str(ROOT / ".path"), "NO_COLOR": "1", **options.pop("env", {})}
    return subprocess.Popen([sys.executable, "-m", "dgdm", *args], text=True, env=env, **pipes | options)


def ended(running: subprocess.Popen[str], says: str | None = None) -> tuple[int, str, str]:
    """Exit code, standard output and standard error, when it has ended."""
    out, err = running.communicate(says, timeout=240)
    return running.returncode, out, err


@contextlib.contextmanager
def running(*args: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A command that does not outlive its test."""
    with process(*args, **options) as started:
        try:
            yield started
        finally:
            started.kill()


@contextlib.contextmanager
def up(*args: str, command: str = "up") -> Iterator[subprocess.Popen[str]]:
    """Everything in this folder, serving; with a checkpoint only when it stops, unless told otherwise."""
    seldom = ["--set", "lease_ttl=0.3", "--set", "checkpoint_interval=600"]
    with running(command, *seldom, *args, env={"DGDM_LOG_FORMAT": "json"}) as worker:
        assert worker.stderr is not None
        said = ""
        while '"state": "serving"' not in said:
            said = worker.stderr.readline()
            assert said, f"ended with {worker.poll()}"
        yield worker
