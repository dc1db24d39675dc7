"""Will the Edge TPU's compiler map this file? An answer without the compiler: certain, likely, or no, and why.

Sources: the table of supported operations in Coral's model requirements; logs in the issue trackers of edgetpu,
libedgetpu and pycoral (numbers in the reasons); 53 public pairs of files before and after compilation. Nothing here
was compiled for, or run on, a device by this project: a verdict says which of the sources it rests on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, Final, NamedTuple

import numpy as np

from .files import parse
from .runtime import load_schema

SRAM = 8 * 2**20
"""Bytes of parameters the device keeps; what is beyond is sent anew with every invocation."""
CUSTOM_OP = "edgetpu-custom-op"
UNVERIFIED = "unverified on hardware"
SEEN = f"mapped in public compiled files; this file {UNVERIFIED}"
TABLE = f"in the table of supported operations; {UNVERIFIED}"


class Verdict(StrEnum):
    """How sure it is that an operator runs on the device."""

    CERTAIN = "certain"
    LIKELY = "likely"
    NO = "no"


class OpVerdict(NamedTuple):
    """One operator of a file."""

    op: str
    verdict: Verdict
    reasons: list[str]  # why not better
    evidence: str  # what the verdict rests on


class Report(NamedTuple):
    """A whole file."""

    ops: list[OpVerdict]
    parameters: int  # bytes of constants

    @property
    def verdict(self) -> Verdict:
        """The worst of the operators'; a file without any has nothing to run."""
        order = list(Verdict)
        return max((op.verdict for op in self.ops), key=order.index, default=Verdict.NO)

    @property
    def fits(self) -> bool:
        """Whether the parameters stay on the device."""
        return self.parameters <= SRAM

    @property
    def compiled(self) -> bool:
        """Whether the compiler has been at work on it."""
        return any(op.op == CUSTOM_OP for op in self.ops)


class Tensor(NamedTuple):
    """What the rules look at."""

    name: str
    shape: list[int]
    kind: str
    constant: bool
    data: bytes
    dynamic: bool

    @property
    def size(self) -> int:
        """Elements."""
        return int(np.prod(self.shape, dtype=np.int64))


class Op(NamedTuple):
    """One operator as the rules see it."""

    name: str
    version: int
    options: Any
    inputs: list[Tensor]
    outputs: list[Tensor]


Complaint = tuple[Verdict, str]
Rule = Callable[[Op], Iterator[Complaint]]


def _constant_parameters(op: Op) -> Iterator[Complaint]:
    for tensor in op.inputs[1:3] if op.name != "TRANSPOSE_CONV" else [*op.inputs[:2], *op.inputs[3:]]:
        if not tensor.constant:
            yield Verdict.NO, f"{tensor.name} is not constant at compile time (edgetpu#25)"


def _one_dimensional(op: Op) -> Iterator[Complaint]:
    if any(n > 1 for n in op.outputs[0].shape[:-1]):
        yield (
            Verdict.NO,
            f"output {op.outputs[0].shape} is not one-dimensional (edgetpu#27): use a CONV_2D of kernel 1",
        )


def _equal_dilation(op: Op) -> Iterator[Complaint]:
    if op.options.dilationHFactor != op.options.dilationWFactor:
        yield Verdict.NO, "dilation differs between x and y"


def _no_activation(op: Op) -> Iterator[Complaint]:
    if op.options.fusedActivationFunction:
        yield Verdict.NO, "fused activation"


def _concatenation(op: Op) -> Iterator[Complaint]:
    constants = [t for t in op.inputs if t.constant]
    if constants and (len(op.inputs) > 2 or any(any(t.data) for t in constants)):
        yield Verdict.NO, "a constant input must be all zero, and one of two"


def _axes(op: Op) -> set[int]:
    raw = op.inputs[1].data if len(op.inputs) > 1 else b""
    rank = len(op.inputs[0].shape)
    return {int(axis) % rank for axis in np.frombuffer(raw, np.int32)} if rank else set()


def _not_over_batch(op: Op) -> Iterator[Complaint]:
    if 0 in _axes(op) and len(op.inputs[0].shape) > 1:
        yield Verdict.NO, "reduces over the batch"


BIG_REDUCTION: Final = 64 * 128 * 3
KNOWN_TOO_BIG: Final = 256 * 128 * 3


def _small_reduction(op: Op) -> Iterator[Complaint]:
    if op.inputs[0].size >= KNOWN_TOO_BIG:
        yield Verdict.NO, f"reduction of {op.inputs[0].shape}: [1, 256, 128, 3] is not mapped (edgetpu#461)"
    elif op.inputs[0].size > BIG_REDUCTION:
        yield (
            Verdict.LIKELY,
            f"reduction of {op.inputs[0].shape}: beyond [1, 64, 128, 3] unknown (edgetpu#461)",
        )


def _multiple_of_four(op: Op) -> Iterator[Complaint]:
    shape = op.inputs[0].shape
    if len(shape) - 1 in _axes(op) and shape[-1] % 4:
        yield Verdict.NO, f"reduction over {shape[-1]} channels, no multiple of 4"


def _axis_not_batch(op: Op) -> Iterator[Complaint]:
    rank = max(len(op.outputs[0].shape), 1)
    given = np.frombuffer(op.inputs[0].data, np.int32) if op.name == "SPLIT" else [op.options.axis]
    if rank > 1 and any(int(axis) % rank == 0 for axis in given):
        yield Verdict.NO, "along the batch"


def _pads_no_batch(op: Op) -> Iterator[Complaint]:
    paddings = np.frombuffer(op.inputs[1].data, np.int32)
    if len(op.inputs[0].shape) > 1 and paddings[:2].any():
        yield Verdict.NO, "pads the batch"


def _alpha(op: Op) -> Iterator[Complaint]:
    if any(n > 1 for n in op.inputs[1].shape[:-1]):
        yield Verdict.NO, f"alpha {op.inputs[1].shape} is not one-dimensional"


def _plain_slice(op: Op) -> Iterator[Complaint]:
    if (np.frombuffer(op.inputs[3].data, np.int32) != 1).any():
        yield Verdict.NO, "a stride is not 1"
    if op.options.ellipsisMask or op.options.newAxisMask:
        yield Verdict.NO, "ellipsis or new-axis mask"


SOFTMAX_SEEN: Final = 16_384


def _softmax(op: Op) -> Iterator[Complaint]:
    if any(n > 1 for n in op.inputs[0].shape[:-1]):
        yield Verdict.NO, f"input {op.inputs[0].shape} is not one-dimensional"
    if op.inputs[0].size > SOFTMAX_SEEN:
        yield Verdict.NO, f"{op.inputs[0].size} elements; the table says 16,000, the largest seen is 16,384"


def _broadcast(op: Op) -> Iterator[Complaint]:
    if op.inputs[0].shape != op.inputs[1].shape and not any(t.constant for t in op.inputs):
        yield (
            Verdict.LIKELY,
            "two run-time tensors of different shape: no evidence that broadcasting is mapped",
        )


def _constant_factor(op: Op) -> Iterator[Complaint]:
    if any(t.constant for t in op.inputs):
        yield Verdict.LIKELY, "a constant factor needed a fix once (edgetpu#35)"


def _size_dependent(op: Op) -> Iterator[Complaint]:
    yield Verdict.LIKELY, f"{op.outputs[0].shape}: some sizes are not mapped; which is not published"


def _large_reshape(op: Op) -> Iterator[Complaint]:
    if op.inputs[0].size > SOFTMAX_SEEN:
        yield (
            Verdict.LIKELY,
            f"{op.inputs[0].shape}: some large ones are not mapped; the limit is not published",
        )


REDUCTION: Final = (_not_over_batch, _small_reduction)
CONVOLUTION: Final = (_constant_parameters, _equal_dilation)
RULES: Final[dict[str, tuple[str, tuple[Rule, ...]]]] = {
    "ADD": (SEEN, (_broadcast,)),
    "AVERAGE_POOL_2D": (SEEN, (_no_activation,)),
    "CONCATENATION": (SEEN, (_no_activation, _concatenation)),
    "CONV_2D": (SEEN, CONVOLUTION),
    "DEPTHWISE_CONV_2D": (SEEN, CONVOLUTION),
    "EXPAND_DIMS": (TABLE, ()),
    "FULLY_CONNECTED": (SEEN, (_constant_parameters, _one_dimensional)),
    "L2_NORMALIZATION": (TABLE, ()),
    "LOGISTIC": (SEEN, ()),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (SEEN, ()),
    "MAXIMUM": (TABLE, ()),
    "MAX_POOL_2D": (TABLE, (_no_activation,)),
    "MEAN": (TABLE, (*REDUCTION, _multiple_of_four)),
    "MINIMUM": (TABLE, ()),
    "MUL": (SEEN, (_broadcast, _constant_factor)),
    "PACK": (TABLE, (_axis_not_batch,)),
    "PAD": (SEEN, (_pads_no_batch,)),
    "PRELU": (TABLE, (_alpha,)),
    "QUANTIZE": (SEEN, ()),
    "REDUCE_MAX": (TABLE, REDUCTION),
    "REDUCE_MIN": (TABLE, REDUCTION),
    "RELU": (TABLE, ()),
    "RELU6": (TABLE, ()),
    "RELU_N1_TO_1": (TABLE, ()),
    "RESHAPE": (SEEN, (_large_reshape,)),
    "RESIZE_BILINEAR": (TABLE, (_size_dependent,)),
    "RESIZE_NEAREST_NEIGHBOR": (TABLE, (_size_dependent,)),
    "RSQRT": (TABLE, ()),
    "SLICE": (TABLE, ()),
    "SOFTMAX": (SEEN, (_softmax,)),
    "SPACE_TO_DEPTH": (TABLE, ()),
    "SPLIT": (SEEN, (_axis_not_batch,)),
    "SQUEEZE": (TABLE, ()),
    "STRIDED_SLICE": (TABLE, (_plain_slice,)),
    "SUB": (TABLE, (_broadcast,)),
    "SUM": (TABLE, REDUCTION),
    "SQUARED_DIFFERENCE": (TABLE, (_broadcast,)),
    "TANH": (TABLE, ()),
    "TILE": (SEEN, ()),
    "TRANSPOSE": (TABLE, ()),
    "TRANSPOSE_CONV": (TABLE, (_constant_parameters,)),
}
"""What is known to map, where that is known from, and on which conditions."""

FIRST_REFUSED: Final = {
    "CONV_2D": (6, "edgetpu#631"),
    "TRANSPOSE_CONV": (4, "edgetpu#845"),
    "EXP": (2, "libedgetpu#71"),
}
"""Versions that version 16 of the compiler refuses."""


def _general(op: Op) -> Iterator[Complaint]:
    """Rules for every operator."""
    refused, issue = FIRST_REFUSED.get(op.name, (1 << 30, ""))
    if op.version >= refused:
        yield Verdict.NO, f"version {op.version}: the compiler refuses {refused} and later ({issue})"
    for tensor in op.inputs + op.outputs:
        allowed = {"INT8", "UINT8"} | ({"INT32"} if tensor.constant else set())
        if tensor.kind not in allowed:
            yield Verdict.NO, f"{tensor.name} is {tensor.kind.lower()}: the device computes in 8 bits only"
        if tensor.dynamic:
            yield Verdict.NO, f"{tensor.name} has a size that is not fixed (edgetpu#829)"
        if not tensor.constant and any(n > 1 for n in tensor.shape[:-3]):
            yield (
                Verdict.NO,
                f"{tensor.name} {tensor.shape}: more than the inner three sizes exceed 1 (edgetpu#30)",
            )


def judge(op: Op) -> OpVerdict:
    """One operator by itself."""
    if op.name == CUSTOM_OP:
        return OpVerdict(op.name, Verdict.CERTAIN, [], "the compiler's own")
    if op.name not in RULES:
        return OpVerdict(op.name, Verdict.NO, ["not in the table of supported operations"], UNVERIFIED)
    evidence, rules = RULES[op.name]
    complaints = [c for rule in (_general, *rules) for c in rule(op)]
    order = list(Verdict)
    best = Verdict.CERTAIN if evidence == SEEN else Verdict.LIKELY
    verdict = max([best, *(v for v, _ in complaints)], key=order.index)
    reasons = [text for _, text in complaints]
    if evidence == TABLE and not reasons:
        reasons = ["in no compiled file that was seen"]
    return OpVerdict(op.name, verdict, list(dict.fromkeys(reasons)), evidence)


def check(content: bytes) -> Report:
    """Judge a .tflite file. Raises ModelError and MissingRuntimeError."""
    model = parse(content)
    graph = model.subgraphs[0]
    tensors = [_tensor(model, t) for t in graph.tensors]
    verdicts, stopped = [], False
    for operator in graph.operators:
        verdict = judge(_op(model, operator, tensors))
        if stopped and verdict.op != CUSTOM_OP:
            verdict = verdict._replace(
                verdict=Verdict.NO, reasons=["behind the first operator that is not mapped: runs on the CPU"]
            )
        stopped = stopped or verdict.verdict is Verdict.NO
        verdicts.append(verdict)
    used = {i for o in graph.operators for i in o.inputs if i >= 0}
    return Report(verdicts, sum(len(tensors[i].data) for i in used if tensors[i].constant))


def _names(kind: Any) -> dict[int, str]:
    return {value: name for name, value in vars(kind).items() if not name.startswith("_")}


def _tensor(model: Any, tensor: Any) -> Tensor:
    raw = model.buffers[tensor.buffer].data
    data = b"" if raw is None else bytes(raw)
    shape = [] if tensor.shape is None else [int(n) for n in tensor.shape]
    signature = [] if tensor.shapeSignature is None else list(tensor.shapeSignature)
    name = (tensor.name or b"").decode(errors="replace") if isinstance(tensor.name, bytes) else tensor.name
    kind = _names(load_schema().TensorType).get(tensor.type, str(tensor.type))
    return Tensor(name or "a tensor", shape, kind, bool(data), data, -1 in signature or -1 in shape)


def _op(model: Any, operator: Any, tensors: list[Tensor]) -> Op:
    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    name = _names(load_schema().BuiltinOperator).get(number, str(number))
    if name == "CUSTOM":
        name = code.customCode.decode() if isinstance(code.customCode, bytes) else str(code.customCode)
    inputs = [tensors[i] for i in operator.inputs if i >= 0]
    return Op(name, code.version, operator.builtinOptions, inputs, [tensors[i] for i in operator.outputs])
