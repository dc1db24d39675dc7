"""A process that has imported everything and warmed the kernels up, and forks into each worker of a test.

A worker is a process of its own, and a real SIGKILL kills it: only its two seconds of importing are spared.
`start_worker` is the test's side. On the other side each line of standard input orders a worker, and each line of
standard output tells of one: {"pid"} when it is there, {"pid", "code"} when it has ended.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import queue
import runpy
import select
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Forked:
    """A process forked from the template: what of `subprocess.Popen` the tests use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ending: Future[int] = Future()

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self.ending.result() if self.ending.done() else None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, −N for death by signal N. Raises TimeoutError."""
        return self.ending.result(timeout)

    def send_signal(self, number: int) -> None:
        """To a process that has ended: nothing."""
        if self.poll() is None:
            os.kill(self.pid, number)


class Template:
    """The test's side."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}/.path"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        self._born: queue.Queue[Forked | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def fork(self, command: list[str], environment: dict[str, str], folder: Path, log: Path) -> Forked:
        """A worker (`["worker"]`) or another program (`[SCRIPT, …]`), both outputs going to `log`."""
        order = {"command": command, "environment": environment, "folder": str(folder), "log": str(log)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        born = self._born.get(timeout=200)  # the first time kernels are compiled
        assert born is not None, "the template has died"
        return born

    def close(self) -> None:
        """End it, and what it forked."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._listener.join()
        self._process.stdout.close()

    def _listen(self) -> None:
        living: dict[int, Forked] = {}
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "code" in told:
                living.pop(told["pid"]).ending.set_result(told["code"])
            else:
                living[told["pid"]] = Forked(told["pid"])
                self._born.put(living[told["pid"]])
        self._born.put(None)


@functools.cache
def shared_template() -> Template:
    """One per test process, ended with it."""
    template = Template()
    atexit.register(template.close)
    return template


def serve() -> dict[str, Any]:
    """Fork on order until standard input ends; returns in each child, with its order."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    children: set[int] = set()
    orders = b""
    while True:
        ready, _, _ = select.select([0, reader], [], [])
        if reader in ready:
            os.read(reader, 4096)
            tell_of_the_dead(children)
        if 0 in ready:
            read = os.read(0, 1 << 16)
            if not read:
                for pid in children:
                    os.kill(pid, signal.SIGKILL)
                os._exit(0)
            *lines, orders = (orders + read).split(b"\n")
            for line in lines:
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    return dict(json.loads(line))
                children.add(pid)
                tell(pid=pid)


def tell_of_the_dead(children: set[int]) -> None:
    """Exit codes as subprocess gives them."""
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            children.remove(pid)
            tell(pid=pid, code=os.waitstatus_to_exitcode(status))


def tell(**what: int) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def become(order: dict[str, Any]) -> None:
    """What the interpreter would be after starting this program."""
    log, nothing = (
        os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        os.open(os.devnull, os.O_RDONLY),
    )
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    program, *arguments = order["command"]
    if program == "worker":
        sys.argv = ["dgdm", "worker"]
        cli.main()
    else:
        sys.argv = [program, *arguments]
        sys.path.insert(0, str(Path(program).parent))
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    from dgdm import cli
    from dgdm.state.warming import warm_up

    for name in ("dgdm.worker", "dgdm.log.kafka", "dgdm.state.redis_store"):
        importlib.import_module(name)
    for directed in (False, True):
        warm_up(directed)
    gc.freeze()  # else each child copies all this memory, page by page, for its collector to look at when it ends
    become(serve())
