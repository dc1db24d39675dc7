"""Dense networks on the rows of a matrix: what encoders and heads are, and the sizes they come in."""

from __future__ import annotations

import itertools
import json
import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .errors import ModelError

Floats = NDArray[np.float32]

PRESETS: Final[dict[str, tuple[int, ...]]] = {
    "DGDM-Small": (128, 128, 64),
    "DGDM-Base": (256, 512, 256, 128),
    "DGDM-Large": (512, 1024, 1024, 256),
}
"""Widths from the input to the output: 0.02, 0.3 and 1.8 million weights."""


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """y = relu(x Wᵀ + b), or without the relu: weight [out, in], bias [out], float32."""

    weight: Floats
    bias: Floats
    relu: bool


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """Dense layers in a row; relu after each but the last."""

    name: str
    layers: tuple[Dense, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Features in, then out of each layer."""
        return (self.layers[0].weight.shape[1], *(len(layer.bias) for layer in self.layers))

    @property
    def weights(self) -> int:
        """How many numbers the layers hold."""
        return sum(layer.weight.size + layer.bias.size for layer in self.layers)

    def activations(self, x: Floats) -> list[Floats]:
        """x [n, in], then what each layer makes of it."""
        values = [np.ascontiguousarray(x, np.float32)]
        for layer in self.layers:
            y = values[-1] @ layer.weight.T + layer.bias
            values.append(np.maximum(y, 0) if layer.relu else y)
        return values

    def forward(self, x: Floats) -> Floats:
        """x [n, in] → [n, out], in float32 NumPy: the reference that files are compared with."""
        return self.activations(x)[-1]


def network_of(name: str, weights: list[Any], biases: list[Any]) -> Network:
    """From weights [out, in] and biases [out] in order. Raises ModelError."""
    if not weights or len(weights) != len(biases):
        raise ModelError(f"{name}: {len(weights)} weights and {len(biases)} biases make no network")
    layers: list[Dense] = []
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        w, b = np.asarray(weight, np.float32), np.asarray(bias, np.float32)
        before = layers[-1].bias.shape[0] if layers else None
        if w.ndim != 2 or b.shape != w.shape[:1] or before not in (None, w.shape[1]):
            raise ModelError(
                f"{name}: layer {i} has weight {w.shape} and bias {b.shape}; "
                f"want [out, {'in' if before is None else before}] and [out]"
            )
        if not (np.isfinite(w).all() and np.isfinite(b).all()):
            raise ModelError(f"{name}: layer {i} has a weight that is not a finite number")
        layers.append(Dense(w, b, relu=i + 1 < len(weights)))
    return Network(name, tuple(layers))


def preset(name: str, seed: int = 0) -> Network:
    """A network of a preset size with random weights: for measurements, it knows nothing. Raises ModelError."""
    if name not in PRESETS:
        raise ModelError(f"there is no preset {name!r}: {', '.join(PRESETS)}")
    random = np.random.default_rng(seed)
    widths = PRESETS[name]
    pairs = list(itertools.pairwise(widths))
    weights = [random.normal(0, np.sqrt(2 / i), (o, i)) for i, o in pairs]
    return network_of(name, weights, [random.normal(0, 0.1, o) for _, o in pairs])


def read_weights(path: Path) -> Network:
    """A network from .npz or .safetensors.

    Layers are told by the number in an array's name, in its order, and what they are by its end: `0.weight`
    [out, in] and `0.bias` [out], also with a prefix as in `encoder.2.weight`. Raises ModelError.
    """
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
    if path.suffix not in readers:
        raise ModelError(f"{path} is neither .npz nor .safetensors")
    try:
        arrays = readers[path.suffix](path)
    except (OSError, EOFError, ValueError, KeyError, TypeError, struct.error, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    found: dict[str, dict[int, Any]] = {"weight": {}, "bias": {}}
    for name, array in arrays.items():
        match = re.search(r"(\d+)\D*(weight|bias)$", name)
        if match is None:
            raise ModelError(f"{path}: {name!r} does not end like 0.weight or 0.bias")
        layer = int(match[1])
        if layer in found[match[2]]:
            raise ModelError(f"{path}: two arrays claim to be the {match[2]} of layer {layer}")
        found[match[2]][layer] = array
    numbers = sorted(found["weight"])
    if numbers != sorted(found["bias"]):
        raise ModelError(f"{path}: weights of layers {numbers}, biases of {sorted(found['bias'])}")
    return network_of(path.stem, [found["weight"][i] for i in numbers], [found["bias"][i] for i in numbers])


def write_weights(network: Network, path: Path) -> None:
    """As .npz, for `read_weights`."""
    arrays = {}
    for i, layer in enumerate(network.layers):
        arrays[f"{i}.weight"], arrays[f"{i}.bias"] = layer.weight, layer.bias
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _read_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _bfloat16(raw: NDArray[np.uint16]) -> Floats:
    return (raw.astype(np.uint32) << 16).view(np.float32)


_SAFETENSORS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def _read_safetensors(path: Path) -> dict[str, Any]:
    """8 bytes of length, a JSON header, the arrays. Source: the format's own description."""
    raw = path.read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + length])
    data = memoryview(raw)[8 + length :]
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _SAFETENSORS:
            raise ValueError(f"{name} has type {entry['dtype']}; want one of {', '.join(_SAFETENSORS)}")
        start, end = entry["data_offsets"]
        array = np.frombuffer(data[start:end], _SAFETENSORS[entry["dtype"]])
        arrays[name] = (_bfloat16(array) if entry["dtype"] == "BF16" else array).reshape(entry["shape"])
    return arrays
