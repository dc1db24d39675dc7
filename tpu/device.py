"""A device that may fail in any way, and answers always: its process, and the CPU with the same file behind it.

STARTING ⇄ READY → BACKING_OFF, QUARANTINED → STARTING;  every state → CLOSED
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

import numpy as np
import structlog

from .accelerator import Answer, Check, Cpu, Signature, Uses
from .discovery import Target, first_trip_point, is_present, temperature
from .errors import BusyError, DeviceFaultError, FaultKind, ModelError
from .lock import DeviceLock
from .metrics import TpuMetrics
from .model import ModelFile, Raw
from .power import DutyCycle, Heat, PowerPlan, TemperatureGuard
from .process import DeviceProcess, Launch

log = structlog.get_logger()


class DeviceState(StrEnum):
    """Where a device is in its life."""

    STARTING = "starting"
    READY = "ready"
    BACKING_OFF = "backing_off"  # failed; the next start is due soon
    QUARANTINED = "quarantined"  # failed too often; left alone for long
    CLOSED = "closed"


_FAILED = frozenset({DeviceState.BACKING_OFF, DeviceState.QUARANTINED})
SUCCESSORS: Final[dict[DeviceState, frozenset[DeviceState]]] = {
    DeviceState.STARTING: _FAILED | {DeviceState.READY, DeviceState.CLOSED},
    DeviceState.READY: _FAILED | {DeviceState.STARTING, DeviceState.CLOSED},
    DeviceState.BACKING_OFF: frozenset({DeviceState.STARTING, DeviceState.CLOSED}),
    DeviceState.QUARANTINED: frozenset({DeviceState.STARTING, DeviceState.CLOSED}),
    DeviceState.CLOSED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Patience:
    """What a device may get wrong. Times in seconds."""

    first_pause: float = 0.1  # before a restart; doubles with each fault in a row
    longest_pause: float = 30.0
    most_faults: int = 5  # within `window`, then quarantine
    window: float = 60.0
    quarantine: float = 300.0


class Device:
    """One Edge TPU behind its lock, watchdog, thermometer and duty cycle. For any number of threads.

    Starts in the background; until it is READY, and whenever it is not, the CPU answers. A device that another
    process has is asked for again and again. `explain` says why a start has failed, while the device is closed.
    """

    needs_compiled = True

    def __init__(
        self,
        target: Target,
        launch: Launch,
        power: PowerPlan,
        metrics: TpuMetrics | None = None,
        patience: Patience | None = None,
        explain: Callable[[], str] | None = None,
    ) -> None:
        self._explain = explain
        self.name = target.name
        self._info = info = target.info
        self._lock: DeviceLock | None = None
        self._launch = launch
        self._metrics = metrics or TpuMetrics()
        self._patience = patience or Patience()
        self._cpu = Cpu(self._metrics)
        self._power = power
        self._duty = DutyCycle(power.duty, time.monotonic)
        self._guard = TemperatureGuard(
            (lambda: temperature(info)) if info else (lambda: None),
            first_trip_point(info) if info else None,
            time.monotonic,
        )
        self._using = threading.Lock()  # the process: one request at a time; taken before `_changed`
        self._process = self._new_process()
        self._changed = threading.Condition()  # all that follows
        self._models: dict[str, ModelFile] = {}  # that the device is to have
        self._uses = Uses()
        self._loaded: set[str] = set()  # that it has
        self._refused: set[str] = set()  # that it would not take since it was started
        self._waiting = 0
        self._typical = 0.001  # seconds of an invocation, a moving average
        self._faults: deque[float] = deque()
        self._in_a_row = 0
        self._due = 0.0
        self.last_fault: DeviceFaultError | None = None
        self.state = DeviceState.STARTING
        self._metrics.state.labels(self.name, self.state).set(1)
        self._thread = threading.Thread(target=self._keep_up, name=f"dgdm-{self.name}", daemon=True)
        self._thread.start()

    def load(self, model: ModelFile) -> Signature:
        """Make a model ready on both sides; one that the device refuses runs on the CPU. Raises ModelError."""
        if model.compiled is None:
            raise ModelError(f"{self.name} runs compiled files only: put edgetpu_compiler on PATH")
        known = self._cpu.load(model)
        with self._changed:
            self._uses.first(model.digest)
            self._models[model.digest] = model
            ready = self.state is DeviceState.READY
        if ready:  # else the thread that brings the device up finds it
            with self._using:
                self._guarded_bring_up()
        return known

    def unload(self, digest: str) -> None:
        """Forget a model, once this was called as often as `load`."""
        with self._changed:
            last = self._uses.last(digest)
            if last:
                self._models.pop(digest, None)
        if last and digest in self._loaded:
            with self._using:
                try:
                    self._process.unload(digest)
                except DeviceFaultError as fault:
                    self._failed(fault)
                self._loaded.discard(digest)
        self._cpu.unload(digest)

    def run(self, digest: str, x: Raw, check: Check | None = None) -> Answer:
        """One invocation: by the device if it is fit, by the CPU otherwise, and again by it after a fault."""
        if self._is_fit():
            with self._changed:
                self._waiting += 1
            try:
                with self._using:
                    outputs = self._try(digest, x, check)
            finally:
                with self._changed:
                    self._waiting -= 1
            if outputs is not None:
                self._metrics.invocations.labels(self.name, "device").inc()
                return Answer(outputs, "device")
        answer = self._cpu.run(digest, x)
        self._metrics.invocations.labels(self.name, "cpu").inc()
        return answer

    @property
    def queued_seconds(self) -> float:
        """Work that waits or is under way; infinite while the device is not fit."""
        return self._waiting * self._typical if self.state is DeviceState.READY else float("inf")

    @property
    def celsius(self) -> float | None:
        """The temperature, if the device tells."""
        self._guard.look()
        return self._guard.celsius

    @property
    def power_estimate(self) -> float:
        """Watts over the last ten seconds: an estimate, see `power`."""
        return self._power.watts * self._duty.share

    def set_power(self, power: PowerPlan) -> None:
        """Another limit: the duty at once; another clock by opening the device anew."""
        self._duty.duty = power.duty
        again, self._power = power.level != self._power.level, power
        if again:
            with self._using, self._changed:
                self._process.close()
                self._process = self._new_process()
                if self.state is DeviceState.READY:
                    self._enter(DeviceState.STARTING)

    def report_wrong(self, reason: str) -> None:
        """For callers that find out later: an answer of the device was wrong."""
        with self._using:
            self._failed(DeviceFaultError(FaultKind.WRONG, reason))

    def wait(self, *states: DeviceState, timeout: float) -> bool:
        """Whether it gets into one of the states within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.state in states, timeout)

    def close(self, timeout: float = 10.0) -> None:
        """End the process and give the device up; may be called twice.

        A start that is under way is waited for `timeout` seconds, then it ends by itself.
        """
        with self._changed:
            if self.state is not DeviceState.CLOSED:
                self._enter(DeviceState.CLOSED)
        self._thread.join(timeout)
        self._cpu.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _new_process(self) -> DeviceProcess:
        level = self._power.level
        options = dict(self._launch.options) | ({} if level is None else {"Performance": level})
        return DeviceProcess(dataclasses.replace(self._launch, options=options))

    def _is_fit(self) -> bool:
        if self.state is not DeviceState.READY:
            return False
        heat = self._guard.look()
        if self._guard.celsius is not None:
            self._metrics.temperature.labels(self.name).set(self._guard.celsius)
        if heat is Heat.DEAD:
            with self._using:
                self._failed(DeviceFaultError(FaultKind.LOST, f"reads {self._guard.celsius} °C"))
        return heat is Heat.FINE and self._duty.may_run()

    def _try(self, digest: str, x: Raw, check: Check | None) -> list[Raw] | None:
        """Under `_using`. None when the device has failed, or has become unfit while the caller waited."""
        if self.state is not DeviceState.READY or digest not in self._loaded:
            return None
        begun = time.monotonic()
        try:
            outputs = self._process.run(digest, x)
        except DeviceFaultError as fault:
            self._failed(fault)
            return None
        took = time.monotonic() - begun
        wrong = check(outputs) if check is not None else None
        if wrong is not None:
            self._failed(DeviceFaultError(FaultKind.WRONG, wrong))
            return None
        self._in_a_row = 0
        self._typical += 0.1 * (took - self._typical)
        self._duty.busy(took)
        self._metrics.seconds.labels(self.name).observe(took)
        self._metrics.duty.labels(self.name).set(self._duty.share)
        self._metrics.power.labels(self.name).set(self.power_estimate)
        return outputs

    def _failed(self, fault: DeviceFaultError) -> None:
        """Under `_using`: end the process, decide when to try again."""
        if self._info is not None and not is_present(self._info):
            fault = DeviceFaultError(FaultKind.LOST, f"no longer on its bus ({fault.reason})")
        hopeless = False
        try:
            self._process.kill()
        except DeviceFaultError as error:
            fault, hopeless = error, True
        now = time.monotonic()
        with self._changed:
            if self.state not in (DeviceState.READY, DeviceState.STARTING):
                return
            self.last_fault = fault
            self._metrics.faults.labels(self.name, fault.kind).inc()
            self._loaded.clear()
            self._faults.append(now)
            while self._faults[0] < now - self._patience.window:
                self._faults.popleft()
            if hopeless or len(self._faults) >= self._patience.most_faults:
                self._faults.clear()
                self._in_a_row = 0
                self._due = now + self._patience.quarantine
                self._enter(DeviceState.QUARANTINED)
            else:
                pause = min(self._patience.first_pause * 2**self._in_a_row, self._patience.longest_pause)
                self._in_a_row += 1
                self._due = now + pause
                self._enter(DeviceState.BACKING_OFF)
            said = f"{self.name}: {fault.reason}; the CPU answers, {self.state} for {self._due - now:.3g} s"
        log.warning("tpu_fault", message=said, device=self.name, kind=fault.kind.value)

    def _enter(self, state: DeviceState) -> None:
        """Under `_changed`."""
        if state not in SUCCESSORS[self.state]:
            raise RuntimeError(f"a device does not go from {self.state} to {state}")
        self._metrics.state.labels(self.name, self.state).set(0)
        self.state = state
        self._metrics.state.labels(self.name, state).set(1)
        self._changed.notify_all()

    def _guarded_bring_up(self) -> bool:
        """Under `_using`: all models that the device is to have, each with one invocation, which sends the weights."""
        try:
            while True:
                with self._changed:
                    had = self._loaded | self._refused
                    missing = [m for d, m in self._models.items() if d not in had]
                    if not missing:
                        if self.state is DeviceState.STARTING:
                            self._enter(DeviceState.READY)
                        return True
                self._bring_up(missing[0])
        except DeviceFaultError as fault:
            self._failed(fault)
            return False

    def _bring_up(self, model: ModelFile) -> None:
        assert model.compiled is not None
        try:
            spec = self._process.load(model.digest, model.compiled).inputs[0]
        except DeviceFaultError as fault:
            if fault.kind is not FaultKind.ERROR:
                raise
            self._refused.add(model.digest)  # the device is well; the model is not for it
            said = f"{self.name} refuses model {model.digest}: {fault.reason}; it runs on the CPU"
            log.warning("tpu_model_refused", message=said, device=self.name, model=model.digest)
            return
        self._process.run(model.digest, np.zeros(spec.shape, spec.kind))
        self._loaded.add(model.digest)

    def _keep_up(self) -> None:
        """The thread that brings the device up, again and again, and that tears it down."""
        while self._next_start():
            with self._using:
                self._loaded.clear()
                self._refused.clear()
                try:
                    self._lock = self._lock or DeviceLock(self.name)
                    self._process.start(self._lock.fd)
                except BusyError as error:
                    self._failed(DeviceFaultError(FaultKind.BUSY, str(error)))
                    continue
                except DeviceFaultError as fault:
                    self._failed(self._explained(fault))
                    continue
                if self._guarded_bring_up():
                    self._metrics.restarts.labels(self.name).inc()
        with self._using:
            self._process.close()
            if self._lock is not None:
                self._lock.release()

    def _explained(self, fault: DeviceFaultError) -> DeviceFaultError:
        """The library gives no reasons; the first failure in a row is looked into."""
        if self._explain is None or self._in_a_row:
            return fault
        return DeviceFaultError(fault.kind, f"{fault.reason}: {self._explain()}")

    def _next_start(self) -> bool:
        """Wait until a start is due; False when there will be none."""
        with self._changed:
            while True:
                match self.state:
                    case DeviceState.CLOSED:
                        return False
                    case DeviceState.STARTING:
                        return True
                    case DeviceState.READY:
                        self._changed.wait()
                    case _ if self._due <= time.monotonic():
                        self._enter(DeviceState.STARTING)
                    case _:
                        self._changed.wait(self._due - time.monotonic())
