"""The one place that imports a TFLite runtime: ai-edge-litert, tflite-runtime, or Google's pycoral.

The three agree in all that is used here: `Interpreter` and `load_delegate`.
"""

from __future__ import annotations

import base64
import functools
import importlib
import importlib.metadata
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from .errors import MissingRuntimeError

INSTALL = "pip install 'graph-diffusion-edge-serving[tpu]'"
EMPTY_MODEL = (
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAAcAAAAUAAAAAMAAAABAAAACAAAAAQABAAEAAAAAQAAABAAAAAMABQAEAAMAAgABAAMAAAA"
    "EAAAABAAAAAQAAAAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)
"""A .tflite file of one subgraph without tensors, base64."""


class Runtime(NamedTuple):
    """An interpreter's home."""

    name: str
    version: str
    Interpreter: Callable[..., Any]
    load_delegate: Callable[..., Any]


def _from_interpreter_module(name: str) -> Any:
    return importlib.import_module(f"{name}.interpreter")


def _from_pycoral(_name: str) -> Any:
    # PyPI's `pycoral` is an atlas of coral reefs: it has no utils.edgetpu.
    return importlib.import_module("pycoral.utils.edgetpu").tflite


CANDIDATES: list[tuple[str, Callable[[str], Any]]] = [
    ("ai_edge_litert", _from_interpreter_module),
    ("tflite_runtime", _from_interpreter_module),
    ("pycoral", _from_pycoral),
]


@functools.cache
def load_runtime() -> Runtime:
    """The first runtime that is installed and works. Raises MissingRuntimeError, which says what was tried."""
    tried = []
    for name, module_of in CANDIDATES:
        try:
            module = module_of(name)
            _try_out(module.Interpreter)
        except (ImportError, AttributeError, SystemError) as error:
            tried.append(f"{name}: {error}")
        else:
            return Runtime(name, _version(name), module.Interpreter, module.load_delegate)
    raise MissingRuntimeError(f"running a model needs a TFLite runtime: {INSTALL} ({'; '.join(tried)})")


def _try_out(interpreter: Callable[..., Any]) -> None:
    """tflite-runtime built for NumPy 1 imports under NumPy 2 and then fails to make any interpreter."""
    interpreter(model_content=base64.b64decode(EMPTY_MODEL))


_greeting = threading.Lock()
_greeted: list[bool] = []


@contextmanager
def without_greeting() -> Iterator[None]:
    """Around the first interpreter of a process: its greeting is no log line, and stderr may be read by machines.

    Whatever else is written to stderr meanwhile is written after it.
    """
    with _greeting:
        if _greeted:
            yield
            return
        _greeted.append(True)
        kept = os.dup(2)
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(kept, 2)
                os.close(kept)
                file.seek(0)
                for line in file:
                    if not line.startswith(b"INFO: "):
                        os.write(2, line)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@functools.cache
def load_schema() -> Any:
    """The classes of the .tflite schema. Raises MissingRuntimeError."""
    try:
        return importlib.import_module("ai_edge_litert.schema_py_generated")
    except ImportError as error:
        raise MissingRuntimeError(
            f"writing and reading model files needs ai-edge-litert: {INSTALL} ({error})"
        ) from None


@functools.cache
def load_flatbuffers() -> Any:
    """The flatbuffers library, which comes with ai-edge-litert. Raises MissingRuntimeError."""
    try:
        return importlib.import_module("flatbuffers")
    except ImportError as error:
        raise MissingRuntimeError(
            f"writing model files needs flatbuffers, a part of: {INSTALL} ({error})"
        ) from None
