"""The one interface behind which devices, the CPU and whatever spreads work over them stand."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, Protocol

from .metrics import TpuMetrics
from .model import CpuModel, ModelFile, Raw, TensorSpec

Check = Callable[[list[Raw]], str | None]
"""What is wrong with outputs, or None."""
Signature = tuple[TensorSpec, tuple[TensorSpec, ...]]
"""A model's input and its outputs."""


class Answer(NamedTuple):
    """Outputs, and who made them: `device` or `cpu`."""

    outputs: list[Raw]
    by: str


class Accelerator(Protocol):
    """Runs models. For any number of threads."""

    name: str

    @property
    def needs_compiled(self) -> bool:
        """Whether it takes only models with a compiled file."""

    def load(self, model: ModelFile) -> Signature:
        """Make a model ready. Raises ModelError."""

    def unload(self, digest: str) -> None:
        """Forget it, once this was called as often as `load`."""

    def run(self, digest: str, x: Raw, check: Check | None = None) -> Answer:
        """One invocation of a loaded model; outputs that fail the check are a fault of the device."""

    @property
    def queued_seconds(self) -> float:
        """Work that waits or is under way; infinite for a device that is not fit."""

    def close(self) -> None:
        """Give everything back; may be called twice."""


class Uses:
    """How often each model was loaded. For any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def first(self, digest: str) -> bool:
        """One more; whether it is the first."""
        with self._lock:
            self._counts[digest] += 1
            return self._counts[digest] == 1

    def last(self, digest: str) -> bool:
        """One less; whether none is left."""
        with self._lock:
            self._counts[digest] -= 1
            if self._counts[digest] > 0:
                return False
            del self._counts[digest]
            return True


class Cpu:
    """The CPU of this process."""

    needs_compiled = False

    def __init__(self, metrics: TpuMetrics | None = None, threads: int = 1) -> None:
        self.name = "cpu"
        self._metrics = metrics or TpuMetrics()
        self._threads = threads
        self._models: dict[str, CpuModel] = {}
        self._uses = Uses()

    def load(self, model: ModelFile) -> Signature:
        """Make a model ready. Raises ModelError."""
        digest = model.digest
        loaded = self._models.get(digest) or CpuModel(model.content, self._threads)
        if self._uses.first(digest):
            self._models[digest] = loaded
        return loaded.inputs[0], loaded.outputs

    def unload(self, digest: str) -> None:
        """Forget it, once this was called as often as `load`."""
        if self._uses.last(digest):
            self._models.pop(digest, None)

    def run(self, digest: str, x: Raw, check: Check | None = None) -> Answer:  # noqa: ARG002 - nobody to fall back to
        """One invocation."""
        outputs = self._models[digest].invoke(x)
        self._metrics.invocations.labels(self.name, "cpu").inc()
        return Answer(outputs, "cpu")

    @property
    def queued_seconds(self) -> float:
        """Always 0: callers bring their own threads."""
        return 0.0

    def close(self) -> None:
        """Forget all models."""
        self._models.clear()
