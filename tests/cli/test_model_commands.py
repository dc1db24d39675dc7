"""`dgdm model` and `dgdm tpu`: from weights to a measured file, devices in words, a mistake in a sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mockedgetpu import Bus, apex, have_c_compiler, install_compiler, library
from tputools import some_network
from typer.testing import CliRunner, Result

from dgdm.cli import app
from dgdm.tpu.discovery import Machine
from dgdm.tpu.model import CpuModel, read_model
from dgdm.tpu.network import write_weights
from dgdm.tpu.opcheck import Verdict, check

RANDOM = np.random.default_rng(8)
NETWORK = some_network(RANDOM, 6, 12, 3)
X = RANDOM.normal(size=(400, 6)).astype(np.float32)


def dgdm(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], prog_name="dgdm")


def found(*args: str | Path, code: int = 0) -> Any:
    """What a command says to scripts."""
    done = dgdm(*args, "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def refused(*args: str | Path) -> str:
    done = dgdm(*args)
    assert done.exit_code == 2, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert not done.stdout
    return " ".join(done.stderr.split())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights and data, and locks of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dgdm.tpu.lock.lock_folder", lambda: tmp_path)
    monkeypatch.setattr("dgdm.telemetry.configure_logging", lambda *_: None)  # of this process
    write_weights(NETWORK, tmp_path / "w.npz")
    np.savez(tmp_path / "data.npz", features=X, labels=NETWORK.forward(X).argmax(axis=1))
    return tmp_path


def test_from_weights_to_a_measured_file(folder: Path) -> None:
    built = found("model", "build", "w.npz", "--out", "f.tflite", "--rows", "32")
    assert built["widths"] == [6, 12, 3]
    assert built["digest"] == read_model(folder / "f.tflite").digest
    for source in ("w.npz", "f.tflite"):
        made = found(
            "model", "quantize", source, "--data", "data.npz", "--out", "q.tflite", "--target", "edgetpu",
            "--accuracy", "0.9", "--rows", "32",
        )  # fmt: skip
        assert made["files"] == ["q.tflite"]
        assert made["reached"]
        assert made["chosen"] == made["int8"]
        assert made["chosen"]["score"] >= 0.9
        assert [layer["chosen"] for layer in made["layers"]] == ["int8", "int8"]
    judged = found("model", "check", "q.tflite")
    assert judged["verdict"] == check((folder / "q.tflite").read_bytes()).verdict == Verdict.CERTAIN
    assert "unverified on hardware" in judged["note"]
    seen = found("model", "inspect", "q.tflite")
    assert (seen["operators"], seen["edge_tpu"], seen["compiled"]) == (["CONV_2D"] * 2, "certain", None)
    spec = CpuModel((folder / "q.tflite").read_bytes()).inputs[0]
    assert seen["inputs"] == [f"x: int8 [1, 1, 32, 6], scale {spec.scale:.4g}, zero point {spec.zero_point}"]
    timed = found("model", "bench", "q.tflite", "--runs", "7")
    assert (timed["runs"], timed["rows"]) == (7, 31)
    assert 0 < timed["median_us"] <= timed["p99_us"]
    assert timed["rows_by"] == {"device": 0, "cpu": 12 * 31}


def test_people_read_the_same(folder: Path) -> None:
    assert "f.tflite" in dgdm("model", "build", "DGDM-Small", "--out", "f.tflite").stdout
    said = dgdm("model", "quantize", "w.npz", "--data", "data.npz", "--out", "q.tflite", "--accuracy", "0.9")
    assert "12 x 6" in said.stdout
    assert "written: q.tflite" in said.stdout
    said = dgdm("model", "check", "f.tflite")
    assert said.exit_code == 1, "float32 is not for the device"
    assert "no      CONV_2D: x is float32: the device computes in 8 bits only" in said.stdout
    assert "unverified on hardware" in said.stdout
    assert "1, 1, 256, 6" in dgdm("model", "inspect", "q.tflite").stdout
    assert "median us" in dgdm("model", "bench", "q.tflite", "--runs", "1").stdout


def test_a_target_that_is_missed_is_exit_code_1(folder: Path) -> None:
    random = np.random.default_rng(1)
    np.savez("noise.npz", features=X, labels=random.integers(0, 3, len(X)))
    sure = found("model", "quantize", "w.npz", "--data", "data.npz", "--out", "q.tflite", "--accuracy", "0.5")
    assert any(layer["chosen"] == "int4" for layer in sure["layers"]), "half the score is easily kept"
    np.savez("wild.npz", features=np.append(X, [[1e6] * 6] * 200, axis=0))
    missed = found(
        "model", "quantize", "w.npz", "--data", "wild.npz", "--out", "q.tflite", "--accuracy", "1", "--no-mixed",
        code=1,
    )  # fmt: skip
    assert not missed["reached"]
    assert any("the target is not reached" in note for note in missed["notes"])


def test_the_compiler_and_a_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not have_c_compiler():
        pytest.skip("no C compiler to build the mock library with")
    bus = Bus(folder / "bus")
    monkeypatch.setenv("MOCK_EDGETPU", str(bus.folder))
    monkeypatch.setenv("PATH", install_compiler(folder / "bin"))
    made = found(
        "model", "quantize", "w.npz", "--data", "data.npz", "--out", "q.tflite", "--target", "edgetpu",
        "--accuracy", "0.9",
    )  # fmt: skip
    assert made["files"] == ["q.tflite", "q_edgetpu.tflite"]
    assert found("model", "inspect", "q.tflite")["compiled"] == (folder / "q_edgetpu.tflite").stat().st_size
    options = ["--device", "pci:0", "--library", library(), "--runs", "3"]
    timed = found("model", "bench", "q.tflite", *options)
    assert timed["rows_by"] == {"device": 8 * 255, "cpu": 0}
    bus.mode("error")
    done = subprocess.run(
        [sys.executable, "-m", "dgdm", "model", "bench", "q.tflite", *options, "--json"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    timed = json.loads(done.stdout)
    assert timed["rows_by"] == {"device": 0, "cpu": 8 * 255}, "it is said who answered"
    assert "HIB Error" in done.stderr, "and why"


def test_devices_of_the_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(folder / "sys", folder / "dev")
    monkeypatch.setattr("dgdm.tpu.discovery.Machine", lambda: machine)
    monkeypatch.setattr("dgdm.tpu.diagnosis.Machine", lambda: machine)
    assert found("tpu", "list") == {"devices": [], "without_driver": []}
    assert "no Edge TPU on this machine" in dgdm("tpu", "list").stdout
    assert [one["device"] for one in found("tpu", "health")] == ["cpu"]
    apex(machine.sysfs, temperature=-89_700, device_folder=machine.dev)
    listed = found("tpu", "list")["devices"]
    assert listed == [
        {"device": "pci:0", "name": "/dev/apex_0", "bus": "pci", "celsius": -89.7, "owner": None}
    ]
    assert "pci:0  /dev/apex_0  -89.7 °C  free" in dgdm("tpu", "list").stdout
    seen = found("tpu", "health", code=1)
    assert [one["condition"] for one in seen] == ["lost"]
    assert "BAD  pci:0: /dev/apex_0 reads -89.7 °C" in dgdm("tpu", "health").stdout
    advice = found("tpu", "reset-advice")
    assert "echo 1 > /sys/bus/pci/rescan" in advice["pci:0"]
    assert "the CPU needs no reset" in dgdm("tpu", "reset-advice", "cpu").stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["build", "nope", "--out", "x.tflite"], "'nope' is neither a file of weights nor one of DGDM-Small"),
        (["build", "nope.npz", "--out", "x.tflite"], "nope.npz cannot be read"),
        (["build", "w.npz", "--out", "x.bin"], "--out 'x.bin' does not end in .tflite"),
        (["build", "w.npz", "--out", "no/x.tflite"], "no/x.tflite: No such file or directory"),
        (["build", "w.npz", "--out", "x.tflite", "--rows", "1"], "'1' is not a whole number of at least 2"),
        (["quantize", "w.npz", "--data", "no.npz", "--out", "x.tflite"], "no.npz is no .npz of arrays"),
        (["quantize", "w.npz", "--data", "w.npz", "--out", "x.tflite"], "want an array `features`"),
        (
            ["quantize", "w.npz", "--data", "data.npz", "--out", "x.tflite", "--target", "gpu"],
            "--target 'gpu': give cpu or edgetpu",
        ),
        (
            ["quantize", "w.npz", "--data", "data.npz", "--out", "x.tflite", "--accuracy", "2"],
            "target_accuracy = 2.0 is not in (0, 1]",
        ),
        (
            ["quantize", "DGDM-Small", "--data", "data.npz", "--out", "x.tflite"],
            "DGDM-Small takes 128 features, the data has 6",
        ),
        (["check", "no.tflite"], "no.tflite: No such file or directory"),
        (["check", "data.npz"], "no .tflite file: it does not say TFL3"),
        (["inspect", "no.tflite"], "no.tflite cannot be read"),
        (["bench", "data.npz"], "it does not say TFL3"),
        (["bench", "no.tflite", "--runs", "0"], "'0' is not a whole number of at least 1"),
    ],
)
def test_a_mistake_is_a_sentence(folder: Path, args: list[str], says: str) -> None:
    said = refused("model", *args)
    assert says in " ".join(said.replace("│", " ").split())


def test_devices_that_cannot_be_are_named(folder: Path) -> None:
    for command in (["tpu", "health", "gpu"], ["tpu", "reset-advice", "gpu"]):
        assert "device_path 'gpu' is none of cpu, /dev/apex_N, pci:N, usb:N" in refused(*command)
    dgdm("model", "build", "w.npz", "--out", "f.tflite")
    assert "'gpu' is none of" in refused("model", "bench", "f.tflite", "--device", "gpu")
