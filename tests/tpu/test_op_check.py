"""The op checker against what is known, case by case.

Each case is one operator in a file of its own, written with the schema's own classes. `certain` is what public
compiled files show to be mapped, `no` is what the table or a compiler's log refuses, `likely` is the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from tputools import int8_of, some_network

from dgdm.tpu.flatbuffer import FileBuilder
from dgdm.tpu.opcheck import RULES, SRAM, Verdict, check
from dgdm.tpu.runtime import load_schema


@dataclass
class Case:
    """An operator: inputs are shapes, or arrays for constants."""

    op: str
    inputs: list[Any]
    output: tuple[int, ...]
    verdict: str
    says: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    options_type: str | None = None
    version: int = 1
    kind: str = "int8"

    def __str__(self) -> str:
        return f"{self.op}-{self.verdict}-{self.says or self.output}"


OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "MEAN": "ReducerOptions",
    "PACK": "PackOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
}
OUTSIDE = ["BATCH_MATMUL", "GATHER", "SCATTER_ND", "DEQUANTIZE", "FLOOR_MOD"]


def i32(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def i8(*shape: int, value: int = 1) -> np.ndarray:
    return np.full(shape, value, np.int8)


X = (1, 1, 64, 32)
CONV = [X, i8(16, 1, 1, 32), i32(*[0] * 16)]
OUT = (1, 1, 64, 16)
EVEN = {"dilationHFactor": 1, "dilationWFactor": 1}
RELU = {"fusedActivationFunction": 1}

SEEN = [
    Case("CONV_2D", CONV, OUT, "certain", version=3, options=EVEN),
    Case("DEPTHWISE_CONV_2D", [X, i8(1, 1, 1, 32), i32(*[0] * 32)], X, "certain", options=EVEN),
    Case("ADD", [X, X], X, "certain"),
    Case("CONCATENATION", [X, X], (1, 1, 64, 64), "certain"),
    Case("AVERAGE_POOL_2D", [(1, 8, 8, 4)], (1, 4, 4, 4), "certain"),
    Case("FULLY_CONNECTED", [(1, 32), i8(16, 32), i32(*[0] * 16)], (1, 16), "certain"),
    Case("SOFTMAX", [(1, 1000)], (1, 1000), "certain"),
    Case("SOFTMAX", [(1, 16_384)], (1, 16_384), "certain"),
    Case("RESHAPE", [(1, 1, 64, 32), i32(1, 2048)], (1, 2048), "certain"),
    Case("PAD", [(1, 8, 8, 4), i32(0, 0, 1, 1, 1, 1, 0, 0)], (1, 10, 10, 4), "certain"),
    Case("QUANTIZE", [X], X, "certain"),
    Case("LOGISTIC", [X], X, "certain"),
    Case("SPLIT", [i32(3), X], OUT, "certain"),
    Case("TILE", [X, i32(1, 1, 2, 1)], (1, 1, 128, 32), "certain"),
    Case("UNIDIRECTIONAL_SEQUENCE_LSTM", [(1, 4, 8)], (1, 4, 8), "certain"),
    Case("MUL", [(1, 128, 128, 1), (1, 128, 128, 1)], (1, 128, 128, 1), "certain"),
]

REFUSED = [
    *(Case(op, [X], X, "no", "not in the table") for op in OUTSIDE),
    # weights that are an input: edgetpu#24, #25
    Case("CONV_2D", [X, (16, 1, 1, 32), i32(*[0] * 16)], OUT, "no", "edgetpu#25", EVEN, version=3),
    Case("FULLY_CONNECTED", [(1, 32), (16, 32), i32(*[0] * 16)], (1, 16), "no", "edgetpu#25"),
    # more than one row: edgetpu#27
    Case("FULLY_CONNECTED", [(64, 32), i8(16, 32), i32(*[0] * 16)], (64, 16), "no", "edgetpu#27"),
    Case("ADD", [(4, 8, 8, 4)] * 2, (4, 8, 8, 4), "no", "edgetpu#30"),
    Case("MEAN", [(1, 256, 128, 3), i32(1, 2)], (1, 3), "no", "edgetpu#461"),
    Case("CONV_2D", CONV, OUT, "no", "edgetpu#631", EVEN, version=6),
    Case(
        "TRANSPOSE_CONV",
        [i32(1, 4, 4, 8), i8(8, 2, 2, 4), (1, 2, 2, 4)],
        (1, 4, 4, 8),
        "no",
        "edgetpu#845",
        version=4,
    ),
    Case("EXP", [X], X, "no", "not in the table", version=2),  # libedgetpu#71
    Case("ADD", [X, X], X, "no", "float32", kind="float32"),
    Case("ADD", [X, X], X, "no", "int16", kind="int16"),
    Case("CONV_2D", CONV, OUT, "no", "dilation", {"dilationHFactor": 1, "dilationWFactor": 2}, version=3),
    Case("AVERAGE_POOL_2D", [(1, 8, 8, 4)], (1, 4, 4, 4), "no", "fused", RELU),
    Case("MAX_POOL_2D", [(1, 8, 8, 4)], (1, 4, 4, 4), "no", "fused", RELU),
    Case("CONCATENATION", [X, X], (1, 1, 64, 64), "no", "fused", RELU),
    Case("CONCATENATION", [X, i8(*X)], (1, 1, 64, 64), "no", "all zero"),
    Case("CONCATENATION", [X, X, i8(*X, value=0)], (1, 1, 64, 96), "no", "all zero"),
    Case("MEAN", [(1, 8, 8, 4), i32(0)], (8, 8, 4), "no", "over the batch"),
    Case("SUM", [(1, 8, 8, 4), i32(0)], (8, 8, 4), "no", "over the batch"),
    Case("REDUCE_MAX", [(1, 8, 8, 4), i32(0)], (8, 8, 4), "no", "over the batch"),
    Case("MEAN", [(1, 8, 8, 6), i32(3)], (1, 8, 8), "no", "multiple of 4"),
    Case("PACK", [(8, 4), (8, 4)], (2, 8, 4), "no", "along the batch", {"axis": 0}),
    Case("SPLIT", [i32(0), (2, 8, 4)], (1, 8, 4), "no", "along the batch"),
    Case("PAD", [(1, 8, 8, 4), i32(1, 0, 0, 0, 0, 0, 0, 0)], (2, 8, 8, 4), "no", "pads the batch"),
    Case("PRELU", [(1, 8, 8, 4), i8(8, 8, 4)], (1, 8, 8, 4), "no", "one-dimensional"),
    Case("STRIDED_SLICE", [(1, 8, 4), i32(0, 0, 0), i32(1, 8, 4), i32(1, 2, 1)], (1, 4, 4), "no", "stride"),
    Case(
        "STRIDED_SLICE",
        [(1, 8, 4), i32(0, 0, 0), i32(1, 8, 4), i32(1, 1, 1)],
        (1, 8, 4),
        "no",
        "mask",
        {"ellipsisMask": 1},
    ),
    Case("SOFTMAX", [(1, 20_000)], (1, 20_000), "no", "16,000"),
    Case("SOFTMAX", [(1, 4, 10)], (1, 4, 10), "no", "one-dimensional"),
]

IN_DOUBT = [
    Case(
        "MEAN", [(1, 64, 128, 3), i32(1, 2)], (1, 3), "likely"
    ),  # mapped in pieces of this size: edgetpu#461
    Case("MEAN", [(1, 128, 128, 3), i32(1, 2)], (1, 3), "likely", "edgetpu#461"),
    Case("MUL", [(1, 64, 64, 1), (1, 1, 64, 32)], (1, 64, 64, 32), "likely", "broadcasting"),
    Case("MUL", [X, i8(1, 1, 1, 32)], X, "likely", "edgetpu#35"),
    Case("SUM", [(1, 8, 8, 4), i32(2)], (1, 8, 4), "likely"),
    Case("RESHAPE", [(1, 256, 256, 32), i32(1, 65_536, 32)], (1, 65_536, 32), "likely", "not published"),
    Case("RESIZE_BILINEAR", [(1, 8, 8, 4), i32(16, 16)], (1, 16, 16, 4), "likely", "not published"),
    Case("STRIDED_SLICE", [(1, 8, 4), i32(0, 0, 0), i32(1, 4, 4), i32(1, 1, 1)], (1, 4, 4), "likely"),
    Case("PRELU", [(1, 8, 8, 4), i8(1, 1, 4)], (1, 8, 8, 4), "likely"),
    Case("PACK", [(8, 4), (8, 4)], (8, 2, 4), "likely", options={"axis": 1}),
    Case(
        "TRANSPOSE_CONV",
        [i32(1, 4, 4, 8), i8(8, 2, 2, 4), (1, 2, 2, 4)],
        (1, 4, 4, 8),
        "likely",
        version=3,
    ),
    *(
        Case(op, [X], X, "likely")
        for op in [
            "EXPAND_DIMS",
            "L2_NORMALIZATION",
            "RELU",
            "RELU6",
            "RELU_N1_TO_1",
            "RSQRT",
            "SLICE",
            "SPACE_TO_DEPTH",
            "SQUEEZE",
            "TANH",
            "TRANSPOSE",
        ]
    ),
    *(Case(op, [X, X], X, "likely") for op in ("MAXIMUM", "MINIMUM", "SUB", "SQUARED_DIFFERENCE")),
    Case("MAX_POOL_2D", [(1, 8, 8, 4)], (1, 4, 4, 4), "likely"),
    Case("REDUCE_MIN", [(1, 8, 8, 4), i32(1)], (1, 8, 4), "likely"),
    Case("REDUCE_MAX", [(1, 8, 8, 4), i32(1)], (1, 8, 4), "likely"),
    Case("RESIZE_NEAREST_NEIGHBOR", [(1, 8, 8, 4), i32(16, 16)], (1, 16, 16, 4), "likely"),
]


def written(case: Case) -> FileBuilder:
    b = FileBuilder(case.op)
    numbers = []
    for n, given in enumerate(case.inputs):
        if isinstance(given, tuple):
            numbers.append(b.input(f"x{n}", given, case.kind, 0.1))
        else:
            numbers.append(b.tensor(f"c{n}", given.shape, given.dtype.name, 0.1, data=given))
    y = b.tensor("y", case.output, case.kind, 0.1)
    kind = OPTIONS.get(case.op, "AddOptions")
    options = getattr(load_schema(), f"{kind}T")()
    for name, value in case.options.items():
        setattr(options, name, value)
    b.output(b.operator(case.op, numbers, y, kind, options, case.version))
    return b


@pytest.mark.parametrize("case", SEEN + REFUSED + IN_DOUBT, ids=str)
def test_each_known_case(case: Case) -> None:
    report = check(written(case).build())
    (found,) = report.ops
    assert found.op == case.op
    assert found.verdict == case.verdict, found
    assert case.says in "; ".join(found.reasons), found
    assert found.reasons or found.verdict is Verdict.CERTAIN, "less than certain says why"


def test_every_rule_has_a_case() -> None:
    assert {case.op for case in SEEN + REFUSED + IN_DOUBT} >= set(RULES)
    certain = {case.op for case in SEEN}
    for op, (evidence, _) in RULES.items():
        assert ("compiled files" in evidence) == (op in certain), op


def test_nothing_claims_to_have_run_on_a_device() -> None:
    for case in SEEN + REFUSED + IN_DOUBT:
        assert "unverified on hardware" in check(written(case).build()).ops[0].evidence


def test_what_stands_behind_an_unmapped_operator_runs_on_the_cpu() -> None:
    b = FileBuilder("three")
    x = b.input("x", X, "int8", 0.1)
    options = load_schema().AddOptionsT()
    for n, op in enumerate(["LOGISTIC", "FLOOR_MOD", "LOGISTIC"]):
        x = b.operator(op, [x], b.tensor(f"y{n}", X, "int8", 0.1), "AddOptions", options, 1)
    b.output(x)
    report = check(b.build())
    assert [op.verdict for op in report.ops] == ["certain", "no", "no"]
    assert "behind the first operator" in report.ops[2].reasons[0]
    assert report.verdict is Verdict.NO


def test_a_size_that_is_not_fixed_is_refused() -> None:
    b = written(SEEN[2])
    b._graph.tensors[0].shapeSignature = np.array([1, 1, -1, 32], np.int32)
    (found,) = check(b.build()).ops
    assert found.verdict is Verdict.NO
    assert "edgetpu#829" in found.reasons[0]


def test_parameters_are_counted_against_the_memory_of_the_device() -> None:
    content = int8_of(some_network(np.random.default_rng(1), 100, 200), np.ones((2, 100)))
    report = check(content)
    assert report.parameters == 100 * 200 + 200 * 4
    assert report.fits
    assert not report._replace(parameters=SRAM + 1).fits


def test_a_file_without_operators_has_nothing_to_run() -> None:
    b = FileBuilder("nothing")
    b.output(b.input("x", (1, 2), "int8", 0.1))
    assert check(b.build()).verdict is Verdict.NO
