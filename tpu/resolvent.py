"""The resolvent of a region as int8 convolutions: G = (I − (1−α) P_SS)⁻¹, which settles a region's rows at once.

Rows of the region are channels, feature columns lie on the W axis, weights are constant: the form that the device
maps for certain. One convolution holds G in 8 bits; a second one, with an output of its own, holds what 8 bits lost.
Which of the two, and how far the outputs' scales reach, is chosen by measuring on the kernels that will run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .accelerator import Accelerator, Signature
from .edge import device_model
from .files import quantized_weights
from .flatbuffer import FileBuilder
from .model import ModelFile, Raw, from_raw, to_raw
from .network import Floats

Doubles = NDArray[np.float64]

COLUMNS: Final = 32
"""Feature columns in one invocation."""
SPREADS: Final = (0.3, 0.6, 1.0)
"""Tried ranges of the outputs, in shares of the largest there can be."""
INPUT_SCALE: Final = 1 / 127
LEAST: Final = 1e-6
"""The finest steps, in shares of the largest weight."""


def resolvent(p: Doubles, alpha: float) -> Doubles:
    """G [n, n] of P_SS [n, n], which is substochastic: its rows sum to at most 1."""
    return np.asarray(np.linalg.inv(np.eye(len(p)) - (1 - alpha) * p), np.float64)


def resolvent_file(g: Doubles, parts: int, spread: float, columns: int = COLUMNS) -> bytes:
    """int8 file: R/s [1, 1, columns, n] → D/s in `parts` outputs of that shape, to be added."""
    n = len(g)
    least = LEAST * float(
        np.abs(g).max()
    )  # a remainder may be nothing at all, and kernels want a scale above 0
    b = FileBuilder(f"resolvent of {n} rows")
    x = b.input("R", (1, 1, columns, n), "int8", INPUT_SCALE)
    rest = g
    for k in range(parts):
        weight, scale = quantized_weights(rest, 127, least)
        # |R/s| ≤ 1, so no output exceeds the largest row sum of absolute values
        reach = max(float(np.abs(rest).sum(axis=1).max()) * spread, least)
        w = b.tensor(f"G{k}", (n, 1, 1, n), "int8", scale, data=weight.reshape(n, 1, 1, n))
        bias = b.tensor(f"b{k}", (n,), "int32", scale * INPUT_SCALE, data=np.zeros(n))
        b.output(b.conv(x, w, bias, b.tensor(f"D{k}", (1, 1, columns, n), "int8", reach / 127)))
        rest = rest - weight * scale[:, None]
    return b.build()


class Trial(NamedTuple):
    """A way of baking as measured."""

    parts: int
    spread: float
    contraction: float  # of the largest residual, by one pass
    seconds: float  # of one invocation

    @property
    def seconds_per_decade(self) -> float:
        """Time until the residual is a tenth: the smaller the better."""
        if not 0 < self.contraction < 1:
            return math.inf if self.contraction > 0 else 0.0
        return self.seconds / -math.log10(self.contraction)


class Baked(NamedTuple):
    """A region's resolvent, loaded."""

    model: ModelFile
    signature: Signature
    columns: int
    chosen: Trial
    trials: list[Trial]


def some_residuals(n: int, columns: int, seed: int = 0) -> Floats:
    """[n, columns]: half of them noise, half of them of one sign, as after an hour that moves all rows alike."""
    x = np.random.default_rng(seed).normal(size=(n, columns)).astype(np.float32)
    x[:, : columns // 2] = np.abs(x[:, : columns // 2])
    return x


def bake(
    p: Doubles,
    alpha: float,
    accelerator: Accelerator,
    *,
    columns: int = COLUMNS,
    samples: Floats | None = None,
    repeats: int = 3,
) -> Baked:
    """Bake P_SS [n, n] in each way, measure each on the accelerator with `samples` [n, any], keep the best loaded.

    Raises ModelError and MissingRuntimeError.
    """
    g = resolvent(p, alpha)
    drawn = some_residuals(len(p), columns) if samples is None else samples[:, :columns]
    step = np.eye(len(p), dtype=np.float32) - np.float32(1 - alpha) * p.astype(np.float32)
    tried: list[tuple[Trial, ModelFile]] = []
    for parts, spread, content in _ways(g, columns):
        model = device_model(accelerator, ModelFile(content))
        signature = accelerator.load(model)
        try:
            delta, seconds = _timed(accelerator, model, signature, drawn, repeats)
            contraction = float((np.abs(drawn - step @ delta).max(axis=0) / np.abs(drawn).max(axis=0)).max())
            tried.append((Trial(parts, spread, contraction, seconds), model))
        finally:
            accelerator.unload(model.digest)
    best, model = min(tried, key=lambda pair: pair[0].seconds_per_decade)
    return Baked(model, accelerator.load(model), columns, best, [trial for trial, _ in tried])


def _ways(g: Doubles, columns: int) -> Iterator[tuple[int, float, bytes]]:
    for parts in (1, 2):
        for spread in SPREADS:
            yield parts, spread, resolvent_file(g, parts, spread, columns)


def _timed(
    accelerator: Accelerator, model: ModelFile, signature: Signature, r: Floats, repeats: int
) -> tuple[Floats, float]:
    spec, outputs = signature
    scaled, scale = scaled_columns(r, spec.shape[-2])
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        raw = accelerator.run(model.digest, to_raw(scaled, spec).reshape(spec.shape)).outputs
        times.append(time.perf_counter() - begun)
    parts = [from_raw(q, s) for q, s in zip(raw, outputs, strict=True)]
    return summed(parts, r.shape[1], len(r)) * scale, min(times)  # others on the machine only add to it


def scaled_columns(r: Floats, columns: int) -> tuple[Floats, Floats]:
    """R [n, f], f ≤ columns → its columns as rows of [columns, n], each divided by its largest number, and those [f].

    One scale for all columns would leave the small ones unsettled for ever.
    """
    scale = np.abs(r).max(axis=0, initial=0.0).astype(np.float32)
    scale[scale == 0] = 1.0
    scaled = np.zeros((columns, len(r)), np.float32)
    np.divide(r.T, scale[:, None], out=scaled[: r.shape[1]])
    return scaled, scale


def summed(parts: list[Floats], f: int, n: int) -> Floats:
    """Outputs [1, 1, columns, n] added: [n, f]."""
    total: Raw = sum(parts[1:], start=parts[0]).reshape(-1, n)
    return total[:f].T
