"""A real task: digits in a graph of neighbours. What int8 loses, over ten seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy import stats

from dgdm.examples.train_head import accuracy, digits, split, train
from dgdm.tpu.accelerator import Cpu
from dgdm.tpu.calibration import CalibrationData
from dgdm.tpu.model import ModelFile
from dgdm.tpu.quantizer import AdaptiveQuantizer
from dgdm.tpu.rows import RowModel

SEEDS = range(10)


def upper(losses: list[float]) -> float:
    """The upper end of the 95 % confidence interval of the mean."""
    return float(np.mean(losses) + stats.t.ppf(0.975, len(losses) - 1) * stats.sem(losses))


def test_int8_loses_less_than_a_point() -> None:
    x, y = digits()
    int8, mixed, exact, smaller = [], [], [], []
    for seed in SEEDS:
        task = split(x, y, seed)
        network = train(task, seed)
        data = CalibrationData.from_dataset(task.train_x, task.train_y, seed=seed)
        plain = AdaptiveQuantizer(data, target="edgetpu").quantize_model(network)
        small = AdaptiveQuantizer(data, target_accuracy=0.99).quantize_model(network)
        exact.append(accuracy(network.forward(task.test_x), task.test_y))
        for losses, made in ((int8, plain), (mixed, small)):
            outputs = RowModel(Cpu(), ModelFile(made.content)).run(task.test_x)
            losses.append(exact[-1] - accuracy(outputs, task.test_y))
        smaller.append(len(small.content) < len(plain.content) or "stays int8" in str(small.report.notes))
    assert np.mean(exact) > 0.97, "a head that has learnt something"
    assert upper(int8) < 0.01, int8
    assert upper(mixed) < 0.02, mixed  # 0.99 was asked for on the data it was chosen with
    assert all(smaller)


def test_the_example_from_end_to_end(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dgdm.examples.train_head", "--out", tmp_path / "head.tflite"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.returncode == 0, done.stderr
    first, second, *_ = done.stdout.splitlines()
    assert float(first.split()[1].rstrip("%")) > 97
    assert float(second.split()[1].rstrip("%,")) > 96
    assert (tmp_path / "head.tflite").exists()
