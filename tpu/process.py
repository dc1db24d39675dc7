"""One device's process as its parent sees it: start, load, run, kill. Every wait has an end."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from .arena import Arena, layout
from .errors import DeviceFaultError, FaultKind
from .model import Raw, TensorSpec

LIBRARY: Final = "libedgetpu.1.dylib" if sys.platform == "darwin" else "libedgetpu.so.1"
"""The delegate's usual name."""
KILL_TIMEOUT = 5.0
"""Seconds until a killed process must be gone; one that waits in the kernel for a sick device may not be."""
NOISE = 1 << 20
"""Bytes of the library's own words that are kept."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What a device's process is started with. Times in seconds."""

    library: str | None  # of the delegate; None runs plain files on the CPU
    options: Mapping[str, str] = field(default_factory=dict)  # of the delegate
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 1.0  # the watchdog: for an answer of the device
    start_timeout: float = 30.0  # for the process, and for opening the device (a sick one takes 12 s)


class LoadedModel(NamedTuple):
    """What the process has made of a file."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class DeviceProcess:
    """Not for several threads at once. A fault ends the child; `start` brings the next one up."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._arena = Arena()
        self._errors = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - lives as long as this object
        self._nursery: subprocess.Popen[bytes] | None = None
        self._control = _Lines()
        self._channel = _Lines()
        self._models: dict[str, LoadedModel] = {}
        self._id = 0
        self.pid: int | None = None

    def start(self, *keep: int) -> None:
        """A fresh child in the place of what was there, with the device open.

        `keep` are descriptors that it holds as long as it lives: the lock. Raises DeviceFaultError.
        """
        self.kill()
        until = time.monotonic() + self._launch.start_timeout
        if self._nursery is None or self._nursery.poll() is not None:
            self._open_nursery(keep)
        os.ftruncate(self._errors.fileno(), 0)
        self._models.clear()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._control.send({"do": "start"}, theirs.fileno())
            told = self._control.receive(until)
        except (OSError, _ClosedError, TimeoutError) as error:
            ours.close()
            self._close_nursery()
            raise DeviceFaultError(FaultKind.START, f"no process: {error}") from None
        self._channel.open(ours)
        self.pid = told["started"]
        try:
            self._ask({"do": "open"}, self._launch.start_timeout)
        except DeviceFaultError as fault:
            self.kill()
            raise DeviceFaultError(FaultKind.START, fault.reason) from None

    def load(self, key: str, content: bytes) -> LoadedModel:
        """Give it a model. Raises DeviceFaultError: ERROR when the runtime or the library refuses the file."""
        self._arena.put(content)
        request = {"do": "load", "key": key, "size": len(content)}
        answer = self._ask(request, self._launch.start_timeout)
        found = LoadedModel(*(tuple(_spec(s) for s in answer[side]) for side in ("inputs", "outputs")))
        self._arena.require(layout([*found.inputs, *found.outputs])[1])
        self._models[key] = found
        return found

    def unload(self, key: str) -> None:
        """Forget a model. Raises DeviceFaultError."""
        if self._models.pop(key, None) is not None:
            self._ask({"do": "unload", "key": key}, self._launch.timeout)

    def run(self, key: str, x: Raw) -> list[Raw]:
        """One invocation under the watchdog. Raises DeviceFaultError."""
        model = self._models[key]
        offsets, _ = layout([*model.inputs, *model.outputs])
        np.copyto(self._arena.view(0, model.inputs[0]), x)
        self._ask({"do": "run", "key": key}, self._launch.timeout)
        return [self._arena.view(at, s).copy() for at, s in zip(offsets[1:], model.outputs, strict=True)]

    def kill(self) -> int | None:
        """End the child, if there is one: its exit code. Raises DeviceFaultError when the kernel holds it."""
        if self.pid is None:
            return None
        self._channel.close()
        code = self._exit_code(kill=True)
        if code is None:
            raise DeviceFaultError(
                FaultKind.HANG,
                f"process {self.pid} cannot be killed: the driver holds it; remove and rescan the device, or reboot",
            )
        return code

    def close(self) -> None:
        """End everything; may be called twice."""
        if self._nursery is None and self._errors.closed:
            return
        with contextlib.suppress(DeviceFaultError):
            self.kill()
        self._close_nursery()
        if not self._errors.closed:
            self._errors.close()
            self._arena.close()

    def _ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        self._id += 1
        if os.fstat(self._errors.fileno()).st_size > NOISE:
            os.ftruncate(self._errors.fileno(), 0)
        try:
            self._channel.send({"id": self._id, **request})
            answer = self._channel.receive(time.monotonic() + timeout)
        except TimeoutError:
            self.kill()
            raise DeviceFaultError(FaultKind.HANG, f"no answer within {timeout:g} s") from None
        except (OSError, _ClosedError):
            raise DeviceFaultError(FaultKind.DIED, self._last_words()) from None
        assert answer["id"] == self._id
        if "error" in answer:
            raise DeviceFaultError(FaultKind(answer["kind"]), answer["error"])
        return answer

    def _last_words(self) -> str:
        self._channel.close()
        code = self._exit_code(kill=False)
        size = os.fstat(self._errors.fileno()).st_size
        said = os.pread(self._errors.fileno(), 400, max(0, size - 400)).decode(errors="replace").strip()
        return " ".join(filter(None, [_meaning(code), said.splitlines()[-1] if said else ""]))

    def _exit_code(self, *, kill: bool) -> int | None:
        """The child's end, which is told by the nursery; None when it does not come."""
        until = time.monotonic() + KILL_TIMEOUT
        try:
            if kill:
                self._control.send({"do": "kill"})
            while True:
                told = self._control.receive(until)
                if "exited" in told:
                    self.pid = None
                    return int(told["exited"])
        except TimeoutError:
            return None if kill else self._exit_code(kill=True)
        except (OSError, _ClosedError):  # the nursery is gone, and its child with it
            self._close_nursery()
            self.pid = None
            return -9

    def _open_nursery(self, keep: tuple[int, ...]) -> None:
        self._close_nursery()
        ours, theirs = socket.socketpair()
        config = {
            "control": theirs.fileno(),
            "memory": self._arena.fd,
            "library": self._launch.library,
            "options": dict(self._launch.options),
        }
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "OPENBLAS_NUM_THREADS": "1",  # a process with threads must not fork
            **self._launch.environment,
        }
        with theirs:
            self._nursery = subprocess.Popen(  # noqa: S603 - this very interpreter
                [sys.executable, "-m", "dgdm.tpu.nursery", json.dumps(config)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[theirs.fileno(), self._arena.fd, *keep],
                start_new_session=True,  # an interrupt at the terminal is for the parent to handle
            )
        self._control.open(ours)

    def _close_nursery(self) -> None:
        self._channel.close()
        self._control.close()
        if self._nursery is not None:
            try:
                self._nursery.wait(KILL_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._nursery.kill()
                self._nursery.wait()
            self._nursery = None
        self.pid = None


def _spec(fields: list[Any]) -> TensorSpec:
    name, shape, kind, scale, zero_point = fields
    return TensorSpec(name, tuple(shape), kind, scale, zero_point)


MEANINGS = {
    -11: "the process crashed (SIGSEGV): the device's library does not fit this runtime, it is likely too old",
    -6: "the process aborted (SIGABRT): the library does so when a transfer to the device fails",
    -9: "the process was killed (SIGKILL)",
}


def _meaning(code: int | None) -> str:
    return MEANINGS.get(code, f"the process ended with code {code}") if code is not None else ""


class _ClosedError(Exception):
    """The other end is gone."""


class _Lines:
    """JSON lines over a socket, with an end to every wait."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._buffer = b""

    def open(self, connected: socket.socket) -> None:
        self.close()
        self._socket, self._buffer = connected, b""

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, message: dict[str, Any], *fds: int) -> None:
        if self._socket is None:
            raise _ClosedError
        data = json.dumps(message).encode() + b"\n"
        socket.send_fds(self._socket, [data], fds) if fds else self._socket.sendall(data)

    def receive(self, until: float) -> dict[str, Any]:
        """Raises TimeoutError (at `until` of the monotonic clock) and _ClosedError."""
        while b"\n" not in self._buffer:
            if self._socket is None:
                raise _ClosedError
            self._socket.settimeout(max(1e-6, until - time.monotonic()))
            data = self._socket.recv(65_536)
            if not data:
                raise _ClosedError
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message
