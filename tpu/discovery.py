"""Which Edge TPUs this machine shows, without opening any: PCIe by the apex driver's sysfs, USB by its ids.

Source: google/gasket-driver (apex_driver.c) for names and units; USB ids from Coral's udev rules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from .errors import ModelError

USB_IDS: Final = {("1a6e", "089a"), ("18d1", "9302")}
"""Before and after the library has loaded the firmware: the device comes back under another id and number."""
PCI_ID: Final = ("0x1ac1", "0x089a")
DEAD_BELOW: Final = -80.0
"""°C. A lost bus reads all ones, which the driver turns into -89.7."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the kernel shows its devices."""

    sysfs: Path = Path("/sys")
    dev: Path = Path("/dev")


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """One device. `spec` is its name for the delegate, which counts each bus by itself."""

    bus: str  # pci or usb
    index: int
    name: str  # /dev/apex_0, or usb:2-1 after its port
    sysfs: Path
    node: Path  # what must be readable and writable

    @property
    def spec(self) -> str:
        """pci:0, usb:1."""
        return f"{self.bus}:{self.index}"


class Target(NamedTuple):
    """What a `device_path` means here."""

    spec: str  # for the delegate; "cpu" for none
    name: str  # one name per device, whatever it was called: the lock's
    info: DeviceInfo | None  # None: not seen on this machine


def discover(machine: Machine | None = None) -> list[DeviceInfo]:
    """PCIe devices, then USB ones."""
    machine = machine or Machine()
    return [*_pci(machine), *_usb(machine)]


def _pci(machine: Machine) -> list[DeviceInfo]:
    found = sorted((machine.sysfs / "class" / "apex").glob("apex_*"), key=_last_number)
    return [
        DeviceInfo("pci", i, f"/dev/{path.name}", path, machine.dev / path.name)
        for i, path in enumerate(found)
    ]


def _usb(machine: Machine) -> list[DeviceInfo]:
    ports = sorted((machine.sysfs / "bus" / "usb" / "devices").glob("*"))
    found = [p for p in ports if (_read(p / "idVendor"), _read(p / "idProduct")) in USB_IDS]
    return [
        DeviceInfo("usb", i, f"usb:{path.name}", path, _usb_node(machine, path))
        for i, path in enumerate(found)
    ]


def _usb_node(machine: Machine, path: Path) -> Path:
    bus, device = (_read(path / name) for name in ("busnum", "devnum"))
    return machine.dev / "bus" / "usb" / f"{int(bus or 0):03d}" / f"{int(device or 0):03d}"


def driverless(machine: Machine | None = None) -> list[Path]:
    """PCIe devices of the right id that no apex driver serves."""
    machine = machine or Machine()
    devices = (machine.sysfs / "bus" / "pci" / "devices").glob("*")
    found = [p for p in devices if (_read(p / "vendor"), _read(p / "device")) == PCI_ID]
    return [p for p in sorted(found) if not (p / "apex").exists()]


def resolve(device_path: str, machine: Machine | None = None) -> Target:
    """`/dev/apex_0`, `pci:1`, `usb:0`, `usb`, `pci`, or `cpu`. Raises ModelError for any other text."""
    if device_path == "cpu":
        return Target("cpu", "cpu", None)
    devices = discover(machine)
    match = re.fullmatch(r"/dev/apex_(?P<number>\d+)|(?P<bus>usb|pci)(:(?P<index>\d+))?", device_path)
    if match is None:
        raise ModelError(f"device_path {device_path!r} is none of cpu, /dev/apex_N, pci:N, usb:N")
    # without an index, every open of a process would get the same device
    number, spec = match["number"], match["bus"] and f"{match['bus']}:{match['index'] or 0}"
    for info in devices:
        if device_path == info.name or spec == info.spec:
            return Target(info.spec, info.name, info)
    return Target(spec or f"pci:{number}", spec or device_path, None)


def temperature(info: DeviceInfo) -> float | None:
    """°C, or None: USB devices do not tell, and some drivers do not."""
    return _thousandths(info.sysfs / "temp")


def first_trip_point(info: DeviceInfo) -> float | None:
    """°C at which the device begins to halve its clock."""
    return _thousandths(info.sysfs / "trip_point0_temp")


def owner(info: DeviceInfo) -> str | None:
    """The process that has a PCIe device open, as the driver tells it."""
    if _read(info.sysfs / "is_device_owned") != "1":
        return None
    return _read(info.sysfs / "device_owner") or "unknown"


def is_present(info: DeviceInfo) -> bool:
    """Whether it is still on its bus. A USB device may have come back with another number on the same port."""
    degrees = temperature(info)
    return info.sysfs.exists() and (degrees is None or degrees > DEAD_BELOW)


def _thousandths(path: Path) -> float | None:
    text = _read(path)
    try:
        return None if text is None else int(text) / 1000
    except ValueError:
        return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _last_number(path: Path) -> int:
    return int(re.findall(r"\d+", path.name)[-1])
