"""Writes .tflite files: tensors, operators, one subgraph, one signature. Source: TFLite's schema.fbs, version 3.

Operator versions are pinned to those that the Edge TPU compiler accepts; newer converters write others, and it
refuses them (its version 16 refuses CONV_2D 6 and TRANSPOSE_CONV 4).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .runtime import load_flatbuffers, load_schema

VERSIONS: Final[dict[str, int]] = {
    "CONV_2D": 3,
    "FULLY_CONNECTED": 5,
    "ADD": 2,
    "MUL": 2,
    "QUANTIZE": 1,
    "RESHAPE": 1,
}
"""The version of each operator this writer emits."""

TYPES: Final[dict[str, str]] = {
    "float32": "FLOAT32",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "int4": "INT4",
}
"""Names of element types here, and in the schema."""


class FileBuilder:
    """One .tflite file in the making. Tensors are named by the numbers that the methods return.

    Raises MissingRuntimeError.
    """

    def __init__(self, description: str) -> None:
        self._schema = load_schema()
        self._graph = self._schema.SubGraphT()
        self._graph.name = "main"
        self._graph.tensors, self._graph.operators = [], []
        self._graph.inputs, self._graph.outputs = [], []
        self._model = self._schema.ModelT()
        self._model.version, self._model.description = 3, description
        self._model.subgraphs, self._model.operatorCodes = [self._graph], []
        self._model.buffers = [self._schema.BufferT()]  # buffer 0 is the empty one
        self._codes: dict[str, int] = {}

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        kind: str,
        scale: Any = None,
        zero_point: int = 0,
        data: NDArray[Any] | None = None,
    ) -> int:
        """A tensor; with `data` a constant. `scale` is one number, or one per entry of axis 0."""
        tensor = self._schema.TensorT()
        tensor.name, tensor.shape = name, np.asarray(shape, np.int32)
        tensor.type, tensor.hasRank = getattr(self._schema.TensorType, TYPES[kind]), True
        if scale is not None:
            tensor.quantization = self._quantization(scale, zero_point)
        tensor.buffer = 0
        if data is not None:
            buffer = self._schema.BufferT()
            buffer.data = np.frombuffer(_packed(data, kind), np.uint8)
            self._model.buffers.append(buffer)
            tensor.buffer = len(self._model.buffers) - 1
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def input(
        self, name: str, shape: tuple[int, ...], kind: str, scale: Any = None, zero_point: int = 0
    ) -> int:
        """A tensor that callers fill."""
        number = self.tensor(name, shape, kind, scale, zero_point)
        self._graph.inputs.append(number)
        return number

    def output(self, number: int) -> None:
        """Declare a tensor an output."""
        self._graph.outputs.append(number)

    def conv(self, x: int, weight: int, bias: int, y: int, *, relu: bool = False) -> int:
        """1×1 convolution: x [1, 1, n, in], weight [out, 1, 1, in], bias [out], y [1, 1, n, out]."""
        options = self._schema.Conv2DOptionsT()
        options.padding = self._schema.Padding.VALID
        options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
        options.fusedActivationFunction = self._activation(relu=relu)
        return self.operator("CONV_2D", [x, weight, bias], y, "Conv2DOptions", options)

    def dense(self, x: int, weight: int, bias: int, y: int, *, relu: bool = False) -> int:
        """FULLY_CONNECTED: x [..., in], weight [out, in], bias [out], y [..., out]."""
        options = self._schema.FullyConnectedOptionsT()
        options.keepNumDims = True
        options.fusedActivationFunction = self._activation(relu=relu)
        return self.operator("FULLY_CONNECTED", [x, weight, bias], y, "FullyConnectedOptions", options)

    def quantize(self, x: int, y: int) -> int:
        """From one scale, or one integer type, to another."""
        return self.operator("QUANTIZE", [x], y, "QuantizeOptions", self._schema.QuantizeOptionsT())

    def operator(
        self, name: str, inputs: list[int], output: int, options_type: str, options: Any, version: int = 0
    ) -> int:
        """Any operator; `version` 0 is that of the table."""
        version = version or VERSIONS[name]
        entry = self._schema.OperatorT()
        entry.opcodeIndex = self._code(name, version)
        entry.inputs, entry.outputs = np.asarray(inputs, np.int32), np.asarray([output], np.int32)
        entry.builtinOptionsType = getattr(self._schema.BuiltinOptions, options_type)
        entry.builtinOptions = options
        self._graph.operators.append(entry)
        return output

    def custom(self, name: str, inputs: list[int], output: int, payload: bytes) -> int:
        """An operator of a delegate's own."""
        entry = self._schema.OperatorT()
        entry.opcodeIndex = self._code("CUSTOM", 1)
        self._model.operatorCodes[entry.opcodeIndex].customCode = name
        entry.inputs, entry.outputs = np.asarray(inputs, np.int32), np.asarray([output], np.int32)
        entry.customOptions = np.frombuffer(payload, np.uint8)
        self._graph.operators.append(entry)
        return output

    def build(self) -> bytes:
        """The file."""
        signature = self._schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs = [self._named(i) for i in self._graph.inputs]
        signature.outputs = [self._named(i) for i in self._graph.outputs]
        self._model.signatureDefs = [signature]
        builder = load_flatbuffers().Builder(1024)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _code(self, name: str, version: int) -> int:
        key = f"{name} {version}"
        if key not in self._codes:
            code = self._schema.OperatorCodeT()
            code.builtinCode = getattr(self._schema.BuiltinOperator, name)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # one byte
            code.version = version
            self._model.operatorCodes.append(code)
            self._codes[key] = len(self._model.operatorCodes) - 1
        return self._codes[key]

    def _quantization(self, scale: Any, zero_point: int) -> Any:
        parameters = self._schema.QuantizationParametersT()
        parameters.scale = np.atleast_1d(np.asarray(scale, np.float32))
        parameters.zeroPoint = np.full(parameters.scale.shape, zero_point, np.int64)
        parameters.quantizedDimension = 0
        return parameters

    def _activation(self, *, relu: bool) -> Any:
        kinds = self._schema.ActivationFunctionType
        return kinds.RELU if relu else kinds.NONE

    def _named(self, number: int) -> Any:
        entry = self._schema.TensorMapT()
        entry.name, entry.tensorIndex = self._graph.tensors[number].name, number
        return entry


def _packed(data: NDArray[Any], kind: str) -> bytes:
    """Bytes of a constant; int4 has two numbers in a byte, the first in the low half."""
    if kind != "int4":
        return np.ascontiguousarray(data, np.dtype(kind)).tobytes()
    halves = np.append(data.reshape(-1), np.zeros(data.size % 2, np.int8)).astype(np.int8).view(np.uint8) & 15
    return (halves[0::2] | (halves[1::2] << 4)).astype(np.uint8).tobytes()
