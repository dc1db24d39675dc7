"""Why a device does not work, and what to do: the library itself only says "Failed to load delegate"."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from .discovery import DEAD_BELOW, Machine, discover, driverless, owner, resolve, temperature
from .errors import BusyError, MissingRuntimeError
from .lock import DeviceLock
from .process import LIBRARY
from .runtime import load_runtime

PROBE_TIMEOUT = 30.0
"""Seconds: a sick PCIe device takes 12 to open."""


class Condition(StrEnum):
    """What is the matter."""

    OK = "ok"
    NO_RUNTIME = "no runtime"
    NO_LIBRARY = "no library"
    OLD_LIBRARY = "old library"
    NO_DEVICE = "no device"
    NO_DRIVER = "no driver"
    NO_PERMISSION = "no permission"
    BUSY = "busy"
    LOST = "lost"
    HANGS = "hangs"
    UNKNOWN = "unknown"


class Diagnosis(NamedTuple):
    """In words."""

    condition: Condition
    message: str

    @property
    def ok(self) -> bool:
        """Whether the device can be used."""
        return self.condition is Condition.OK


UDEV_PCI = (
    """put SUBSYSTEM=="apex", MODE="0660", GROUP="apex" into a udev rule and yourself into group apex"""
)
UDEV_USB = "put yourself into group plugdev and install Coral's udev rule (a container needs /dev/bus/usb)"
OLD = (
    "the library does not fit this runtime: Google's own builds of 2021 do not. Install one built for TensorFlow 2.13 "
    "or later, for example from feranick/libedgetpu"
)


def diagnose(
    device_path: str,
    library: str,
    machine: Machine | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    ours: bool = False,
) -> Diagnosis:
    """Look at one device without trusting anything: the library is touched in a process of its own.

    A device in use is not touched. `ours`: the caller holds the lock and has closed the device. Raises ModelError for
    a path that names nothing.
    """
    machine = machine or Machine()
    try:
        runtime = load_runtime()
    except MissingRuntimeError as error:
        return Diagnosis(Condition.NO_RUNTIME, str(error))
    target = resolve(device_path, machine)
    if target.spec == "cpu":
        return Diagnosis(Condition.OK, f"the CPU, by {runtime.name} {runtime.version}")
    seen = _look(device_path, machine)
    if seen is not None:
        return seen
    try:
        lock = None if ours else DeviceLock(target.name)
    except BusyError as error:
        return Diagnosis(Condition.BUSY, str(error))
    try:
        return _probe(target.spec, library, environment or {})
    finally:
        if lock is not None:
            lock.release()


def survey(
    library: str = LIBRARY, machine: Machine | None = None, environment: Mapping[str, str] | None = None
) -> list[tuple[str, Diagnosis]]:
    """Every device of this machine with its diagnosis; the CPU when there is none."""
    paths = [info.spec for info in discover(machine)] or (["pci:0"] if driverless(machine) else ["cpu"])
    return [(path, diagnose(path, library, machine, environment)) for path in paths]


def _look(device_path: str, machine: Machine) -> Diagnosis | None:
    """What sysfs alone shows to be wrong."""
    info = resolve(device_path, machine).info
    if info is None:
        return _not_seen(device_path, machine)
    degrees = temperature(info)
    if degrees is not None and degrees < DEAD_BELOW:
        advice = "remove and rescan it: `dgdm tpu reset-advice`"
        return Diagnosis(Condition.LOST, f"{info.name} reads {degrees} °C: its bus is lost; {advice}")
    if not info.node.exists():
        return Diagnosis(Condition.NO_DEVICE, f"{info.node} is missing; in a container, pass it in")
    if not os.access(info.node, os.R_OK | os.W_OK):
        rule = UDEV_PCI if info.bus == "pci" else UDEV_USB
        return Diagnosis(Condition.NO_PERMISSION, f"{info.node} may not be opened by this user: {rule}")
    pid = owner(info)
    if pid is not None and pid != str(os.getpid()):
        return Diagnosis(Condition.BUSY, f"{info.name} is open in process {pid}: one process per device")
    return None


def _not_seen(device_path: str, machine: Machine) -> Diagnosis | None:
    others = [info.spec for info in discover(machine)]
    bare = driverless(machine)
    if others:
        return Diagnosis(
            Condition.NO_DEVICE, f"{device_path} is not there, but {', '.join(others)}: see `dgdm tpu list`"
        )
    if bare:
        return Diagnosis(
            Condition.NO_DRIVER,
            f"PCIe device {bare[0].name} has no driver: build gasket-dkms from google/gasket-driver "
            "(the packaged one fails on kernels from 6 on) and load modules gasket and apex",
        )
    if not (machine.sysfs / "bus").exists():
        return None  # no sysfs on this system: the library may know more
    return Diagnosis(
        Condition.NO_DEVICE,
        f"{device_path} is not there, nor any Edge TPU: neither an apex device nor USB 1a6e:089a or 18d1:9302",
    )


def _probe(spec: str, library: str, environment: Mapping[str, str]) -> Diagnosis:
    command = [sys.executable, "-m", "dgdm.tpu.probe", library, spec]
    path = os.pathsep.join(p for p in sys.path if p)
    try:
        done = subprocess.run(  # noqa: S603 - this very interpreter
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT,
            env={**os.environ, "PYTHONPATH": path, **environment},
        )
    except subprocess.TimeoutExpired:
        return Diagnosis(
            Condition.HANGS, f"{spec} does not open within {PROBE_TIMEOUT:g} s: `dgdm tpu reset-advice`"
        )
    steps: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    return _judge(spec, library, steps, done.returncode)


def _judge(spec: str, library: str, steps: list[dict[str, Any]], code: int) -> Diagnosis:
    """From the steps a probe survived to what is the matter."""
    said = {step["step"]: step for step in steps}
    reason = said.get("failed", {}).get("reason", f"it ended the probe with {code}")
    if "fits" in said:
        return Diagnosis(Condition.OK, f"{spec} opens; {said['loaded']['version']}")
    if "handing over" in said:
        return Diagnosis(Condition.OLD_LIBRARY, f"{said['loaded']['version']} ended with {code}: {OLD}")
    if "loaded" not in said and code < 0:
        return Diagnosis(Condition.OLD_LIBRARY, f"{library} crashes when loaded: {OLD}")
    if "loaded" not in said:
        return Diagnosis(
            Condition.NO_LIBRARY, f"{library} cannot be loaded ({reason}): install libedgetpu and libusb-1.0"
        )
    if "failed" not in said:
        return Diagnosis(Condition.UNKNOWN, f"{library} fails while it opens {spec}: {reason}")
    return _not_opened(spec, said["loaded"]["devices"])


def _not_opened(spec: str, listed: list[str]) -> Diagnosis:
    bus, index = spec.split(":")
    if sum(name.startswith(f"{bus}:") for name in listed) <= int(index):
        seen = ", ".join(listed) or "no device"
        return Diagnosis(Condition.NO_DEVICE, f"the library sees {seen}, not {spec}")
    return Diagnosis(
        Condition.BUSY,
        f"the library sees {spec} and does not open it: another process has it, or it needs a reset",
    )


def reset_advice(device_path: str, machine: Machine | None = None) -> list[str]:
    """Commands that bring a device back, for an administrator to read and type. Raises ModelError."""
    target = resolve(device_path, machine)
    if target.info is not None and target.info.bus == "pci":
        address = _pci_address(target.info.sysfs)
        return [
            "end the process that owns the device (`dgdm tpu list` names it)",
            f"echo 1 > /sys/bus/pci/devices/{address}/remove",
            "sleep 1",
            "echo 1 > /sys/bus/pci/rescan",
            "no device afterwards: power the machine off and on, a warm reboot may not reset it",
        ]
    if target.spec.startswith("pci"):
        return [
            "no apex device is visible: echo 1 > /sys/bus/pci/rescan",
            "then look at `dmesg | grep -i apex` and power the machine off and on",
        ]
    if target.spec.startswith("usb"):
        port = target.name.removeprefix("usb:") if target.info is not None else "PORT"
        return [
            "end the process that owns the device",
            f"echo 0 > /sys/bus/usb/devices/{port}/authorized; sleep 1; echo 1 > /sys/bus/usb/devices/{port}/authorized",
            "no better: unplug it, or switch its port off and on with uhubctl",
        ]
    return ["the CPU needs no reset"]


def _pci_address(sysfs: Path) -> str:
    """Of the device behind an apex folder: the driver's own file, or the folder it links to."""
    try:
        return (sysfs / "pci_address").read_text().strip()
    except OSError:
        device = sysfs / "device"
        return device.resolve().name if device.exists() else "ADDRESS"
