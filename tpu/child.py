"""What runs in a device's process: it may hang or be aborted by the device's library at any call.

Requests and answers are JSON lines over a socket; a request's `id` comes back in its answer. Tensors and model files
cross in the arena.
"""

from __future__ import annotations

import json
import socket
from typing import Any

import numpy as np

from .arena import Arena, layout
from .errors import FaultKind, MissingRuntimeError
from .model import specs
from .runtime import load_runtime


def serve(channel: socket.socket, memory: int, library: str | None, options: dict[str, str]) -> None:
    """Answer until the other end closes. `library` None is the CPU without a delegate."""
    models: dict[str, _Loaded] = {}
    arena = Arena(memory)
    with channel, channel.makefile("rb") as lines:
        for line in lines:
            request = json.loads(line)
            try:
                answer = _answer(request, models, arena, library, options)
            except _NotOpenedError as error:
                answer = {"error": str(error), "kind": FaultKind.START}
            except (RuntimeError, ValueError, MissingRuntimeError) as error:  # the interpreter's
                answer = {"error": str(error).strip(), "kind": FaultKind.ERROR}
            channel.sendall(json.dumps({"id": request["id"], **answer}).encode() + b"\n")


def _answer(
    request: dict[str, Any],
    models: dict[str, _Loaded],
    arena: Arena,
    library: str | None,
    options: dict[str, str],
) -> dict[str, Any]:
    key = request.get("key", "")
    match request["do"]:
        case "open":
            load_runtime()
            _opened.extend(_delegates(library, options) or [])
        case "load":
            models[key] = _Loaded(arena.take(request["size"]), library, options)
            return {"inputs": models[key].inputs, "outputs": models[key].outputs}
        case "run":
            arena.follow()
            models[key].run(arena)
        case "unload":
            models.pop(key, None)
    return {}


class _NotOpenedError(Exception):
    """The library, or the device, is not to be had."""


def _delegates(library: str | None, options: dict[str, str]) -> list[Any] | None:
    if library is None:
        return None
    try:
        return [load_runtime().load_delegate(library, options)]
    except (OSError, ValueError) as error:
        raise _NotOpenedError(str(error).strip()) from None


_opened: list[Any] = []  # the first delegate: as long as it lives, the device stays open


class _Loaded:
    """A model in an interpreter of its own; the library shares the opened device between them."""

    def __init__(self, content: bytes, library: str | None, options: dict[str, str]) -> None:
        delegates = _delegates(library, options)
        self._interpreter = load_runtime().Interpreter(
            model_content=content, experimental_delegates=delegates, num_threads=1
        )
        self._interpreter.allocate_tensors()
        self.inputs = specs(self._interpreter.get_input_details())
        self.outputs = specs(self._interpreter.get_output_details())
        self._offsets, _ = layout([*self.inputs, *self.outputs])
        self._numbers = [d["index"] for d in self._interpreter.get_output_details()]
        self._input = self._interpreter.get_input_details()[0]["index"]

    def run(self, arena: Arena) -> None:
        self._interpreter.set_tensor(self._input, arena.view(0, self.inputs[0]))
        self._interpreter.invoke()
        for number, offset, spec in zip(self._numbers, self._offsets[1:], self.outputs, strict=True):
            np.copyto(arena.view(offset, spec), self._interpreter.get_tensor(number))
