"""The process that device processes are forked from: `python -m dgdm.tpu.nursery`.

It has imported the runtime and opened no device, so that after a crash the next child is there in milliseconds.
It is the children's parent: it kills, reaps and reports them, and takes them with it when its own parent goes.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
from types import FrameType
from typing import Any

from .child import serve
from .errors import MissingRuntimeError
from .runtime import load_runtime

PR_SET_PDEATHSIG = 1


class Nursery:
    """At most one child; requests come as JSON lines, a child's channel as a file descriptor beside its line."""

    def __init__(self, control: socket.socket, config: dict[str, Any]) -> None:
        self._control = control
        self._config = config
        self._child: int | None = None
        self._buffer = b""
        self._wake, wake = os.pipe()
        os.set_blocking(wake, False)
        self._wake_write = wake
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(wake)

    def run(self) -> None:
        """Until the parent closes its end."""
        while True:
            ready, _, _ = select.select([self._control.fileno(), self._wake], [], [])
            if self._wake in ready:
                os.read(self._wake, 4096)
                self._reap()
            if self._control.fileno() in ready and not self._obey():
                return

    def _obey(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._control, 65_536, 4)
        if not data:
            self._kill()
            return False
        self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            match json.loads(line)["do"]:
                case "start":
                    self._start(fds.pop(0))
                case "kill":
                    self._kill()
        return True

    def _start(self, channel: int) -> None:
        pid = os.fork()
        if pid == 0:
            self._become_child(channel)
        os.close(channel)
        self._child = pid
        self._tell(started=pid)

    def _become_child(self, channel: int) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            _die_with_parent()
            config = self._config
            serve(socket.socket(fileno=channel), config["memory"], config["library"], config["options"])
            code = 0
        finally:
            os._exit(code)

    def _kill(self) -> None:
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)

    def _reap(self) -> None:
        if self._child is None:
            return
        pid, status = os.waitpid(self._child, os.WNOHANG)
        if pid:
            self._child = None
            self._tell(exited=os.waitstatus_to_exitcode(status))

    def _tell(self, **message: Any) -> None:
        with contextlib.suppress(
            BrokenPipeError, ConnectionResetError
        ):  # the parent is gone; `run` will see it
            self._control.sendall(json.dumps(message).encode() + b"\n")


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Having a handler is what makes the wake-up descriptor tell."""


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """`argv[1]` is the configuration: control, memory, library, options."""
    config = json.loads(sys.argv[1])
    control = socket.socket(fileno=config["control"])
    with contextlib.suppress(MissingRuntimeError):  # a child says it again, where it is heard
        load_runtime()
    Nursery(control, config).run()
    os._exit(0)  # a child that the kernel does not let go must not be waited for


if __name__ == "__main__":
    main()
