"""Devices on a machine that is a folder of files, written as the kernel and the apex driver print them."""

from __future__ import annotations

from pathlib import Path

import pytest
from mockedgetpu import apex, usb

from dgdm.tpu.discovery import (
    Machine,
    discover,
    driverless,
    first_trip_point,
    is_present,
    owner,
    resolve,
    temperature,
)
from dgdm.tpu.errors import ModelError


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "sys", tmp_path / "dev")


def test_nothing_there(machine: Machine) -> None:
    assert discover(machine) == []
    assert driverless(machine) == []


def test_devices_are_counted_per_bus_as_the_delegate_does(machine: Machine) -> None:
    for number in (10, 2, 0):
        apex(machine.sysfs, number)
    usb(machine.sysfs, "2-1")
    usb(machine.sysfs, "1-4", "1a6e", "089a")
    usb(machine.sysfs, "1-1", "1d6b", "0002")  # a hub
    found = {info.spec: (info.name, info.node) for info in discover(machine)}
    assert found == {
        "pci:0": ("/dev/apex_0", machine.dev / "apex_0"),
        "pci:1": ("/dev/apex_2", machine.dev / "apex_2"),
        "pci:2": ("/dev/apex_10", machine.dev / "apex_10"),
        "usb:0": ("usb:1-4", machine.dev / "bus/usb/002/003"),
        "usb:1": ("usb:2-1", machine.dev / "bus/usb/002/003"),
    }


@pytest.mark.parametrize(
    ("path", "spec", "name"),
    [
        ("cpu", "cpu", "cpu"),
        ("/dev/apex_2", "pci:1", "/dev/apex_2"),
        ("pci:1", "pci:1", "/dev/apex_2"),
        ("pci", "pci:0", "/dev/apex_0"),
        ("usb", "usb:0", "usb:2-1"),
        ("usb:0", "usb:0", "usb:2-1"),
        ("usb:2-1", None, None),
        ("usb:7", "usb:7", "usb:7"),
        ("/dev/apex_5", "pci:5", "/dev/apex_5"),
    ],
)
def test_every_name_of_a_device_means_the_same_one(
    machine: Machine, path: str, spec: str | None, name: str | None
) -> None:
    apex(machine.sysfs, 0)
    apex(machine.sysfs, 2)
    usb(machine.sysfs, "2-1")
    if spec is None:
        with pytest.raises(ModelError, match="none of cpu, /dev/apex_N, pci:N, usb:N"):
            resolve(path, machine)
    else:
        target = resolve(path, machine)
        assert (target.spec, target.name) == (spec, name)


@pytest.mark.parametrize("path", ["", "tpu", "usb:x", "pci:-1", "/dev/apex", "/dev/sda", "CPU"])
def test_other_paths_are_refused(machine: Machine, path: str) -> None:
    with pytest.raises(ModelError, match=f"device_path '{path}' is none of"):
        resolve(path, machine)


def test_what_the_driver_tells(machine: Machine) -> None:
    folder = apex(machine.sysfs, temperature=45_250)
    (info,) = discover(machine)
    assert temperature(info) == 45.25
    assert first_trip_point(info) == 84.8
    assert owner(info) is None
    assert is_present(info)
    (folder / "is_device_owned").write_text("1\n")
    (folder / "device_owner").write_text("4711\n")
    assert owner(info) == "4711"
    (folder / "temp").write_text("-89700\n")  # all ones: the bus is lost
    assert not is_present(info)
    for text in ("", "warm", None):  # drivers without a thermometer
        (folder / "temp").unlink(missing_ok=True) if text is None else (folder / "temp").write_text(text)
        assert temperature(info) is None
        assert is_present(info)


def test_a_device_without_a_driver_is_seen(machine: Machine) -> None:
    for name, vendor, device in [
        ("0000:01:00.0", "0x1ac1", "0x089a"),
        ("0000:02:00.0", "0x1ac1", "0x089a"),
        ("0000:03:00.0", "0x8086", "0x089a"),
    ]:
        folder = machine.sysfs / "bus" / "pci" / "devices" / name
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "device").write_text(f"{device}\n")
    (machine.sysfs / "bus" / "pci" / "devices" / "0000:02:00.0" / "apex").mkdir()
    assert [path.name for path in driverless(machine)] == ["0000:01:00.0"]
