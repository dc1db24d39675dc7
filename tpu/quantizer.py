"""From float32 to integers, layer by layer, with the loss measured on the task."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np

from . import compiler
from .accelerator import Cpu
from .calibration import CalibrationData, Metric
from .errors import ModelError
from .files import ROWS, Precision, Range, integer_file, read_float_file
from .model import COMPILED_SUFFIX, ModelFile
from .network import Network, read_weights
from .opcheck import Verdict, check
from .rows import RowModel

DEVICE_REFUSES: Final = {
    Precision.INT4: "the device has no 4-bit arithmetic",
    Precision.INT16: "the device computes in 8 bits only",
}


class Trial(NamedTuple):
    """A file as measured."""

    score: float  # by the metric
    error: float  # relative, in the 2-norm over all outputs
    bytes: int  # of the file
    microseconds: float  # of an invocation on this machine's CPU


class LayerReport(NamedTuple):
    """What a layer costs in each precision while all others are int8."""

    layer: int
    shape: tuple[int, int]  # out, in
    chosen: Precision
    alone: dict[Precision, Trial]


class QuantizationReport(NamedTuple):
    """What was chosen, and why."""

    float_score: float
    int8: Trial
    chosen: Trial
    target: float  # what `chosen.score` was to reach
    layers: list[LayerReport]
    notes: list[str]

    @property
    def reached(self) -> bool:
        """Whether the file is as good as was asked."""
        return self.chosen.score >= self.target


@dataclass(frozen=True, slots=True)
class QuantizedModel:
    """An integer file and how it came about."""

    content: bytes
    report: QuantizationReport
    target: Literal["cpu", "edgetpu"]

    def save_tflite(self, path: str | Path) -> list[Path]:
        """X.tflite, and X_edgetpu.tflite when it is for the device and the compiler is on PATH. What was written."""
        path = Path(path)
        if path.suffix != ".tflite":
            raise ModelError(f"{path} does not end in .tflite")
        written = [path]
        path.write_bytes(self.content)
        if self.target == "edgetpu" and compiler.available():
            compiled = compiler.compile_model(self.content).compiled
            assert compiled is not None
            written.append(path.with_name(path.stem + COMPILED_SUFFIX))
            written[1].write_bytes(compiled)
        return written


class AdaptiveQuantizer:
    """Chooses int4, int8 or int16 for each layer by the accuracy of the task.

    `target_accuracy` is the share of float32's score that must be kept. With `mixed_precision` layers of a CPU file
    become int4 while the score allows it, or int16 when int8 alone is not good enough; for "edgetpu" all are int8.
    """

    def __init__(
        self,
        calibration_data: CalibrationData,
        target_accuracy: float = 0.99,
        mixed_precision: bool = True,
        *,
        target: Literal["cpu", "edgetpu"] = "cpu",
        metric: Metric | None = None,
        rows: int = ROWS,
    ) -> None:
        if not 0 < target_accuracy <= 1:
            raise ModelError(f"target_accuracy = {target_accuracy} is not in (0, 1]")
        if target not in ("cpu", "edgetpu"):
            raise ModelError(f"target {target!r} is neither cpu nor edgetpu")
        self._data = calibration_data
        self._share = target_accuracy
        self._mixed = mixed_precision and target == "cpu"
        self._target: Literal["cpu", "edgetpu"] = target
        self._metric = metric or calibration_data.metric()
        self._rows = rows

    def quantize_model(
        self, model: Network | str | Path, precisions: Mapping[int, Precision] | None = None
    ) -> QuantizedModel:
        """A network, or its file: .npz, .safetensors, or a float32 .tflite; `precisions` fixes layers by number.

        Raises ModelError, also for what the device cannot do.
        """
        network = model if isinstance(model, Network) else read_network(Path(model))
        fixed = dict(precisions or {})
        self._refuse(network, fixed)
        bench = _Bench(network, self._data, self._metric, self._rows)
        start = [fixed.get(i, Precision.INT8) for i in range(len(network.layers))]
        target = self._share * bench.float_score
        layers = self._explore(bench, start)
        chosen, notes = self._choose(bench, start, set(fixed), target, layers)
        content, trial = bench.file(chosen), bench.try_out(chosen)
        if self._target == "edgetpu" and check(content).verdict is not Verdict.CERTAIN:
            raise ModelError(f"the device may not take this file: {check(content).ops}")
        int8 = bench.try_out([Precision.INT8] * len(network.layers))
        notes += _compared(chosen, trial, int8, target)
        reports = [r._replace(chosen=p) for r, p in zip(layers, chosen, strict=True)]
        report = QuantizationReport(bench.float_score, int8, trial, target, reports, notes)
        return QuantizedModel(content, report, self._target)

    def _refuse(self, network: Network, fixed: Mapping[int, Precision]) -> None:
        if network.widths[0] != self._data.ranges.shape[1]:
            raise ModelError(
                f"{network.name} takes {network.widths[0]} features, the data has {self._data.ranges.shape[1]}"
            )
        for layer, precision in fixed.items():
            if not 0 <= layer < len(network.layers):
                raise ModelError(f"there is no layer {layer}: {network.name} has {len(network.layers)}")
            if self._target == "edgetpu" and precision in DEVICE_REFUSES:
                raise ModelError(f"layer {layer} as {precision}: {DEVICE_REFUSES[precision]}")

    def _explore(self, bench: _Bench, start: list[Precision]) -> list[LayerReport]:
        """Each layer alone in each precision that the target knows."""
        kinds = list(Precision) if self._mixed else [Precision.INT8]
        reports = []
        for i, layer in enumerate(bench.network.layers):
            trials = {k: bench.try_out([*start[:i], k, *start[i + 1 :]]) for k in kinds}
            shape = (layer.weight.shape[0], layer.weight.shape[1])
            reports.append(LayerReport(i, shape, start[i], trials))
        return reports

    def _choose(
        self,
        bench: _Bench,
        start: list[Precision],
        fixed: set[int],
        target: float,
        layers: Sequence[LayerReport],
    ) -> tuple[list[Precision], list[str]]:
        if not self._mixed:
            if self._target == "edgetpu":
                return start, [f"{k}: not tried, {why}" for k, why in DEVICE_REFUSES.items()]
            return start, []
        chosen = list(start)
        free = [r for r in layers if r.layer not in fixed]
        if bench.try_out(chosen).score < target:
            for report in sorted(free, key=lambda r: -r.alone[Precision.INT16].score):
                chosen[report.layer] = Precision.INT16
                if bench.try_out(chosen).score >= target:
                    break
            return chosen, []
        notes = []
        # the largest savings first: they are what the precision is for
        for report in sorted(free, key=lambda r: -r.shape[0] * r.shape[1]):
            smaller = [*chosen]
            smaller[report.layer] = Precision.INT4
            trial = bench.try_out(smaller)
            if trial.score >= target:
                chosen = smaller
            else:
                notes.append(
                    f"layer {report.layer} stays int8: in int4 the score is {trial.score:.4f}, below {target:.4f}"
                )
        return chosen, notes


def read_network(path: Path) -> Network:
    """Weights from .npz, .safetensors, or a float32 .tflite. Raises ModelError."""
    return read_float_file(path) if path.suffix == ".tflite" else read_weights(path)


def _compared(chosen: list[Precision], trial: Trial, int8: Trial, target: float) -> list[str]:
    notes = []
    if trial.score < target:
        notes.append(f"the target is not reached: score {trial.score:.4f}, wanted {target:.4f}")
    if trial.bytes < int8.bytes:
        notes.append(f"{trial.bytes} bytes against {int8.bytes} of int8")
    elif any(k is not Precision.INT8 for k in chosen):
        notes.append(
            f"larger than int8 ({trial.bytes} against {int8.bytes} bytes): int8 alone misses the target"
        )
    if Precision.INT4 in chosen or Precision.INT16 in chosen:
        notes.append("for the CPU only: the device takes int8")
    return notes


class _Bench:
    """Files of one network, made and measured once each."""

    def __init__(self, network: Network, data: CalibrationData, metric: Metric, rows: int) -> None:
        self.network = network
        self._data = data
        self._metric = metric
        self._rows = rows
        spans = [(float(a.min()), float(a.max())) for a in network.activations(data.ranges)]
        self._ranges: list[Range] = spans
        self._exact = network.forward(data.measured)
        self.float_score = metric(self._exact, self._exact)
        self._trials: dict[tuple[Precision, ...], Trial] = {}

    def file(self, precisions: Sequence[Precision]) -> bytes:
        return integer_file(self.network, self._ranges, precisions, self._rows)

    def try_out(self, precisions: Sequence[Precision]) -> Trial:
        key = tuple(precisions)
        if key not in self._trials:
            self._trials[key] = self._measure(self.file(key))
        return self._trials[key]

    def _measure(self, content: bytes) -> Trial:
        model = RowModel(Cpu(), ModelFile(content))
        outputs = model.run(self._data.measured)
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            model.run(self._data.measured[: model.batch])
            times.append(time.perf_counter() - begun)
        error = float(np.linalg.norm(outputs - self._exact) / max(float(np.linalg.norm(self._exact)), 1e-30))
        score = self._metric(outputs, self._exact)
        return Trial(score, error, len(content), 1e6 * statistics.median(times))
