"""What tests of models and devices share: networks, and a twin of the integer kernels in plain NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dgdm.tpu.files import Precision, integer_file
from dgdm.tpu.network import Network, network_of

Places = Callable[[Path], tuple[str, str]]  # log and store of a worker that may use a folder


def embedded(folder: Path) -> tuple[str, str]:
    """Files in it."""
    return f"sqlite:///{folder}/log.db", f"sqlite:///{folder}/store.db"


def some_network(random: np.random.Generator, *widths: int) -> Network:
    """Random weights for outputs of the size of the inputs."""
    pairs = list(itertools.pairwise(widths))
    weights = [random.normal(0, np.sqrt(2 / i), (o, i)) for i, o in pairs]
    return network_of("some", weights, [random.normal(0, 0.1, o) for _, o in pairs])


def ranges_of(network: Network, x: np.ndarray) -> list[tuple[float, float]]:
    """The smallest and largest number at the input and behind each layer."""
    return [(float(a.min()), float(a.max())) for a in network.activations(x.astype(np.float32))]


def int8_of(network: Network, x: np.ndarray, rows: int = 32, **kinds: list[Precision]) -> bytes:
    """An integer file, its ranges read off x."""
    return integer_file(network, ranges_of(network, x), rows=rows, **kinds)


def steps(span: tuple[float, float]) -> tuple[float, int]:
    """Scale and zero point of an int8 tensor over a range that holds 0, from the definition."""
    low, high = min(0.0, span[0]), max(0.0, span[1])
    scale = max(1e-12, (high - low) / 255)
    return scale, min(127, max(-128, round(-128 - low / scale)))


def int8_twin(
    network: Network, ranges: list[tuple[float, float]], q: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """q [n, in] int8 → [n, out] int8 in 64-bit integers and float64, each layer from its definition.

    And how many steps [out] another way of rounding can be off: one per layer, and what the next make of it.
    """
    s_in, z_in = steps(ranges[0])
    off = np.zeros(q.shape[1])
    for layer, span in zip(network.layers, ranges[1:], strict=True):
        s_out, z_out = steps(span)
        w = layer.weight.astype(np.float64)
        s_w = np.maximum(np.abs(layer.bias) / s_in / 2**30, np.abs(w).max(axis=1) / 127)
        s_out = max(s_out, s_in * s_w.max() / 128)  # a layer that never woke has no range
        w_int = np.rint(w / s_w[:, None]).astype(np.int64)
        bias = np.rint(layer.bias / (s_w * s_in)).astype(np.int64)
        total = (q.astype(np.int64) - z_in) @ w_int.T + bias
        y = np.rint(total * (s_w * s_in / s_out)) + z_out
        q = np.clip(y, z_out if layer.relu else -128, 127)
        off = 1 + np.abs(w_int) @ off * (s_w * s_in / s_out)
        s_in, z_in = s_out, z_out
    return q.astype(np.int8), off
