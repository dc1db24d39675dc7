"""Devices without hardware. Locks are in a folder of the test, so that two runs on one machine do not meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from brokers import shared_broker
from mockedgetpu import QUICK, WATCHDOG, Bus, have_c_compiler, library
from stores import RedisProcess, redis_server
from tputools import Places, embedded

from dgdm.tpu.device import Device, DeviceState
from dgdm.tpu.edge import open_accelerator
from dgdm.tpu.metrics import TpuMetrics

__all__ = ["redis_server"]


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgdm.tpu.lock.lock_folder", lambda: tmp_path)
    monkeypatch.delenv("TPU_POWER_LIMIT", raising=False)


@pytest.fixture(params=["sqlite", pytest.param("kafka-redis", marks=pytest.mark.integration)])
def places(request: pytest.FixtureRequest) -> Places:
    """Each pair."""
    if request.param == "sqlite":
        return embedded
    server: RedisProcess = request.getfixturevalue("redis_server")
    return lambda _: (shared_broker().url, server.url)


@pytest.fixture
def bus(tmp_path: Path) -> Bus:
    """A machine with one PCIe device."""
    if not have_c_compiler():
        pytest.skip("no C compiler to build the mock library with")
    return Bus(tmp_path / "bus")


@pytest.fixture
def open_device(bus: Bus) -> Iterator[Callable[..., Device]]:
    """Opens devices of the bus and waits until they are up; closes them at the end."""
    with ExitStack() as stack:

        def opened(path: str = "pci:0", *, ready: bool = True, **options: object) -> Device:
            given = {
                "library": library(),
                "environment": bus.environment,
                "timeout": WATCHDOG,
                "patience": QUICK,
            }
            device = open_accelerator(path, **(given | {"metrics": TpuMetrics()} | options))  # type: ignore[arg-type]
            assert isinstance(device, Device)
            stack.callback(device.close)
            if ready:
                assert device.wait(DeviceState.READY, timeout=60), device.last_fault
            return device

        yield opened
