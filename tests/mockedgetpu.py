"""Edge TPUs without hardware: a library that plays devices and their faults, a compiler for it, a fake sysfs.

Run as a program it is `edgetpu_compiler`: `python mockedgetpu.py -s -o FOLDER FILE.tflite`.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from dgdm.tpu.device import Patience
from dgdm.tpu.model import ModelFile
from dgdm.tpu.runtime import load_flatbuffers, load_schema

HERE = Path(__file__).parent
QUICK = Patience(first_pause=0.001, longest_pause=0.001, most_faults=1_000_000)
WATCHDOG = 0.2
"""Seconds."""


@functools.cache
def library(*flags: str) -> str:
    """The compiled mock; `-DOLD_ABI` for one that does not fit. Lives until the end of the tests."""
    folder = Path(tempfile.mkdtemp(prefix="dgdm-mock-"))
    path = folder / "libedgetpu_mock.so"
    source = HERE / "mock_edgetpu.c"
    subprocess.run(
        ["cc", "-Wall", "-Werror", *flags, "-shared", "-fPIC", "-O2", "-o", path, source, "-lm"], check=True
    )
    return str(path)


class Bus:
    """The devices of a pretended machine; children find it through their environment."""

    def __init__(self, folder: Path, devices: str = "pci:/dev/apex_0") -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.devices(devices)
        self.mode("ok")

    def mode(self, word: str) -> None:
        """What the next invocations do. Written in one step: a child may read at any time."""
        self._write("mode", word)

    def devices(self, text: str) -> None:
        """What `edgetpu_list_devices` says."""
        self._write("devices", text)

    def options(self) -> list[str]:
        """Delegate options that were given so far, as NAME=VALUE."""
        path = self.folder / "options"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def environment(self) -> dict[str, str]:
        """For a device's process."""
        return {"MOCK_EDGETPU": str(self.folder)}

    def _write(self, name: str, text: str) -> None:
        path = self.folder / f"{name}.new"
        path.write_text(text)
        path.rename(self.folder / name)


def compiled(content: bytes) -> bytes:
    """A file whose 1×1 convolutions have become one edgetpu-custom-op that the mock computes."""
    s = load_schema()
    model = s.ModelT.InitFromObj(s.Model.GetRootAs(content, 0))
    graph = model.subgraphs[0]
    made = {int(graph.inputs[0]): -1}
    program = b""
    for number, operator in enumerate(graph.operators):
        x, weight, bias = (graph.tensors[i] for i in operator.inputs)
        y = graph.tensors[operator.outputs[0]]
        assert model.operatorCodes[operator.opcodeIndex].builtinCode == s.BuiltinOperator.CONV_2D
        scale = x.quantization.scale[0] * weight.quantization.scale / y.quantization.scale[0]
        head = [
            weight.shape[3],
            weight.shape[0],
            x.quantization.zeroPoint[0],
            y.quantization.zeroPoint[0],
            int(operator.builtinOptions.fusedActivationFunction == s.ActivationFunctionType.RELU),
            made[int(operator.inputs[0])],
        ]
        raw = [bytes(model.buffers[t.buffer].data) for t in (bias, weight)]
        program += np.array(head, np.int32).tobytes() + scale.astype(np.float32).tobytes() + b"".join(raw)
        program += b"\0" * (-len(program) % 4)
        made[int(operator.outputs[0])] = number
    outputs = sum(1 << made[int(i)] for i in graph.outputs)
    program = np.array([len(graph.operators), outputs], np.int32).tobytes() + program
    return _one_custom_op(model, graph, program)


def _one_custom_op(model: Any, graph: Any, program: bytes) -> bytes:
    s = load_schema()
    code = s.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode = s.BuiltinOperator.CUSTOM, s.BuiltinOperator.CUSTOM
    code.customCode, code.version = b"edgetpu-custom-op", 1
    operator = s.OperatorT()
    operator.opcodeIndex = 0
    operator.inputs, operator.outputs = graph.inputs, graph.outputs
    operator.customOptions = np.frombuffer(program, np.uint8)
    model.operatorCodes, graph.operators = [code], [operator]
    kept = sorted({int(i) for i in (*graph.inputs, *graph.outputs)})
    graph.tensors = [graph.tensors[i] for i in kept]
    for tensor in graph.tensors:
        tensor.buffer = 0
    place = {old: new for new, old in enumerate(kept)}
    graph.inputs = np.array([place[int(i)] for i in graph.inputs], np.int32)
    graph.outputs = np.array([place[int(i)] for i in graph.outputs], np.int32)
    operator.inputs, operator.outputs = graph.inputs, graph.outputs
    model.buffers, model.signatureDefs = model.buffers[:1], None
    builder = load_flatbuffers().Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def for_the_mock(content: bytes) -> ModelFile:
    """Both files of a model."""
    return ModelFile(content, compiled(content))


def apex(
    sysfs: Path, number: int = 0, *, temperature: int = 40_000, device_folder: Path | None = None
) -> Path:
    """A PCIe device as the gasket driver shows it; values as its source prints them."""
    folder = sysfs / "class" / "apex" / f"apex_{number}"
    folder.mkdir(parents=True)
    for name, value in {
        "temp": temperature,
        "trip_point0_temp": 84_800,
        "status": "ALIVE",
        "is_device_owned": 0,
        "device_owner": 0,
    }.items():
        (folder / name).write_text(f"{value}\n")
    if device_folder is not None:
        device_folder.mkdir(parents=True, exist_ok=True)
        (device_folder / f"apex_{number}").touch()
    return folder


def usb(sysfs: Path, port: str, vendor: str = "18d1", product: str = "9302") -> Path:
    """A USB device as the kernel shows it."""
    folder = sysfs / "bus" / "usb" / "devices" / port
    folder.mkdir(parents=True)
    for name, value in {"idVendor": vendor, "idProduct": product, "busnum": "2", "devnum": "3"}.items():
        (folder / name).write_text(f"{value}\n")
    return folder


def install_compiler(folder: Path, body: str | None = None) -> str:
    """An `edgetpu_compiler` in `folder`; the value for PATH. `body` is another script in its place."""
    folder.mkdir(exist_ok=True)
    path = folder / "edgetpu_compiler"
    module_path = os.pathsep.join(p for p in sys.path if p)
    command = f'PYTHONPATH="{module_path}" exec "{sys.executable}" "{HERE / "mockedgetpu.py"}" "$@"'
    path.write_text(f"#!/bin/sh\n{body or command}\n")
    path.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def have_c_compiler() -> bool:
    """Whether the mock can be built."""
    return shutil.which("cc") is not None


def main() -> None:
    """`-s -o FOLDER FILE`, as the real one."""
    folder, source = Path(sys.argv[sys.argv.index("-o") + 1]), Path(sys.argv[-1])
    (folder / f"{source.stem}_edgetpu.tflite").write_bytes(compiled(source.read_bytes()))


if __name__ == "__main__":
    main()
