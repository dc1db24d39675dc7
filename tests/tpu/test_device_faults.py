"""Every fault of a device, on a library that plays them: the answer is right, and the device comes back."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mockedgetpu import Bus, apex, for_the_mock, library
from structlog.testing import capture_logs
from tputools import int8_of, some_network

from dgdm.tpu.accelerator import Cpu
from dgdm.tpu.device import SUCCESSORS, Device, DeviceState, Patience
from dgdm.tpu.discovery import Machine
from dgdm.tpu.model import ModelFile
from dgdm.tpu.rows import RowModel

Open = Callable[..., Device]
RANDOM = np.random.default_rng(11)
NETWORK = some_network(RANDOM, 12, 20, 6)
X = RANDOM.normal(size=(50, 12)).astype(np.float32)
MODEL = for_the_mock(int8_of(NETWORK, X, rows=32))
EXPECTED = RowModel(Cpu(), MODEL).run(X)
FAULTS = {
    "hang": "hang",
    "abort": "died",
    "crash": "died",
    "error": "error",
    "wrong": "wrong",
    "echo": "wrong",
    "vanish": "error",
}


def right(model: RowModel) -> bool:
    """Whether an answer is what the CPU's is, within a step."""
    return bool(np.abs(model.run(X) - EXPECTED).max() <= 1.01 * model._out.scale)


def counted(device: Device, kind: str) -> float:
    return device._metrics.faults.labels(device.name, kind)._value.get()


def test_the_device_answers(open_device: Open) -> None:
    device = open_device()
    model = RowModel(device, MODEL)
    assert right(model)
    assert (model.by_device, model.by_cpu) == (50, 0)
    assert device._metrics.invocations.labels("pci:0", "device")._value.get() == 2
    assert device.queued_seconds == 0


@pytest.mark.parametrize("mode", FAULTS)
def test_a_fault_costs_time_and_nothing_else(open_device: Open, bus: Bus, mode: str) -> None:
    device = open_device()
    model = RowModel(device, MODEL)
    bus.mode(mode)
    assert right(model), "the CPU has answered"
    assert model.by_cpu == 50
    assert counted(device, FAULTS[mode]) >= 1
    assert device.last_fault is not None
    bus.mode("ok")
    assert device.wait(DeviceState.READY, timeout=30)
    assert right(model)
    assert model.by_device == 50
    assert device._metrics.restarts.labels("pci:0")._value.get() >= 2


@pytest.mark.parametrize("mode", FAULTS)
def test_a_fault_in_the_middle_of_a_batch(open_device: Open, bus: Bus, mode: str) -> None:
    device = open_device()
    bus.mode(f"{mode}:3")  # the first is the warm-up
    model = RowModel(device, MODEL)
    assert right(model)
    assert (model.by_device, model.by_cpu) == (31, 19)


def test_slow_is_no_fault(open_device: Open, bus: Bus) -> None:
    device = open_device()
    model = RowModel(device, MODEL)
    bus.mode("slow")
    assert right(model)
    assert model.by_device == 50
    assert device.last_fault is None


def test_the_reason_is_in_the_librarys_own_words(open_device: Open, bus: Bus) -> None:
    device = open_device()
    model = RowModel(device, MODEL)
    said = {}
    for mode in ("abort", "error", "hang", "wrong"):
        assert device.wait(DeviceState.READY, timeout=30)
        bus.mode(mode)
        model.run(X)
        said[mode] = str(device.last_fault)
        bus.mode("ok")
    assert "SIGABRT" in said["abort"]
    assert "transfer on tag 1 failed" in said["abort"]
    assert "HIB Error" in said["error"]
    assert "no answer within 0.2 s" in said["hang"]
    assert re.search(r"the golden row came back \d+ steps off, 4 are allowed", said["wrong"])


def test_two_openers(open_device: Open) -> None:
    first = open_device()
    second = open_device(ready=False)
    assert second.wait(DeviceState.BACKING_OFF, timeout=30)
    models = RowModel(first, MODEL), RowModel(second, MODEL)
    assert all(right(model) for model in models)
    assert models[0].by_device == models[1].by_cpu == 50, "the first is not disturbed, the second has the CPU"
    assert f"pci:0 belongs to process {os.getpid()}" in str(second.last_fault)
    first.close()
    assert second.wait(DeviceState.READY, timeout=30), "a device that is given up is taken"
    assert right(models[1])
    assert models[1].by_device == 50


@pytest.mark.parametrize("whom", ["child", "nursery"])
def test_a_killed_process_comes_back(open_device: Open, whom: str) -> None:
    device = open_device()
    model = RowModel(device, MODEL)
    assert right(model)
    nursery = device._process._nursery
    assert nursery is not None
    pid = device._process.pid if whom == "child" else nursery.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert right(model)
    assert device.wait(DeviceState.READY, timeout=30)
    assert right(model)
    assert model.by_device >= 50


PARENT = """
import sys, time
sys.path[:0] = {path!r}
import numpy as np
from dgdm.tpu.process import DeviceProcess, Launch
from pathlib import Path
process = DeviceProcess(Launch({library!r}, {{"device": "pci:0"}}, {environment!r}, timeout=60))
process.start()
content = Path({model!r}).read_bytes()
shape = process.load("m", content).inputs[0].shape
print(process.pid, process._nursery.pid, flush=True)
process.run("m", np.zeros(shape, np.int8))
"""


def test_a_killed_parent_leaves_nobody_behind(bus: Bus, tmp_path: Path) -> None:
    """Even when the device hangs in the middle of an invocation."""
    assert MODEL.compiled is not None
    (tmp_path / "m.tflite").write_bytes(MODEL.compiled)
    bus.mode("hang")
    program = PARENT.format(
        path=[p for p in sys.path if p],
        library=library(),
        environment=bus.environment,
        model=str(tmp_path / "m.tflite"),
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.kill()
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() and not is_zombie(pid) for pid in pids):
        assert time.monotonic() < until, "a process outlived its parent"
        os.sched_yield()


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_pauses_double_and_end_in_quarantine(open_device: Open, bus: Bus) -> None:
    patience = Patience(first_pause=0.01, longest_pause=0.03, most_faults=4, quarantine=0.05)
    bus.mode("hang")
    with capture_logs() as logs:
        device = open_device(patience=patience)
        RowModel(device, MODEL)  # its first invocation, the warm-up, hangs
        assert device.wait(DeviceState.QUARANTINED, timeout=60)
        bus.mode("ok")
        assert device.wait(DeviceState.READY, timeout=60), "it is not left alone for ever"
    said = [re.findall(r"(backing_off|quarantined) for ([\d.e-]+) s", log["message"])[0] for log in logs]
    pauses = [float(pause) for _, pause in said]
    assert [state for state, _ in said] == ["backing_off"] * 3 + ["quarantined"]
    for pause, expected in zip(pauses, [0.01, 0.02, 0.03, 0.05], strict=True):
        assert pause == pytest.approx(expected, rel=0.05), (
            "counted from the fault; nothing is waited for here"
        )


def test_a_file_the_library_refuses_runs_on_the_cpu_and_others_on_the_device(open_device: Open) -> None:
    device = open_device()
    good = RowModel(device, MODEL)
    other = int8_of(some_network(RANDOM, 12, 3), X, rows=32)
    assert MODEL.compiled is not None
    bad = RowModel(device, ModelFile(other, MODEL.compiled[:-40]))
    bad.run(X)
    assert bad.by_cpu == 50
    assert device.state is DeviceState.READY
    assert right(good)
    assert good.by_device == 50


def test_models_come_back_after_a_restart_and_go_when_unloaded(open_device: Open, bus: Bus) -> None:
    device = open_device()
    other_file = for_the_mock(int8_of(some_network(RANDOM, 12, 3), X, rows=32))
    first, other = RowModel(device, MODEL), RowModel(device, other_file)
    bus.mode("abort")
    first.run(X)
    bus.mode("ok")
    assert device.wait(DeviceState.READY, timeout=30)
    other.run(X)
    assert other.by_device == 50
    other.close()
    assert device._loaded == {MODEL.digest}
    assert right(first)


def test_a_device_that_has_left_its_bus_is_lost(open_device: Open, bus: Bus, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "sys", tmp_path / "dev")
    folder = apex(machine.sysfs, device_folder=machine.dev)
    device = open_device(machine=machine)
    assert device.name == "/dev/apex_0"
    model = RowModel(device, MODEL)
    bus.mode("vanish")
    folder.rename(tmp_path / "gone")
    assert right(model)
    assert counted(device, "lost") >= 1
    assert "no longer on its bus" in str(device.last_fault)
    bus.mode("ok")
    (tmp_path / "gone").rename(folder)
    assert device.wait(DeviceState.READY, timeout=30)
    assert right(model)


@pytest.mark.parametrize("degrees", [78_000, 83_000])
def test_a_hot_device_rests_until_it_has_cooled_down(open_device: Open, tmp_path: Path, degrees: int) -> None:
    machine = Machine(tmp_path / "sys", tmp_path / "dev")
    thermometer = apex(machine.sysfs, device_folder=machine.dev) / "temp"
    device = open_device(machine=machine)
    device._guard._interval = 0
    model = RowModel(device, MODEL)
    for millidegrees, by_device in [(77_999, True), (degrees, False), (76_000, False), (74_000, True)]:
        thermometer.write_text(f"{millidegrees}\n")
        before = model.by_device
        assert right(model)
        assert (model.by_device > before) == by_device, millidegrees
    assert device.last_fault is None, "heat is no fault"
    assert device._metrics.temperature.labels(device.name)._value.get() == 74
    assert device.celsius == 74


def test_a_thermometer_of_a_lost_bus_is_a_fault(open_device: Open, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "sys", tmp_path / "dev")
    thermometer = apex(machine.sysfs, device_folder=machine.dev) / "temp"
    device = open_device(machine=machine)
    device._guard._interval = 0
    model = RowModel(device, MODEL)
    thermometer.write_text("-89700\n")
    assert right(model)
    assert model.by_cpu == 50
    assert counted(device, "lost") >= 1


def test_power_limits_become_levels_of_the_delegate(open_device: Open, bus: Bus) -> None:
    device = open_device(power_limit=0.9)
    model = RowModel(device, MODEL)
    assert "Performance=High" in bus.options()
    assert right(model)
    from dgdm.tpu.power import plan

    device.set_power(plan(0.2))
    assert device.wait(DeviceState.READY, timeout=30)
    assert bus.options()[-2:] == ["device=pci:0", "Performance=Low"]
    assert right(model)
    assert device.last_fault is None


def test_a_resting_device_leaves_its_work_to_the_cpu(open_device: Open) -> None:
    device = open_device()
    model = RowModel(device, MODEL)
    device._duty.duty = 1e-6
    assert right(model)
    assert (model.by_device, model.by_cpu) == (31, 19)


def test_the_table_of_states_is_the_law(open_device: Open) -> None:
    device = open_device()
    assert set(SUCCESSORS) == set(DeviceState)
    with pytest.raises(RuntimeError, match="a device does not go from ready to ready"):
        device._enter(DeviceState.READY)
    device.close()
    device.close()
    assert device.state is DeviceState.CLOSED
