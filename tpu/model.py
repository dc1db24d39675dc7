"""A model: its files, its tensors, how numbers cross into integers, and running it on the CPU in this process."""

from __future__ import annotations

import functools
import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import ModelError
from .network import Floats
from .opcheck import check
from .runtime import load_runtime, without_greeting

Raw = NDArray[Any]
COMPILED_SUFFIX = "_edgetpu.tflite"


class TensorSpec(NamedTuple):
    """An input or output of a file; scale 0 means that its numbers are what they are."""

    name: str
    shape: tuple[int, ...]
    kind: str
    scale: float
    zero_point: int

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return int(np.prod(self.shape)) * np.dtype(self.kind).itemsize


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What runs: a plain .tflite for the CPU and, for a device, the same compiled."""

    content: bytes
    compiled: bytes | None = None

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the plain file's SHA-256: the model's name on the wire."""
        return hashlib.sha256(self.content).hexdigest()[:16]


def read_model(path: Path) -> ModelFile:
    """X.tflite, with X_edgetpu.tflite when it stands beside it; naming the compiled one finds the plain one.

    The plain file is needed in any case: it answers when the device does not. Raises ModelError.
    """
    if path.name.endswith(COMPILED_SUFFIX):
        plain, compiled = path.with_name(path.name.removesuffix(COMPILED_SUFFIX) + ".tflite"), path
    else:
        plain, compiled = path, path.with_name(path.stem + COMPILED_SUFFIX)
    try:
        content = plain.read_bytes()
        device_content = compiled.read_bytes() if compiled.exists() else None
    except OSError as error:
        raise ModelError(
            f"{plain} cannot be read ({error}): the CPU needs the plain file of the model"
        ) from None
    if check(content).compiled:
        raise ModelError(f"{plain} is compiled for the device; the CPU needs the plain file")
    return ModelFile(content, device_content)


class CpuModel:
    """A file in an interpreter of this process. One invocation at a time. Raises ModelError."""

    def __init__(self, content: bytes, threads: int = 1) -> None:
        check(content)  # the interpreter crashes on what is no model
        try:
            with without_greeting():
                self._interpreter = load_runtime().Interpreter(model_content=content, num_threads=threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"the runtime refuses the file: {error}") from None
        self.inputs = specs(self._interpreter.get_input_details())
        self.outputs = specs(self._interpreter.get_output_details())
        self._lock = threading.Lock()

    def invoke(self, x: Raw) -> list[Raw]:
        """Raw numbers of the input's shape and kind → those of each output. Raises ModelError."""
        with self._lock:
            return invoke(self._interpreter, x)


def specs(details: list[Any]) -> tuple[TensorSpec, ...]:
    """An interpreter's description of its inputs or outputs."""
    return tuple(
        TensorSpec(d["name"], tuple(map(int, d["shape"])), np.dtype(d["dtype"]).name, *d["quantization"])
        for d in details
    )


def invoke(interpreter: Any, x: Raw) -> list[Raw]:
    """One input in, all outputs out, copied. Raises ModelError."""
    try:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        raise ModelError(str(error)) from None
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]


def to_raw(x: Floats, spec: TensorSpec) -> Raw:
    """Feature units to the file's numbers; what lies outside the scale becomes its end."""
    if spec.scale == 0:
        return np.asarray(x, spec.kind)
    ends = np.iinfo(spec.kind)
    q = x * np.float32(1 / spec.scale)
    np.rint(q, out=q)
    q += np.float32(spec.zero_point)
    np.clip(q, ends.min, ends.max, out=q)
    return q.astype(spec.kind)


def from_raw(q: Raw, spec: TensorSpec) -> Floats:
    """The file's numbers to feature units."""
    x = q.astype(np.float32)
    if spec.scale != 0:
        x -= np.float32(spec.zero_point)
        x *= np.float32(spec.scale)
    return x


def require_finite(x: Floats, what: str) -> None:
    """Raises ModelError that names the first bad number."""
    # one pass in the good case: a sum is not finite when a term is not (or when it overflows)
    if not np.isfinite(np.sum(x, dtype=np.float64)):
        bad = np.argwhere(~np.isfinite(x))
        if len(bad):
            place = tuple(int(i) for i in bad[0])
            raise ModelError(f"{what}: the number at {place} is {x[place]}")


class Golden(NamedTuple):
    """A row whose answer is known: what the plain file makes of it on the CPU."""

    question: Raw  # [in]
    answer: Raw  # [out]
    tolerance: float  # largest difference that is no fault, in raw units

    def problem(self, given: Raw) -> str | None:
        """What is wrong with an answer [out], if something is."""
        off = float(np.abs(given.astype(np.float64) - self.answer).max(initial=0.0))
        if off <= self.tolerance:
            return None
        return f"the golden row came back {off:g} steps off, {self.tolerance:g} are allowed"


@functools.lru_cache(maxsize=64)
def golden_of(content: bytes) -> Golden:
    """The golden row of a file of rows: numbers over the whole scale of the input, fixed for all time.

    Integer kernels of different devices differ by a few steps after several layers, hence the tolerance of 4
    steps (LiteRT's own kernels were seen to differ by 3).
    """
    model = CpuModel(content)
    spec, out = model.inputs[0], model.outputs[0]
    random = np.random.default_rng(20_13)
    width = spec.shape[-1]
    if spec.scale == 0:
        question = random.normal(size=width).astype(spec.kind)
    else:
        ends = np.iinfo(spec.kind)
        question = random.integers(ends.min, ends.max, width, endpoint=True).astype(spec.kind)
    x = np.broadcast_to(question, spec.shape)
    answer = model.invoke(np.ascontiguousarray(x))[0].reshape(-1, out.shape[-1])[-1]
    tolerance = 4.0 if out.scale != 0 else 1e-3 * float(np.abs(answer).max(initial=1.0))
    return Golden(question, answer.copy(), tolerance)
