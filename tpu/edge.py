"""The front door: a device by its path, a model by its file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self, TypedDict, Unpack

from .accelerator import Accelerator, Cpu
from .compiler import compile_model
from .device import Device, DeviceState, Patience
from .diagnosis import diagnose
from .discovery import Machine, resolve
from .errors import ModelError, TpuError
from .metrics import TpuMetrics
from .model import ModelFile, read_model
from .network import Floats
from .power import parse_limit, plan
from .process import LIBRARY, Launch
from .rows import RowModel


class Options(TypedDict, total=False):
    """How a device is opened."""

    library: str  # of the delegate; libedgetpu.so.1
    power_limit: float | None  # watts; default: TPU_POWER_LIMIT
    timeout: float  # of the watchdog, in seconds: 1
    metrics: TpuMetrics
    machine: Machine
    patience: Patience
    environment: Mapping[str, str]  # for the device's process


def open_accelerator(device_path: str, **options: Unpack[Options]) -> Cpu | Device:
    """`cpu`, `/dev/apex_N`, `pci:N` or `usb:N`. A device starts in the background; the CPU answers meanwhile.

    Raises ModelError for a path that names nothing.
    """
    machine, metrics = options.get("machine"), options.get("metrics")
    target = resolve(device_path, machine)
    if target.spec == "cpu":
        return Cpu(metrics)
    limit = options.get("power_limit") or parse_limit(os.environ.get("TPU_POWER_LIMIT"))
    library, environment = options.get("library", LIBRARY), options.get("environment", {})
    launch = Launch(library, {"device": target.spec}, environment, options.get("timeout", 1.0))

    def explain() -> str:
        return diagnose(device_path, library, machine, environment, ours=True).message

    return Device(target, launch, plan(limit), metrics, options.get("patience"), explain)


def device_model(accelerator: Accelerator, model: ModelFile) -> ModelFile:
    """The model with what the accelerator needs: compiled for a device, when the compiler is at hand."""
    if model.compiled is not None or not accelerator.needs_compiled:
        return model
    return compile_model(model.content)


class EdgeTPU:
    """One device and one model of rows.

    Waits until the device is up or has failed. A device that has failed is tried again in the background while the
    CPU answers with the same file, unless `required`: then TpuError says what is wrong. Raises ModelError.
    """

    def __init__(
        self,
        device_path: str = "/dev/apex_0",
        model_path: str | Path = "model.tflite",
        *,
        required: bool = False,
        **options: Unpack[Options],
    ) -> None:
        model = read_model(Path(model_path))
        self.accelerator = open_accelerator(device_path, **options)
        try:
            self.model = RowModel(self.accelerator, device_model(self.accelerator, model))
            self._settle(required=required)
        except TpuError:
            self.accelerator.close()
            raise

    def _settle(self, *, required: bool) -> None:
        device = self.accelerator
        if isinstance(device, Cpu):
            return
        device.wait(DeviceState.READY, DeviceState.BACKING_OFF, DeviceState.QUARANTINED, timeout=60.0)
        if required and device.state is not DeviceState.READY:
            raise TpuError(f"{device.name} does not come up: {device.last_fault}")

    def run(self, x: Floats) -> Floats:
        """x [n, features] in feature units → [n, out], any n. Raises ModelError."""
        return self.model.run(x)

    def get_temperature(self) -> float | None:
        """°C; None where nobody measures it: USB devices, the CPU, some drivers."""
        return None if isinstance(self.accelerator, Cpu) else self.accelerator.celsius

    def set_power_limit(self, watts: float | None) -> None:
        """A limit for the estimate of its power, None for none. Raises ModelError."""
        if watts is not None and not watts > 0:
            raise ModelError(f"a power limit of {watts} W: want a number above 0, or None")
        if not isinstance(self.accelerator, Cpu):
            self.accelerator.set_power(plan(watts))

    def close(self) -> None:
        """Give the device up; may be called twice."""
        self.accelerator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
