"""The front door, and a matrix through it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mockedgetpu import QUICK, Bus, compiled, install_compiler, library
from tputools import int8_of, some_network

from dgdm import EdgeTPU
from dgdm.tpu.compiler import compile_model, verify
from dgdm.tpu.errors import ModelError, TpuError
from dgdm.tpu.files import Precision, float_file
from dgdm.tpu.model import golden_of
from dgdm.tpu.opcheck import check
from dgdm.tpu.power import plan

RANDOM = np.random.default_rng(4)
NETWORK = some_network(RANDOM, 10, 16, 5)
X = RANDOM.normal(size=(70, 10)).astype(np.float32)
PLAIN = int8_of(NETWORK, X, rows=32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "m.tflite"
    path.write_bytes(PLAIN)
    return path


def opened(bus: Bus, path: Path, device: str = "pci:0", **options: object) -> EdgeTPU:
    given = {"library": library(), "environment": bus.environment, "patience": QUICK} | options
    return EdgeTPU(device, path, **given)


def test_the_cpu(path: Path) -> None:
    with EdgeTPU("cpu", path) as tpu:
        exact = NETWORK.forward(X)
        assert np.linalg.norm(tpu.run(X) - exact) < 0.03 * np.linalg.norm(exact)
        assert tpu.get_temperature() is None
        tpu.set_power_limit(1.0)


@pytest.mark.parametrize("n", [0, 1, 31, 32, 62, 70])
def test_any_number_of_rows(path: Path, n: int) -> None:
    with EdgeTPU("cpu", path) as tpu:
        together = tpu.run(X[:n])
        assert together.shape == (n, 5)
        alone = [tpu.run(X[i : i + 1]) for i in range(n)]
        np.testing.assert_array_equal(together, np.concatenate([np.empty((0, 5)), *alone]))


def test_a_device(bus: Bus, path: Path) -> None:
    path.with_name("m_edgetpu.tflite").write_bytes(compiled(PLAIN))
    with EdgeTPU("cpu", path) as cpu, opened(bus, path) as tpu:
        scale = tpu.model._out.scale
        np.testing.assert_allclose(tpu.run(X), cpu.run(X), atol=1.01 * scale)
        assert tpu.model.by_device == len(X)
        tpu.set_power_limit(0.5)
        assert tpu.accelerator._power == plan(0.5)


def test_a_device_that_is_required(bus: Bus, path: Path) -> None:
    path.with_name("m_edgetpu.tflite").write_bytes(compiled(PLAIN))
    bus.devices("")
    with pytest.raises(TpuError, match=r"pci:0 does not come up: start: Failed to load delegate .*pci:0"):
        opened(bus, path, required=True)
    with opened(bus, path) as tpu:
        assert len(tpu.run(X)) == len(X), "the CPU answers"


def test_the_compiler_is_used_when_it_is_there(
    bus: Bus, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ModelError, match="edgetpu_compiler is not on PATH"):
        opened(bus, path)
    monkeypatch.undo()
    monkeypatch.setattr("dgdm.tpu.lock.lock_folder", lambda: tmp_path)
    monkeypatch.setenv("PATH", install_compiler(tmp_path / "bin"))
    with opened(bus, path) as tpu:
        tpu.run(X)
        assert tpu.model.by_device == len(X)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("echo 'Internal compiler error' >&2; exit 1", "ended with 1: Internal compiler error"),
        ("exit 0", "ended with 0: no word"),
        ('cp "$4" "$3/model_edgetpu.tflite"', "nothing was mapped"),
    ],
)
def test_a_compiler_that_fails_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, says: str
) -> None:
    monkeypatch.setenv("PATH", install_compiler(tmp_path / "bin", body))
    with pytest.raises(ModelError, match=says):
        compile_model(PLAIN)


def test_what_the_device_cannot_do_is_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", install_compiler(tmp_path / "bin", "exit 3"))
    with pytest.raises(ModelError, match="the device cannot run this file: CONV_2D: x is float32"):
        compile_model(float_file(NETWORK))
    four = int8_of(NETWORK, X, precisions=[Precision.INT4, Precision.INT8])
    with pytest.raises(ModelError, match="w0 is int4: the device computes in 8 bits only"):
        compile_model(four)


def test_a_compiled_file_is_wholly_the_devices() -> None:
    content = compiled(PLAIN)
    verify(content)
    assert check(content).compiled
    with pytest.raises(ModelError, match="nothing was mapped"):
        verify(PLAIN)


def test_an_operator_left_on_the_cpu_is_named() -> None:
    from dgdm.tpu.flatbuffer import FileBuilder

    b = FileBuilder("half")
    x = b.input("x", (1, 4), "int8", 1.0)
    y = b.custom("edgetpu-custom-op", [x], b.tensor("y", (1, 4), "int8", 1.0), b"1234")
    b.output(b.quantize(y, b.tensor("z", (1, 4), "int8", 0.5)))
    with pytest.raises(ModelError, match="the compiler left 1 operators on the CPU: QUANTIZE"):
        verify(b.build())


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.ones(10), r"a matrix \(10,\) was given; want \[n, 10\]"),
        (np.ones((2, 9)), r"a matrix \(2, 9\) was given"),
        (np.array([[1.0] * 9 + [np.nan]]), r"features: the number at \(0, 9\) is nan"),
    ],
)
def test_bad_input_is_named(path: Path, x: np.ndarray, says: str) -> None:
    with EdgeTPU("cpu", path) as tpu, pytest.raises(ModelError, match=says):
        tpu.run(x)


def test_bad_models_and_limits_are_named(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        EdgeTPU("cpu", tmp_path / "none.tflite")
    with pytest.raises(ModelError, match="device_path 'gpu' is none of"):
        EdgeTPU("gpu", path)
    with EdgeTPU("cpu", path) as tpu:
        for watts in (0, -1.0, float("nan")):
            with pytest.raises(ModelError, match=f"a power limit of {watts} W"):
                tpu.set_power_limit(watts)
    path.write_bytes(int8_of(NETWORK, X, rows=1))
    with pytest.raises(ModelError, match="no model of rows"):
        EdgeTPU("cpu", path)


def test_the_golden_row_is_the_same_for_all_time() -> None:
    golden = golden_of(PLAIN)
    assert golden.problem(golden.answer) is None
    assert golden.problem(golden.answer.astype(int) + 4) is None
    assert (
        golden.problem(golden.answer.astype(int) + 5) == "the golden row came back 5 steps off, 4 are allowed"
    )
    assert golden.question.tolist()[:5] == golden_of(int8_of(NETWORK, X, rows=4)).question.tolist()[:5]
