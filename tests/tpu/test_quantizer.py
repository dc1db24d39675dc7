"""Choosing precisions by a measured loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mockedgetpu import install_compiler
from tputools import some_network

from dgdm import AdaptiveQuantizer, CalibrationData
from dgdm.tpu.accelerator import Cpu
from dgdm.tpu.calibration import cosine
from dgdm.tpu.errors import ModelError
from dgdm.tpu.files import Precision, float_file
from dgdm.tpu.model import ModelFile
from dgdm.tpu.network import Network, network_of, write_weights
from dgdm.tpu.opcheck import Verdict, check
from dgdm.tpu.rows import RowModel

RANDOM = np.random.default_rng(8)
NETWORK = some_network(RANDOM, 16, 48, 24, 4)
X = RANDOM.normal(size=(400, 16)).astype(np.float32)
Y = NETWORK.forward(X).argmax(axis=1)
DATA = CalibrationData.from_dataset(X, Y)


def delicate() -> tuple[Network, np.ndarray, np.ndarray]:
    """The second layer subtracts large numbers from each other: activations of 8 bits lose what is left."""
    second = np.concatenate([np.eye(4), -np.eye(4)], axis=1)
    first = np.concatenate([np.eye(4) * 50, np.zeros((4, 4))])
    network = network_of("delicate", [first, second], [np.full(8, 400.0), np.zeros(4)])
    x = RANDOM.uniform(0, 0.05, (600, 4)).astype(np.float32)
    return network, x, network.forward(x).argmax(axis=1)


def test_mixed_precision_is_smaller_and_good_enough() -> None:
    made = AdaptiveQuantizer(DATA, target_accuracy=0.95).quantize_model(NETWORK)
    report = made.report
    assert report.float_score == 1.0
    assert report.reached
    assert report.chosen.score >= 0.95
    assert len(made.content) == report.chosen.bytes < report.int8.bytes
    assert Precision.INT4 in [layer.chosen for layer in report.layers]
    assert f"{report.chosen.bytes} bytes against {report.int8.bytes} of int8" in report.notes
    # the score is that of the file, measured once more by other means
    outputs = RowModel(Cpu(), ModelFile(made.content)).run(DATA.measured)
    assert (outputs.argmax(axis=1) == DATA.labels).mean() == report.chosen.score


def test_each_layer_is_told_what_it_costs() -> None:
    report = AdaptiveQuantizer(DATA).quantize_model(NETWORK).report
    for layer, expected in zip(report.layers, NETWORK.layers, strict=True):
        assert layer.shape == expected.weight.shape
        assert set(layer.alone) == set(Precision)
        assert layer.alone[Precision.INT8] == report.int8
        assert layer.alone[Precision.INT4].bytes < layer.alone[Precision.INT8].bytes
        assert layer.alone[Precision.INT4].error > layer.alone[Precision.INT8].error
        assert all(trial.microseconds > 0 for trial in layer.alone.values())


def test_a_layer_that_cannot_be_int4_says_why() -> None:
    report = AdaptiveQuantizer(DATA, target_accuracy=1.0).quantize_model(NETWORK).report
    stays = [layer.layer for layer in report.layers if layer.chosen is not Precision.INT4]
    assert stays
    said = "; ".join(report.notes)
    assert any(f"layer {i} stays int8: in int4 the score is 0." in said for i in stays) or not report.reached


def test_int16_where_int8_is_not_good_enough() -> None:
    network, x, labels = delicate()
    data = CalibrationData.from_dataset(x, labels)
    coarse = AdaptiveQuantizer(data, 0.9, mixed_precision=False).quantize_model(network)
    assert not coarse.report.reached
    assert "the target is not reached" in coarse.report.notes[0]
    made = AdaptiveQuantizer(data, 0.9).quantize_model(network)
    assert Precision.INT16 in [layer.chosen for layer in made.report.layers]
    assert made.report.chosen.score > coarse.report.chosen.score + 0.1
    assert made.report.reached
    assert any("larger than int8" in note for note in made.report.notes)


def test_without_labels_the_outputs_are_compared() -> None:
    made = AdaptiveQuantizer(CalibrationData.from_dataset(X), 0.995).quantize_model(NETWORK)
    assert made.report.reached
    outputs = RowModel(Cpu(), ModelFile(made.content)).run(X)
    assert cosine(outputs, NETWORK.forward(X)) > 0.99


def test_a_metric_of_the_users_own() -> None:
    asked = []

    def metric(outputs: np.ndarray, exact: np.ndarray) -> float:
        asked.append(outputs)
        return 1 / (1 + float(np.abs(outputs - exact).max()))

    made = AdaptiveQuantizer(DATA, 0.5, metric=metric).quantize_model(NETWORK)
    assert made.report.float_score == 1.0
    assert len(asked) >= 3 * 3


def test_the_device_gets_int8_and_certainty() -> None:
    made = AdaptiveQuantizer(DATA, target="edgetpu").quantize_model(NETWORK)
    assert check(made.content).verdict is Verdict.CERTAIN
    assert {layer.chosen for layer in made.report.layers} == {Precision.INT8}
    assert made.report.notes == [
        "int4: not tried, the device has no 4-bit arithmetic",
        "int16: not tried, the device computes in 8 bits only",
    ]


@pytest.mark.parametrize("precision", [Precision.INT4, Precision.INT16])
def test_what_the_device_cannot_do_is_refused(precision: Precision) -> None:
    with pytest.raises(ModelError, match=f"layer 1 as {precision}: the device"):
        AdaptiveQuantizer(DATA, target="edgetpu").quantize_model(NETWORK, {1: precision})


def test_a_precision_that_was_asked_for_is_kept() -> None:
    made = AdaptiveQuantizer(DATA, 0.5).quantize_model(NETWORK, {0: Precision.INT16, 2: Precision.INT8})
    assert [layer.chosen for layer in made.report.layers] == [Precision.INT16, Precision.INT4, Precision.INT8]


@pytest.mark.parametrize("suffix", [".npz", ".tflite"])
def test_models_come_from_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"n{suffix}"
    if suffix == ".npz":
        write_weights(NETWORK, path)
    else:
        path.write_bytes(float_file(NETWORK))
    quantizer = AdaptiveQuantizer(DATA, mixed_precision=False, rows=16)
    made, again = quantizer.quantize_model(path), quantizer.quantize_model(NETWORK)
    outputs = [RowModel(Cpu(), ModelFile(m.content)).run(X) for m in (made, again)]
    np.testing.assert_array_equal(*outputs)


def test_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = AdaptiveQuantizer(DATA, target="edgetpu", rows=8).quantize_model(NETWORK)
    monkeypatch.setenv("PATH", "/nowhere")
    assert made.save_tflite(tmp_path / "m.tflite") == [tmp_path / "m.tflite"]
    monkeypatch.undo()
    monkeypatch.setenv("PATH", install_compiler(tmp_path / "bin"))
    assert made.save_tflite(str(tmp_path / "m.tflite")) == [
        tmp_path / "m.tflite",
        tmp_path / "m_edgetpu.tflite",
    ]
    assert check((tmp_path / "m_edgetpu.tflite").read_bytes()).compiled
    with pytest.raises(ModelError, match=r"does not end in \.tflite"):
        made.save_tflite(tmp_path / "m.bin")


@pytest.mark.parametrize(
    ("dataset", "labels"),
    [
        (X, Y),
        ((X, Y), None),
        (X.tolist(), Y.tolist()),
        ([(X[:100], Y[:100]), (X[100:], Y[100:])].__iter__, None),
        (iter(zip(X, Y, strict=True)), None),
    ],
)
def test_data_sets_of_many_kinds(dataset: object, labels: object) -> None:
    given = dataset() if callable(dataset) else dataset
    data = CalibrationData.from_dataset(given, labels, share=0.25)
    assert (len(data.ranges), len(data.measured)) == (100, 300)
    assert data.labels is not None
    for row, label in zip(data.measured, data.labels, strict=True):
        (i,) = np.flatnonzero((row == X).all(axis=1))
        assert Y[i] == label
    together = np.concatenate([data.ranges, data.measured])
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(X, axis=0))


def test_a_data_set_in_a_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", features=X, labels=Y)
    assert CalibrationData.from_dataset(tmp_path / "d.npz").labels is not None
    np.savez(tmp_path / "d.npz", features=X)
    data = CalibrationData.from_dataset(str(tmp_path / "d.npz"), limit=10)
    assert data.labels is None
    assert len(data.ranges) == len(data.measured) == 5
    np.savez(tmp_path / "d.npz", x=X)
    with pytest.raises(ModelError, match="has x; want an array `features`"):
        CalibrationData.from_dataset(tmp_path / "d.npz")
    np.save(tmp_path / "d.npy", X)
    for name in ("d.npy", "none.npz"):
        with pytest.raises(ModelError, match=r"is no \.npz of arrays"):
            CalibrationData.from_dataset(tmp_path / name)


@pytest.mark.parametrize(
    ("dataset", "labels", "says"),
    [
        (X[:1], None, "want .n, features. with n of 2 or more"),
        (X[0], None, "want .n, features."),
        (np.empty((5, 0)), None, "want .n, features."),
        (iter([]), None, "want .n, features."),
        (X, Y[:-1], "want one label per row"),
        (X, Y + 0.5, "whole number per row"),
        ([["a"]], None, "no matrix of numbers"),
        (np.where(X > 2, np.nan, X), None, "data set: the number at"),
    ],
)
def test_bad_data_sets_are_named(dataset: object, labels: object, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        CalibrationData.from_dataset(dataset, labels)


def test_bad_settings_are_named() -> None:
    with pytest.raises(ModelError, match="share = 1"):
        CalibrationData.from_dataset(X, share=1)
    with pytest.raises(ModelError, match="target_accuracy = 99 is not in"):
        AdaptiveQuantizer(DATA, 99)
    with pytest.raises(ModelError, match="target 'tpu' is neither cpu nor edgetpu"):
        AdaptiveQuantizer(DATA, target="tpu")
    with pytest.raises(ModelError, match="n takes 3 features, the data has 16"):
        AdaptiveQuantizer(DATA).quantize_model(network_of("n", [np.ones((2, 3))], [np.ones(2)]))
    with pytest.raises(ModelError, match="there is no layer 3: some has 3"):
        AdaptiveQuantizer(DATA).quantize_model(NETWORK, {3: Precision.INT8})


def test_cosine() -> None:
    a = np.array([[1.0, 0], [1, 1], [0, 0], [0, 0]])
    b = np.array([[0, 2.0], [1, 1], [0, 0], [1, 0]])
    assert cosine(a, b) == pytest.approx((0 + 1 + 1 + 0) / 4)
