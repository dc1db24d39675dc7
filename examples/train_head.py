"""A real small head from training to device file: handwritten digits that are neighbours in a graph.

    python -m dgdm.examples.train_head --out head.tflite

1,797 digits of 8 × 8 pixels (scikit-learn's copy of the UCI set), each linked with the digits most like it; dgdm
diffuses the pixels over that graph; a head learns from the diffused pixels of some digits to name the others; it is
quantised, saved and loaded. Needs scikit-learn for data and training: dgdm itself trains nothing.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..diffusion.exact import fixed_point, transition
from ..tpu.calibration import CalibrationData
from ..tpu.edge import EdgeTPU
from ..tpu.network import Network, network_of
from ..tpu.quantizer import AdaptiveQuantizer

NEIGHBOURS = 8
ALPHA = 0.15
HIDDEN = (64, 32)

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


class Task(NamedTuple):
    """Rows that a head learns from and rows that it is judged by."""

    train_x: Floats
    train_y: Labels
    test_x: Floats
    test_y: Labels


def digits() -> tuple[Floats, Labels]:
    """Diffused pixels [1797, 64] and what each digit is."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - not a part of dgdm

    pixels, labels = load_digits(return_X_y=True)
    x = pixels / 16.0
    p = transition(*nearest(x, NEIGHBOURS), len(x))
    return fixed_point(p, x, ALPHA, 1e-6).astype(np.float32), labels.astype(np.int64)


def nearest(
    x: NDArray[np.float64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Arcs in both directions between each row and the k rows most like it; weight exp(−distance²)."""
    squares = (x**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * x @ x.T, 0)
    np.fill_diagonal(distances, np.inf)
    targets = np.argpartition(distances, k, axis=1)[:, :k]
    linked = np.zeros(distances.shape, bool)
    np.put_along_axis(linked, targets, values=True, axis=1)
    rows, columns = np.nonzero(linked | linked.T)
    return rows, columns, np.exp(-distances[rows, columns])


def split(x: Floats, y: Labels, seed: int) -> Task:
    """Half to learn from, half to be judged by."""
    order = np.random.default_rng(seed).permutation(len(x))
    first, second = order[: len(x) // 2], order[len(x) // 2 :]
    return Task(x[first], y[first], x[second], y[second])


def train(task: Task, seed: int) -> Network:
    """A head with two hidden layers."""
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415
    from sklearn.neural_network import MLPClassifier  # noqa: PLC0415
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - comes with scikit-learn

    learner = MLPClassifier(HIDDEN, max_iter=40, learning_rate_init=0.005, random_state=seed)
    with warnings.catch_warnings(), threadpool_limits(1):  # matrices too small for threads
        warnings.simplefilter("ignore", ConvergenceWarning)  # forty rounds are enough here
        learner.fit(task.train_x, task.train_y)
    return network_of("digits", [w.T for w in learner.coefs_], learner.intercepts_)


def accuracy(outputs: Floats, labels: Labels) -> float:
    """Share of right answers."""
    return float((outputs.argmax(axis=1) == labels).mean())


def main() -> int:
    """Train, quantise, save, load, compare."""
    parser = argparse.ArgumentParser(prog="python -m dgdm.examples.train_head")
    parser.add_argument("--out", type=Path, default=Path("head.tflite"), help="the file to write")
    parser.add_argument("--device", default="cpu", help="cpu, /dev/apex_0, pci:0, usb:0")
    given = parser.parse_args()
    try:
        x, y = digits()
    except ImportError:
        print("this example needs scikit-learn: pip install scikit-learn", file=sys.stderr)
        return 2
    task = split(x, y, seed=0)
    network = train(task, seed=0)
    data = CalibrationData.from_dataset(task.train_x, task.train_y)
    quantizer = AdaptiveQuantizer(data, 0.99, target="cpu" if given.device == "cpu" else "edgetpu")
    made = quantizer.quantize_model(network)
    made.save_tflite(given.out)
    with EdgeTPU(given.device, given.out) as tpu:
        print(
            f"float32   {accuracy(network.forward(task.test_x), task.test_y):.2%} of {len(task.test_y)} digits"
        )
        print(
            f"{given.out}   {accuracy(tpu.run(task.test_x), task.test_y):.2%}, {given.out.stat().st_size} bytes"
        )
    for note in made.report.notes:
        print(f"  {note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
