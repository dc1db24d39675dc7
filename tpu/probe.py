"""A throw-away process that touches a device's library: `python -m dgdm.tpu.probe LIBRARY SPEC`.

Prints one JSON line per step it survived; how it ends says the rest.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

from .errors import TpuError
from .flatbuffer import FileBuilder
from .opcheck import CUSTOM_OP
from .runtime import load_runtime


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("path", ctypes.c_char_p))


def devices_of(library: ctypes.CDLL) -> list[str]:
    """What the library itself sees. Source: edgetpu_c.h."""
    library.edgetpu_list_devices.restype = ctypes.POINTER(_Device)
    library.edgetpu_list_devices.argtypes = [ctypes.POINTER(ctypes.c_size_t)]
    count = ctypes.c_size_t(0)
    found = library.edgetpu_list_devices(ctypes.byref(count))
    return [f"{'usb' if found[i].type else 'pci'}:{found[i].path.decode()}" for i in range(count.value)]


def nonsense() -> bytes:
    """A file with a compiled operator that holds nothing: enough to see whether library and runtime fit."""
    b = FileBuilder("probe")
    x = b.input("x", (1, 4), "int8", 1.0)
    b.output(b.custom(CUSTOM_OP, [x], b.tensor("y", (1, 4), "int8", 1.0), b"\0\0\0\0"))
    return b.build()


def main() -> None:
    """Load, ask, open, hand a node over."""
    name, spec = sys.argv[1:3]
    library = ctypes.CDLL(name)
    library.edgetpu_version.restype = ctypes.c_char_p
    _say(step="loaded", version=library.edgetpu_version().decode(), devices=devices_of(library))
    runtime = load_runtime()
    delegate = runtime.load_delegate(name, {"device": spec})
    _say(step="opened")
    model = nonsense()
    _say(step="handing over")
    try:
        runtime.Interpreter(model_content=model, experimental_delegates=[delegate]).allocate_tensors()
    except (RuntimeError, ValueError) as error:
        _say(step="refused", reason=str(error))  # as it should: it has read the operator
    _say(step="fits")


def _say(**message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, AttributeError, TpuError) as error:
        _say(step="failed", reason=str(error))
        sys.exit(1)
