"""Models in service: swapped without a pause, taken back, and chosen by the size of a request or by what waits."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from .accelerator import Accelerator
from .edge import device_model
from .errors import ModelError
from .metrics import TpuMetrics
from .model import ModelFile
from .network import Floats
from .rows import RowModel


class Choice(NamedTuple):
    """A model as a policy sees it."""

    name: str
    batch: int  # rows of one invocation
    queued_seconds: float  # that wait before its accelerator; infinite when it is not fit


Policy = Callable[[int, Sequence[Choice]], str]
"""(rows of a request, what there is) → the name of a model."""


def by_size(rows: int, choices: Sequence[Choice]) -> str:
    """The smallest batch that takes the request at once, or the largest: a few rows do not pay for many."""
    enough = [choice for choice in choices if choice.batch >= rows]
    if enough:
        return min(enough, key=lambda choice: choice.batch).name
    return max(choices, key=lambda choice: choice.batch).name


def by_load(_rows: int, choices: Sequence[Choice]) -> str:
    """Where the least waits; the first loaded among equals."""
    return min(choices, key=lambda choice: choice.queued_seconds).name


class GoldenBatch(NamedTuple):
    """Rows that a model must answer well before it serves."""

    features: Floats  # [n, in]
    expected: Floats | None = None  # [n, out]; None: what the model in service answers
    tolerance: float = 0.1  # largest ‖answer − expected‖ / ‖expected‖, over all numbers


def read_golden(path: Path) -> GoldenBatch:
    """From .npz: `features` [n, in] and `expected` [n, out]. Raises ModelError."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            features, expected = (np.asarray(arrays[name], np.float32) for name in ("features", "expected"))
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    return GoldenBatch(features, expected)


class Answered(NamedTuple):
    """What one version of one model made of a whole request."""

    outputs: Floats  # [n, out]
    name: str
    digest: str


class Shape(NamedTuple):
    """What a model takes and gives."""

    features_in: int
    features_out: int
    batch: int  # rows of one invocation


class Version(NamedTuple):
    """What a name stands for now, and what it can be taken back to."""

    digest: str
    previous: str | None


class _Served:
    """A version with those who use it: it is unloaded by the last of them once it is retired."""

    def __init__(self, model: RowModel) -> None:
        self.model = model
        self.users = 0
        self.retired = False


class _Slot:
    def __init__(self, accelerator: Accelerator, current: _Served) -> None:
        self.accelerator = accelerator
        self.current = current
        self.previous: _Served | None = None

    @property
    def version(self) -> Version:
        previous = None if self.previous is None else self.previous.model.digest
        return Version(self.current.model.digest, previous)


class ModelManager:
    """Models of rows by name, all of the same widths. For any number of threads.

    A request is answered by one version from its first row to its last, whatever is swapped meanwhile. The version
    before the last swap stays loaded, so that taking it back is as quick as a swap.
    """

    def __init__(self, policy: Policy = by_size, metrics: TpuMetrics | None = None) -> None:
        self._policy = policy
        self._metrics = metrics or TpuMetrics()
        self._changing = threading.Lock()  # one load, swap or roll-back at a time; taken before `_lock`
        self._lock = threading.Lock()  # all that follows
        self._slots: dict[str, _Slot] = {}

    def load(
        self, name: str, model: ModelFile, accelerator: Accelerator, golden: GoldenBatch | None = None
    ) -> str:
        """Put a first version into service: its digest. The accelerator stays the caller's. Raises ModelError."""
        with self._changing:
            if name in self._slots:
                raise ModelError(f"{name} is loaded: swap it")
            fresh = self._made_ready(model, accelerator, golden, None)
            other = next(iter(self._slots.values()), None)
            if other is not None:
                self._require_widths(fresh, other.current.model)
            with self._lock:
                self._slots[name] = _Slot(accelerator, _Served(fresh))
            return fresh.digest

    def swap(self, name: str, model: ModelFile, golden: GoldenBatch | None = None) -> Version:
        """Load, warm up, compare, then serve it from the next request on. Raises ModelError; then all is as it was."""
        with self._changing:
            slot = self._slot(name)
            current = slot.current.model
            try:
                fresh = self._made_ready(model, slot.accelerator, golden, current)
                self._require_widths(fresh, current)
            except ModelError:
                self._metrics.swaps.labels("refused").inc()
                raise
            with self._lock:
                leaving, slot.previous, slot.current = slot.previous, slot.current, _Served(fresh)
            self._retire(leaving)
            self._metrics.swaps.labels("swapped").inc()
            return slot.version

    def roll_back(self, name: str) -> Version:
        """Serve the version before the last swap again; done twice, the newer one. Raises ModelError."""
        with self._changing:
            slot = self._slot(name)
            if slot.previous is None:
                raise ModelError(f"{name} has not been swapped: there is nothing to go back to")
            with self._lock:
                slot.current, slot.previous = slot.previous, slot.current
            self._metrics.swaps.labels("rolled back").inc()
            return slot.version

    def run(self, x: Floats, name: str | None = None) -> Answered:
        """x [n, in] → [n, out] by the model of that name, or by the one that the policy chooses. Raises ModelError."""
        with self._in_use(name or self._chosen(len(x))) as (chosen, served):
            return Answered(served.model.run(x), chosen, served.model.digest)

    @property
    def versions(self) -> dict[str, Version]:
        """What each name stands for."""
        with self._lock:
            return {name: slot.version for name, slot in self._slots.items()}

    def shape(self, name: str) -> Shape:
        """Of the version in service. Raises ModelError."""
        with self._lock:
            model = self._slot(name).current.model
        return Shape(model.features_in, model.features_out, model.batch)

    def close(self) -> None:
        """Unload all once their users are done; accelerators stay open. May be called twice."""
        with self._changing:
            with self._lock:
                slots = list(self._slots.values())
                self._slots.clear()
            for slot in slots:
                self._retire(slot.current)
                self._retire(slot.previous)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _chosen(self, rows: int) -> str:
        with self._lock:
            choices = [
                Choice(name, slot.current.model.batch, slot.accelerator.queued_seconds)
                for name, slot in self._slots.items()
            ]
        if not choices:
            raise ModelError("no model is loaded")
        return self._policy(rows, choices)

    @contextmanager
    def _in_use(self, name: str) -> Iterator[tuple[str, _Served]]:
        with self._lock:
            served = self._slot(name).current
            served.users += 1
        try:
            yield name, served
        finally:
            with self._lock:
                served.users -= 1
                last = served.retired and served.users == 0
            if last:
                served.model.close()

    def _retire(self, served: _Served | None) -> None:
        if served is None:
            return
        with self._lock:
            served.retired = True
            idle = served.users == 0
        if idle:
            served.model.close()

    def _slot(self, name: str) -> _Slot:
        if name not in self._slots:
            raise ModelError(f"there is no model {name!r}: {', '.join(self._slots) or 'none is loaded'}")
        return self._slots[name]

    @staticmethod
    def _require_widths(fresh: RowModel, other: RowModel) -> None:
        found, wanted = ((m.features_in, m.features_out) for m in (fresh, other))
        if found != wanted:
            fresh.close()
            raise ModelError(f"the model takes {found[0]} columns and gives {found[1]}; in service: {wanted}")

    @staticmethod
    def _made_ready(
        model: ModelFile, accelerator: Accelerator, golden: GoldenBatch | None, current: RowModel | None
    ) -> RowModel:
        """Loaded, warm, and as good on the golden batch as it must be."""
        fresh = RowModel(accelerator, device_model(accelerator, model))
        try:
            fresh.run(
                np.zeros((fresh.batch, fresh.features_in), np.float32)
            )  # a device gets the weights by it
            if golden is not None:
                _compare(fresh, golden, current)
        except ModelError:
            fresh.close()
            raise
        return fresh


def _compare(fresh: RowModel, golden: GoldenBatch, current: RowModel | None) -> None:
    answer, expected = fresh.run(golden.features), golden.expected
    if expected is None:
        if current is None:
            return
        expected = current.run(golden.features)
    if answer.shape != expected.shape:
        raise ModelError(f"the golden batch gave {answer.shape}, expected was {expected.shape}")
    error = float(np.linalg.norm(answer - expected) / max(float(np.linalg.norm(expected)), 1e-30))
    if not error <= golden.tolerance:
        raise ModelError(
            f"on the golden batch it is {error:.3g} off in relation to what was expected; {golden.tolerance:g} is allowed"
        )
