"""A worker whose regions run on a device that fails in every way: the stream goes on, and its certificate holds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mockedgetpu import Bus, have_c_compiler, install_compiler, library
from processes import WorkerProcess, make_topics, settings_of, until
from scrape import scrape
from stores import free_port
from streams import producer, require_truth
from tputools import Places, embedded

from dgdm.producers.graph import GraphProducer
from dgdm.settings import Settings

pytestmark = pytest.mark.timeout(280)
NODES = 60
DEVICE = os.getpid() % 6  # so that two runs on one machine do not meet at one lock


def region_settings(places: tuple[str, str], **others: Any) -> Settings:
    given = {"diffusion_backend": "region", "metrics_port": free_port()}
    return settings_of(*places, **(given | others))


async def passes(settings: Settings) -> float:
    """Over regions, accepted."""
    return (await scrape(settings.metrics_port)).get("dgdm_region_passes_total.accepted", 0.0)


async def ring(events: GraphProducer) -> None:
    random = np.random.default_rng(1)
    for i in range(NODES):
        await events.add_edge(str(i), str((7 * i + 1) % NODES), float(random.uniform(0.2, 2)))


async def tick(events: GraphProducer, hour: int) -> None:
    """All nodes move at once."""
    random = np.random.default_rng(hour)
    for i in range(NODES):
        await events.set_features(str(i), random.normal(size=4).astype(np.float32))
    await events.visible(60)


async def test_on_the_cpu(tmp_path: Path, places: Places) -> None:
    regions = tmp_path / "regions.json"
    regions.write_text(json.dumps([list(range(30)), [str(i) for i in range(30, NODES)], ["nobody"]]))
    for given in ({}, {"regions": regions}):
        folder = tmp_path / ("given" if given else "found")
        folder.mkdir()
        settings = region_settings(places(folder), **given)
        await make_topics(settings)
        async with producer(settings) as events:
            with WorkerProcess(settings, folder) as worker:
                await worker.serves()
                await ring(events)
                hour = 0
                while not await passes(settings):
                    hour += 1
                    await tick(events, hour)
                await require_held(settings)
                worker.kill()
            with WorkerProcess(settings, folder) as worker:
                await tick(events, 1000)
                assert await worker.stop() == 0
        await require_truth(settings)


async def require_held(settings: Settings) -> None:
    """What consumers hold now, by the auditor."""
    from dgdm.audit import audit

    found = await audit(settings, from_log=True)
    assert found.holds


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bus:
    """A bus of devices and a compiler, for the processes of the test."""
    if not have_c_compiler():
        pytest.skip("no C compiler to build the mock library with")
    bus = Bus(tmp_path / "bus", ",".join(f"pci:/dev/apex_{i}" for i in range(6)))
    monkeypatch.setenv("MOCK_EDGETPU", str(bus.folder))
    monkeypatch.setenv("PATH", install_compiler(tmp_path / "bin"))
    return bus


async def test_a_device_that_fails_never_reaches_the_stream(
    tmp_path: Path, machine: Bus, places: Places
) -> None:
    settings = region_settings(places(tmp_path), devices=f"pci:{DEVICE}", tpu_library=library())
    await make_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            await worker.serves()
            await ring(events)
            hour = 0
            while not await passes(settings):
                hour += 1
                await tick(events, hour)
            for turn, mode in enumerate(["hang", "abort", "error", "wrong", "vanish"]):
                if mode == "vanish":  # the fifth within a minute: it is left alone for long

                    async def back(before: float = await on_device(settings)) -> bool:
                        nonlocal hour
                        hour += 1
                        await tick(events, hour)
                        return await on_device(settings) > before

                    await until(back, "the device is back")
                machine.mode(mode)

                async def failed(turn: int = turn) -> bool:
                    nonlocal hour
                    hour += 1
                    await tick(events, hour)
                    await require_held(settings)
                    return len(worker.said("tpu_fault")) > turn

                await until(failed, f"the fault {mode}")
                machine.mode("ok")
            assert worker.said("tpu_fault", "quarantined")
            await tick(events, hour + 1)
            assert await worker.stop() == 0
    await require_truth(settings)


async def on_device(settings: Settings) -> float:
    found = await scrape(settings.metrics_port)
    return found.get(f"dgdm_tpu_invocations_total.device.pci:{DEVICE}", 0.0)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"devices": "pci:0"}, "edgetpu_compiler is not on PATH"),
        ({"regions": '[["a"], ["a"]]'}, "'a' is in two regions, or twice in one"),
        ({"regions": '{"a": 1}'}, "want a list of lists of ids"),
        ({"regions": "[["}, "regions.json"),
        ({"regions": json.dumps([list(range(2000))])}, "region 0 has 2000 ids, at most 1400"),
    ],
)
async def test_what_cannot_work_is_refused(tmp_path: Path, given: dict[str, Any], says: str) -> None:
    if "regions" in given:
        (tmp_path / "regions.json").write_text(given["regions"])
        given = {"regions": tmp_path / "regions.json"}
    settings = region_settings(embedded(tmp_path), **given)
    await make_topics(settings)
    with WorkerProcess(settings, tmp_path) as worker:
        assert await worker.ended() == 2
        assert says in worker.said("refused")[-1]["message"]


def test_a_path_that_is_no_device_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'gpu' is none of cpu, /dev/apex_N, pci:N, usb:N"):
        Settings(devices="cpu,gpu")
