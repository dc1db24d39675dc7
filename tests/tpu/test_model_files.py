"""Files that are written here run in LiteRT and give what NumPy gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tputools import int8_of, int8_twin, ranges_of, some_network

from dgdm.tpu.errors import ModelError
from dgdm.tpu.files import Precision, float_file, integer_file, parse, read_float_file, scale_of
from dgdm.tpu.model import CpuModel, from_raw, read_model, require_finite, to_raw
from dgdm.tpu.network import PRESETS, network_of, preset
from dgdm.tpu.opcheck import Verdict, check
from dgdm.tpu.runtime import load_runtime

WIDTHS = st.lists(st.integers(1, 24), min_size=2, max_size=5)


def run(content: bytes, x: np.ndarray) -> np.ndarray:
    model = CpuModel(content)
    q = to_raw(x.astype(np.float32), model.inputs[0]).reshape(model.inputs[0].shape)
    return from_raw(model.invoke(q)[0], model.outputs[0]).reshape(len(x), -1)


@given(widths=WIDTHS, rows=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
def test_a_float_file_gives_what_numpy_gives(widths: list[int], rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    network = some_network(random, *widths)
    x = random.normal(size=(rows, widths[0])).astype(np.float32)
    np.testing.assert_allclose(run(float_file(network, rows), x), network.forward(x), rtol=1e-4, atol=1e-4)


@given(widths=WIDTHS, rows=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
def test_an_int8_file_gives_what_its_twin_gives(widths: list[int], rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    network = some_network(random, *widths)
    ranges = ranges_of(network, random.normal(size=(50, widths[0])))
    content = integer_file(network, ranges, rows=rows)
    model = CpuModel(content)
    q = random.integers(-128, 128, model.inputs[0].shape).astype(np.int8)
    expected, off = int8_twin(network, ranges, q.reshape(rows, -1))
    assert (np.abs(model.invoke(q)[0].reshape(rows, -1).astype(int) - expected) <= off).all()


@pytest.mark.parametrize("kind", [Precision.INT8, Precision.INT16])
def test_a_channel_without_weights_gives_its_bias(kind: Precision) -> None:
    weights = [np.eye(4, 3) * [1, 1, 0], np.eye(4)]
    network = network_of("n", weights, [np.array([0.0, 0, 40, 0.001]), np.zeros(4)])
    x = np.random.default_rng(1).uniform(0, 0.01, (8, 3)).astype(np.float32)
    got = run(int8_of(network, x, rows=8, precisions=[kind] * 2), x)
    np.testing.assert_allclose(got[:, 2], 40, rtol=0.01)
    np.testing.assert_allclose(got[:, 3], 0.001, atol=0.1)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_lose_little_in_int8(name: str) -> None:
    network = preset(name)
    x = np.random.default_rng(3).normal(size=(64, PRESETS[name][0])).astype(np.float32)
    content = int8_of(network, x, rows=64)
    exact = network.forward(x)
    assert np.linalg.norm(run(content, x) - exact) < 0.03 * np.linalg.norm(exact)
    assert check(content).verdict is Verdict.CERTAIN


@pytest.mark.parametrize(
    ("kinds", "error"),
    [
        ([Precision.INT16] * 3, 0.02),  # its weights have 8 bits
        ([Precision.INT4] * 3, 0.4),
        ([Precision.INT8, Precision.INT16, Precision.INT4], 0.3),
        ([Precision.INT16, Precision.INT8, Precision.INT16], 0.05),
    ],
)
def test_mixed_precisions_run(kinds: list[Precision], error: float) -> None:
    random = np.random.default_rng(5)
    network = some_network(random, 24, 32, 40, 8)
    x = random.normal(size=(16, 24)).astype(np.float32)
    exact = network.forward(x)
    got = run(int8_of(network, x, rows=16, precisions=kinds), x)
    assert np.linalg.norm(got - exact) < error * np.linalg.norm(exact)


def test_int4_weights_take_half_the_room() -> None:
    network = some_network(np.random.default_rng(1), 64, 64)
    x = np.ones((4, 64))
    sizes = [check(int8_of(network, x, precisions=[kind])).parameters for kind in Precision]
    assert sizes[1] - sizes[0] == 64 * 64 // 2
    assert sizes[2] - sizes[1] == 64 * 4, "int16 differs by its bias of 64 bits"


@given(
    low=st.floats(-1e4, 0),
    high=st.floats(0.001, 1e4),
    kind=st.sampled_from(["int8", "int16"]),
    at=st.floats(0, 1),
)
def test_a_number_within_the_range_comes_back_within_half_a_step(
    low: float, high: float, kind: str, at: float
) -> None:
    scale = scale_of((low, high), kind)
    ends = np.iinfo(kind)
    assert ends.min <= scale.zero_point <= ends.max
    x = low + at * (high - low)
    q = np.clip(np.rint(x / scale.scale) + scale.zero_point, ends.min, ends.max)
    # the zero point is an integer: the far ends may lose up to half a step more
    assert abs((q - scale.zero_point) * scale.scale - x) <= scale.scale * 1.01
    assert (np.rint(0 / scale.scale) + scale.zero_point - scale.zero_point) * scale.scale == 0


def test_a_file_is_read_back(tmp_path) -> None:  # noqa: ANN001 - a pytest path
    network = some_network(np.random.default_rng(2), 5, 7, 3)
    path = tmp_path / "x.tflite"
    path.write_bytes(float_file(network, rows=4))
    again = read_float_file(path)
    x = np.random.default_rng(3).normal(size=(9, 5)).astype(np.float32)
    np.testing.assert_array_equal(again.forward(x), network.forward(x))
    path.write_bytes(int8_of(network, x))
    with pytest.raises(ModelError, match="no float32 constant: quantise from float32 files only"):
        read_float_file(path)


@pytest.mark.parametrize(
    "content", [b"", b"TFL3", b"\x18\0\0\0TFL3\xff\xff\xff\xff", b"\0" * 100, b"PK\3\4junkjunk"]
)
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(ModelError, match=r"no (readable )?\.tflite file|schema version"):
        CpuModel(content)


def test_a_file_without_a_subgraph_does_not_reach_the_interpreter() -> None:
    """LiteRT 2.3 crashes on it."""
    import struct

    with pytest.raises(ModelError, match="0 subgraphs"):
        CpuModel(struct.pack("<I4sHHHHiI", 16, b"TFL3", 6, 8, 4, 0, 8, 3))


@given(st.data())
def test_a_damaged_file_is_refused_or_read(data: st.DataObject) -> None:
    content = bytearray(int8_of(some_network(np.random.default_rng(1), 3, 2), np.ones((2, 3)), rows=2))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        (graph,) = (model := parse(bytes(content))).subgraphs
    except ModelError:
        return
    tensors = range(-1, len(graph.tensors or []))  # -1: an input that is left out
    for operator in graph.operators or []:
        assert operator.opcodeIndex in range(len(model.operatorCodes or [])), (
            "the interpreter would follow it"
        )
        assert {*list_of(operator.inputs), *list_of(operator.outputs)} <= {*tensors}


def list_of(vector: object) -> list[int]:
    """A vector of the schema's objects; None when it is empty."""
    return [] if vector is None else [int(place) for place in vector]  # type: ignore[attr-defined]


def test_the_plain_file_and_the_compiled_one_find_each_other(tmp_path) -> None:  # noqa: ANN001
    content = int8_of(some_network(np.random.default_rng(1), 3, 2), np.ones((2, 3)))
    (tmp_path / "x.tflite").write_bytes(content)
    assert read_model(tmp_path / "x.tflite").compiled is None
    (tmp_path / "x_edgetpu.tflite").write_bytes(b"for the device")
    for name in ("x.tflite", "x_edgetpu.tflite"):
        assert read_model(tmp_path / name).compiled == b"for the device"
        assert read_model(tmp_path / name).content == content
    (tmp_path / "x.tflite").unlink()
    with pytest.raises(ModelError, match="the CPU needs the plain file"):
        read_model(tmp_path / "x_edgetpu.tflite")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_named(bad: float) -> None:
    x = np.ones((3, 4), np.float32)
    require_finite(x, "features")
    require_finite(np.full((3, 4), 3e38, np.float32), "features")
    x[2, 1] = bad
    with pytest.raises(ModelError, match=rf"features: the number at \(2, 1\) is {bad}"):
        require_finite(x, "features")


def test_litert_is_the_runtime() -> None:
    assert load_runtime().name == "ai_edge_litert"
