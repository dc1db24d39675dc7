"""A thousand faults in a row: every answer right, no process, descriptor or memory left behind."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mockedgetpu import Bus, for_the_mock
from tputools import int8_of, some_network

from dgdm.tpu.accelerator import Cpu
from dgdm.tpu.device import Device, DeviceState
from dgdm.tpu.rows import RowModel

COUNT = 1_000
HANGS = 40  # each waits for the watchdog
KINDS = ["abort", "crash", "error", "wrong", "echo", "vanish"]


def left_behind() -> dict[str, int]:
    """What this process holds, and what its children and theirs are."""
    stats = [p.read_text() for p in Path("/proc").glob("[0-9]*/stat") if p.exists()]
    fields = [(text.split()[0], *text.rpartition(")")[2].split()[:2]) for text in stats]
    ours = {str(os.getpid())}
    for _ in range(3):  # children, theirs, and once more
        ours |= {pid for pid, _, parent in fields if parent in ours}
    maps = Path("/proc/self/maps").read_text()
    return {
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "shared memory": maps.count("memfd:dgdm") + maps.count("/dev/shm"),
        "processes": len(ours),
        "zombies": sum(pid in ours and state == "Z" for pid, state, _ in fields),
    }


def test_a_thousand_faults(open_device: Callable[..., Device], bus: Bus, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(size=(16, 8)).astype(np.float32)
    model_file = for_the_mock(int8_of(some_network(random, 8, 4), x, rows=17))
    expected = RowModel(Cpu(), model_file).run(x)
    device = open_device()
    model = RowModel(device, model_file)
    faults = random.permutation((KINDS * COUNT)[: COUNT - HANGS] + ["hang"] * HANGS)
    np.testing.assert_allclose(model.run(x), expected, atol=1.01 * model._out.scale)
    before, answers = left_behind(), Counter[str]()
    for kind in faults:
        bus.mode(str(kind))
        np.testing.assert_allclose(model.run(x), expected, atol=1.01 * model._out.scale)
        bus.mode("ok")
        assert device.wait(DeviceState.READY, timeout=60), device.last_fault
        answers[str(kind)] += 1
    np.testing.assert_allclose(model.run(x), expected, atol=1.01 * model._out.scale)
    assert answers.total() == COUNT
    assert model.by_cpu == COUNT * len(x), "each fault was met, and answered by the CPU"
    total = sum(
        s.value for m in device._metrics.faults.collect() for s in m.samples if s.name.endswith("_total")
    )
    assert total >= COUNT
    after = left_behind()
    assert after["zombies"] == 0
    assert after == before
