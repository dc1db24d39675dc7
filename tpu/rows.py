"""Encoders and heads: a float matrix in, a float matrix out, and a row whose answer is known in every batch."""

from __future__ import annotations

import numpy as np

from .accelerator import Accelerator
from .errors import ModelError
from .model import ModelFile, Raw, from_raw, golden_of, require_finite, to_raw
from .network import Floats


class RowModel:
    """A model of rows on an accelerator. Loaded until `close`. Raises ModelError.

    Every invocation takes the golden row along; a device that gets it wrong is at fault, and the CPU answers.
    """

    def __init__(self, accelerator: Accelerator, model: ModelFile, name: str = "") -> None:
        self.name = name
        self.digest = model.digest
        self._accelerator = accelerator
        self._spec, outputs = accelerator.load(model)
        shape, made = self._spec.shape, outputs[0].shape
        if len(outputs) != 1 or shape[:-2] != (1, 1) or made[:-1] != shape[:-1] or shape[-2] < 2:
            accelerator.unload(model.digest)
            raise ModelError(
                f"input {shape} and {len(outputs)} outputs, the first {made}, are no model of rows: want "
                "[1, 1, n, in] → [1, 1, n, out] with n of 2 or more, one row for the golden one"
            )
        self._out = outputs[0]
        self._golden = golden_of(model.content)
        self.features_in, self.features_out = shape[-1], made[-1]
        self.batch = shape[-2] - 1
        self._closed = False
        self.by_device = self.by_cpu = 0  # rows, by who answered

    def run(self, x: Floats) -> Floats:
        """x [n, features_in] → [n, features_out], any n. Raises ModelError for what is no such matrix."""
        x = np.asarray(x, np.float32)
        if x.ndim != 2 or x.shape[1] != self.features_in:
            raise ModelError(f"a matrix {x.shape} was given; want [n, {self.features_in}]")
        require_finite(x, "features")
        y = np.empty((len(x), self.features_out), np.float32)
        for start in range(0, len(x), self.batch):
            part = x[start : start + self.batch]
            y[start : start + len(part)] = from_raw(self._invoke(to_raw(part, self._spec)), self._out)
        return y

    def _invoke(self, rows: Raw) -> Raw:
        batch = np.full((self.batch + 1, self.features_in), self._spec.zero_point, self._spec.kind)
        batch[: len(rows)] = rows
        batch[-1] = self._golden.question
        answer = self._accelerator.run(self.digest, batch.reshape(self._spec.shape), self._check)
        if answer.by == "device":
            self.by_device += len(rows)
        else:
            self.by_cpu += len(rows)
        return answer.outputs[0].reshape(self.batch + 1, self.features_out)[: len(rows)]

    def _check(self, outputs: list[Raw]) -> str | None:
        return self._golden.problem(outputs[0].reshape(-1, self.features_out)[-1])

    def close(self) -> None:
        """Unload it; may be called twice."""
        if not self._closed:
            self._closed = True
            self._accelerator.unload(self.digest)
