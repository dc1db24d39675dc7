"""From a network to a .tflite file and back: float32, or integers with the ranges that calibration found.

Rows of the matrix lie on the W axis and features are channels, so that a dense layer is a 1×1 convolution with
constant weights: the form that the Edge TPU maps for certain. A fully connected layer with more than one row of
output is not mapped.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import ModelError
from .flatbuffer import FileBuilder
from .network import Dense, Network, network_of
from .runtime import load_schema

ROWS = 256
"""Rows of a matrix in one invocation, unless the caller asks for another number."""


class Precision(StrEnum):
    """How a layer computes. int8 is what the device does; the others are for the CPU."""

    INT4 = "int4"  # weights of 4 bits, activations of 8
    INT8 = "int8"
    INT16 = "int16"  # activations of 16 bits, weights of 8


class Scale(NamedTuple):
    """q = round(x / scale) + zero_point, in `kind`."""

    kind: str
    scale: float
    zero_point: int


Range = tuple[float, float]


def scale_of(span: Range, kind: str) -> Scale:
    """The scale that covers a range and represents 0 exactly; int16 is symmetric, as its kernels want it."""
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    if kind == "int16":
        return Scale(kind, max(-low, high, 1e-12) / 32767, 0)
    step = max((high - low) / 255, 1e-12)
    return Scale(kind, step, int(np.clip(round(-128 - low / step), -128, 127)))


def float_file(network: Network, rows: int = ROWS) -> bytes:
    """float32 file: x [1, 1, rows, in] → [1, 1, rows, out]."""
    b = FileBuilder(network.name)
    x = b.input("x", (1, 1, rows, network.widths[0]), "float32")
    for i, layer in enumerate(network.layers):
        out, width = layer.weight.shape
        weight = b.tensor(f"w{i}", (out, 1, 1, width), "float32", data=layer.weight.reshape(out, 1, 1, width))
        bias = b.tensor(f"b{i}", (out,), "float32", data=layer.bias)
        x = b.conv(x, weight, bias, b.tensor(f"y{i}", (1, 1, rows, out), "float32"), relu=layer.relu)
    b.output(x)
    return b.build()


def integer_file(
    network: Network,
    ranges: Sequence[Range],
    precisions: Sequence[Precision] | None = None,
    rows: int = ROWS,
) -> bytes:
    """Integer file of the same shape: per-channel weights, per-tensor activations over `ranges` (input, then layers).

    All layers are int8 unless `precisions` says otherwise. Raises ModelError.
    """
    kinds = list(precisions) if precisions is not None else [Precision.INT8] * len(network.layers)
    if len(kinds) != len(network.layers) or len(ranges) != len(network.layers) + 1:
        raise ModelError(f"{len(network.layers)} layers, {len(kinds)} precisions, {len(ranges)} ranges")
    b = FileBuilder(network.name)
    held = scale_of(ranges[0], _activation_kind(kinds[0]))
    x = b.input("x", (1, 1, rows, network.widths[0]), *held)
    for i, (layer, precision) in enumerate(zip(network.layers, kinds, strict=True)):
        kind = _activation_kind(precision)
        wanted = held if held.kind == kind else scale_of(ranges[i], kind)
        if wanted != held:
            x = b.quantize(x, b.tensor(f"q{i}", (1, 1, rows, layer.weight.shape[1]), *wanted))
        held = _coarse_enough(scale_of(ranges[i + 1], kind), layer, precision, wanted)
        y = b.tensor(f"y{i}", (1, 1, rows, len(layer.bias)), *held)
        x = _integer_layer(b, i, layer, precision, x, (wanted.scale, held.scale), y)
    b.output(x)
    return b.build()


def _activation_kind(precision: Precision) -> str:
    return "int16" if precision is Precision.INT16 else "int8"


LARGEST = {Precision.INT4: 7, Precision.INT8: 127, Precision.INT16: 127}
"""The largest integer of a weight."""
STEPS = 128.0
"""Kernels refuse a layer whose products are 256 times coarser than its output's steps, or 2^32 times finer."""


def _coarse_enough(held: Scale, layer: Dense, precision: Precision, x: Scale) -> Scale:
    """A layer that calibration never saw awake has no range; its steps are then those of its products."""
    product = x.scale * float(np.abs(layer.weight).max(initial=0.0)) / LARGEST[precision]
    return held._replace(scale=max(held.scale, product / STEPS))


def quantized_weights(
    weight: NDArray[Any], largest: int, finest: NDArray[np.float64] | float = 1e-30
) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """weight [out, in] as integers in ±largest, and the scale [out] of each row, not below `finest` [out]."""
    scale = np.maximum(np.abs(weight).max(axis=1, initial=0.0) / largest, finest)
    return np.clip(np.rint(weight / scale[:, None]), -largest, largest).astype(np.int8), scale


def _integer_layer(
    b: FileBuilder, i: int, layer: Dense, precision: Precision, x: int, scales: tuple[float, float], y: int
) -> int:
    x_scale, y_scale = scales
    # a bias counts in steps of weight times input: with 2^30 of them there is room for the products
    finest = np.maximum(
        y_scale / x_scale * 2.0**-30, np.abs(layer.bias.astype(np.float64)) / x_scale * 2.0**-30
    )
    weight, scale = quantized_weights(layer.weight.astype(np.float64), LARGEST[precision], finest)
    out, width = weight.shape
    bias = np.rint(layer.bias / (scale * x_scale))
    kind = "int64" if precision is Precision.INT16 else "int32"
    bias_number = b.tensor(f"b{i}", (out,), kind, scale * x_scale, data=bias)
    if precision is Precision.INT4:
        # the CPU's int4 kernel is that of FULLY_CONNECTED; its convolution takes three times as long
        dense = b.tensor(f"w{i}", (out, width), "int4", scale, data=weight)
        return b.dense(x, dense, bias_number, y, relu=layer.relu)
    shape = (out, 1, 1, width)
    conv = b.tensor(f"w{i}", shape, "int8", scale, data=weight.reshape(shape))
    return b.conv(x, conv, bias_number, y, relu=layer.relu)


def parse(content: bytes) -> Any:
    """The file as the schema's objects. Raises ModelError for what is no .tflite file of one subgraph.

    The interpreter itself must not be the first to see a file: it crashes on one without a subgraph.
    """
    schema = load_schema()
    if content[4:8] != b"TFL3":
        raise ModelError("no .tflite file: it does not say TFL3 at byte 4")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    except (struct.error, IndexError, TypeError, ValueError, AttributeError, MemoryError) as error:
        raise ModelError(f"no readable .tflite file: {error}") from None
    graphs = model.subgraphs or []
    if model.version != 3 or len(graphs) != 1:
        raise ModelError(
            f"schema version {model.version} and {len(graphs)} subgraphs; want version 3 and one"
        )
    count, buffers = len(_list(graphs[0].tensors)), len(_list(model.buffers))
    named = [i for o in _list(graphs[0].operators) for i in (*_list(o.inputs), *_list(o.outputs))]
    named += [*_list(graphs[0].inputs), *_list(graphs[0].outputs)]
    codes = [o.opcodeIndex for o in _list(graphs[0].operators)]
    if (
        any(not -1 <= i < count for i in named)
        or any(not 0 <= t.buffer < buffers for t in _list(graphs[0].tensors))
        or any(not 0 <= c < len(_list(model.operatorCodes)) for c in codes)
    ):
        raise ModelError("the file names a tensor, buffer or operator that it does not have")
    return model


def _list(value: Any) -> list[Any]:
    return [] if value is None else list(value)


def read_float_file(path: Path) -> Network:
    """The network in a float32 file of 1×1 convolutions or dense layers. Raises ModelError for anything else."""
    try:
        model = parse(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    graph, schema = model.subgraphs[0], load_schema()
    layers, last = [], len(graph.operators) - 1
    for i, operator in enumerate(graph.operators):
        code = model.operatorCodes[operator.opcodeIndex]
        names = {schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.FULLY_CONNECTED}
        if max(code.builtinCode, code.deprecatedBuiltinCode) not in names or len(operator.inputs) != 3:
            raise ModelError(f"{path}: operator {i} is no dense layer with a bias; give the weights as .npz")
        relu = operator.builtinOptions.fusedActivationFunction
        if relu != (schema.ActivationFunctionType.NONE if i == last else schema.ActivationFunctionType.RELU):
            raise ModelError(f"{path}: operator {i} does not have relu after each layer but the last")
        tensors = [graph.tensors[k] for k in operator.inputs[1:]]
        layers.append([_float_constant(model, t, path) for t in tensors])
    return network_of(path.stem, [w.reshape(len(w), -1) for w, _ in layers], [b for _, b in layers])


def _float_constant(model: Any, tensor: Any, path: Path) -> NDArray[np.float32]:
    data = model.buffers[tensor.buffer].data
    if tensor.type != load_schema().TensorType.FLOAT32 or data is None:
        raise ModelError(f"{path}: {tensor.name} is no float32 constant: quantise from float32 files only")
    return np.frombuffer(bytes(data), np.float32).reshape(tensor.shape)
