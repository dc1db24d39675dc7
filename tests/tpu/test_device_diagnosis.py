"""What is wrong with a device, in words, where its library says "Failed to load delegate" to everything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mockedgetpu import Bus, apex, library, usb

from dgdm.tpu import diagnosis
from dgdm.tpu.device import Device
from dgdm.tpu.diagnosis import Condition, Diagnosis, diagnose, reset_advice, survey
from dgdm.tpu.discovery import Machine
from dgdm.tpu.errors import MissingRuntimeError
from dgdm.tpu.lock import DeviceLock


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """With one PCIe device."""
    machine = Machine(tmp_path / "sys", tmp_path / "dev")
    apex(machine.sysfs, device_folder=machine.dev)
    return machine


def found(bus: Bus, machine: Machine, path: str = "/dev/apex_0", lib: str | None = None) -> Diagnosis:
    return diagnose(path, lib or library(), machine, bus.environment)


def test_a_device_that_is_well(bus: Bus, machine: Machine) -> None:
    said = found(bus, machine)
    assert said.ok
    assert said.message == "pci:0 opens; BuildLabel(MOCK), RuntimeVersion(14)"


def test_the_cpu_is_always_well(bus: Bus, machine: Machine) -> None:
    assert found(bus, machine, "cpu").message.startswith("the CPU, by ai_edge_litert 2.")


def test_no_library(bus: Bus, machine: Machine) -> None:
    said = found(bus, machine, lib="libnothing.so.1")
    assert said.condition is Condition.NO_LIBRARY
    assert "libnothing.so.1 cannot be loaded" in said.message
    assert "install libedgetpu" in said.message


def test_an_old_library_crashes_the_probe_and_nobody_else(bus: Bus, machine: Machine) -> None:
    said = found(bus, machine, lib=library("-DOLD_ABI"))
    assert said.condition is Condition.OLD_LIBRARY
    assert "ended with -11" in said.message
    assert "feranick/libedgetpu" in said.message


def test_a_library_that_is_none(bus: Bus, machine: Machine, tmp_path: Path) -> None:
    source = tmp_path / "other.c"
    source.write_text("int other(void) { return 1; }")
    subprocess.run(["cc", "-shared", "-o", tmp_path / "other.so", source], check=True)
    assert found(bus, machine, lib=str(tmp_path / "other.so")).condition is Condition.NO_LIBRARY


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("pci:1", "pci:1 is not there, but pci:0"),
        ("usb:0", "usb:0 is not there, but pci:0"),
    ],
)
def test_another_device_than_the_one_that_is_there(bus: Bus, machine: Machine, path: str, says: str) -> None:
    said = found(bus, machine, path)
    assert said.condition is Condition.NO_DEVICE
    assert says in said.message


def test_no_device_at_all(bus: Bus, tmp_path: Path) -> None:
    (tmp_path / "bare" / "bus").mkdir(parents=True)
    said = found(bus, Machine(tmp_path / "bare", tmp_path / "dev"))
    assert said.condition is Condition.NO_DEVICE
    assert "nor any Edge TPU" in said.message


def test_no_driver(bus: Bus, tmp_path: Path) -> None:
    folder = tmp_path / "bare" / "bus" / "pci" / "devices" / "0000:01:00.0"
    folder.mkdir(parents=True)
    (folder / "vendor").write_text("0x1ac1\n")
    (folder / "device").write_text("0x089a\n")
    said = found(bus, Machine(tmp_path / "bare", tmp_path / "dev"))
    assert said.condition is Condition.NO_DRIVER
    assert "gasket-dkms" in said.message


def test_the_library_may_see_less_than_the_kernel(bus: Bus, machine: Machine) -> None:
    bus.devices("")
    said = found(bus, machine)
    assert said.condition is Condition.NO_DEVICE
    assert said.message == "the library sees no device, not pci:0"


def test_no_device_node(bus: Bus, machine: Machine) -> None:
    (machine.dev / "apex_0").unlink()
    said = found(bus, machine)
    assert said.condition is Condition.NO_DEVICE
    assert "in a container, pass it in" in said.message


@pytest.mark.parametrize(("path", "group"), [("pci:0", "group apex"), ("usb:0", "group plugdev")])
def test_no_permission(
    bus: Bus, machine: Machine, monkeypatch: pytest.MonkeyPatch, path: str, group: str
) -> None:
    usb(machine.sysfs, "2-1")
    (machine.dev / "bus/usb/002").mkdir(parents=True)
    (machine.dev / "bus/usb/002/003").touch()
    monkeypatch.setattr(diagnosis.os, "access", lambda *_: False)  # root may read everything
    said = found(bus, machine, path)
    assert said.condition is Condition.NO_PERMISSION
    assert group in said.message


def test_a_lost_bus(bus: Bus, machine: Machine) -> None:
    (machine.sysfs / "class/apex/apex_0/temp").write_text("-89700\n")
    said = found(bus, machine)
    assert said.condition is Condition.LOST
    assert "reads -89.7 °C" in said.message


def test_the_driver_names_an_owner(bus: Bus, machine: Machine) -> None:
    folder = machine.sysfs / "class/apex/apex_0"
    (folder / "is_device_owned").write_text("1\n")
    (folder / "device_owner").write_text("4711\n")
    said = found(bus, machine)
    assert said.condition is Condition.BUSY
    assert "open in process 4711" in said.message


def test_a_device_in_use_is_not_touched(bus: Bus, machine: Machine) -> None:
    lock = DeviceLock("/dev/apex_0")
    said = found(bus, machine)
    assert said.condition is Condition.BUSY
    assert f"belongs to process {os.getpid()}" in said.message
    assert bus.options() == [], "the library was not asked to open anything"
    lock.release()
    lock.release()
    assert found(bus, machine).ok


HOLD = """
import sys, time
sys.path[:0] = {path!r}
from ctypes import CDLL, c_char_p, c_size_t
lib = CDLL({library!r})
lib.tflite_plugin_create_delegate.restype = c_size_t
assert lib.tflite_plugin_create_delegate((c_char_p * 1)(b"device"), (c_char_p * 1)(b"pci:0"), c_size_t(1), None)
print("open", flush=True)
sys.stdin.read()
"""


def test_somebody_who_takes_no_lock_has_it_open(bus: Bus, machine: Machine) -> None:
    program = HOLD.format(path=[p for p in sys.path if p], library=library())
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, **bus.environment}, **pipes
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        said = found(bus, machine)
        other.communicate()
    assert said.condition is Condition.BUSY
    assert "another process has it" in said.message
    assert found(bus, machine).ok


def test_a_device_that_does_not_open_in_time(
    bus: Bus, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "PROBE_TIMEOUT", 0.0)
    assert found(bus, machine).condition is Condition.HANGS


def test_no_runtime(bus: Bus, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingRuntimeError("pip install it")

    monkeypatch.setattr(diagnosis, "load_runtime", missing)
    assert found(bus, machine) == (Condition.NO_RUNTIME, "pip install it")


def test_a_device_that_does_not_start_says_why(open_device: Callable[..., Device], machine: Machine) -> None:
    from dgdm.tpu.device import DeviceState

    device = open_device("/dev/apex_0", ready=False, machine=machine, library="libnothing.so.1")
    assert device.wait(DeviceState.BACKING_OFF, timeout=60)
    assert "install libedgetpu and libusb-1.0" in str(device.last_fault)


def test_a_survey_of_the_machine(bus: Bus, machine: Machine, tmp_path: Path) -> None:
    usb(machine.sysfs, "2-1")
    said = dict(survey(library(), machine, bus.environment))
    assert {path: found.condition for path, found in said.items()} == {
        "pci:0": Condition.OK,
        "usb:0": Condition.NO_DEVICE,
    }
    ((path, bare),) = survey(library(), Machine(tmp_path / "bare"))
    assert path == "cpu"
    assert bare.ok


def test_doctor_tells_what_models_run_on(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dgdm", "doctor", "--json"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    (tpu,) = [finding for finding in json.loads(done.stdout) if finding["what"] == "tpu"]
    assert tpu["message"].startswith("cpu: the CPU, by ai_edge_litert") or ":0: " in tpu["message"]


def test_advice_names_the_device(machine: Machine) -> None:
    (machine.sysfs / "class/apex/apex_0/pci_address").write_text("0000:01:00.0\n")
    usb(machine.sysfs, "2-1")
    pci = "\n".join(reset_advice("/dev/apex_0", machine))
    assert "/sys/bus/pci/devices/0000:01:00.0/remove" in pci
    assert "/sys/bus/usb/devices/2-1/authorized" in "\n".join(reset_advice("usb:0", machine))
    assert "/devices/PORT/authorized" in "\n".join(reset_advice("usb:3", machine))
    assert "rescan" in "\n".join(reset_advice("pci:3", machine))
    assert reset_advice("cpu", machine) == ["the CPU needs no reset"]
