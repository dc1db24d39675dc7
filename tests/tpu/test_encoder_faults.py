"""An encoder whose device fails in every way: the stream goes on, and its certificate holds."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from encoders import WIDTH, encoder_file, require_encoded_truth
from failing_device import meet_every_fault
from mockedgetpu import Bus, compiled, have_c_compiler, library
from processes import WorkerProcess, make_topics, settings_of, until
from scrape import scrape
from stores import free_port
from streams import producer, some_events

from dgdm.settings import Settings
from dgdm.tpu.model import read_model

pytestmark = pytest.mark.timeout(280)
DEVICE = os.getpid() % 6  # so that two runs on one machine do not meet at one lock


def settings_in(folder: Path, encoder: Path, **others: Any) -> Settings:
    log, store = (f"sqlite:///{folder}/{name}.db" for name in ("log", "store"))
    return settings_of(log, store, encoder=encoder, **others)


def for_a_device(folder: Path, name: str, seed: int) -> Path:
    path = encoder_file(folder / f"{name}.tflite", seed)
    (folder / f"{name}_edgetpu.tflite").write_bytes(compiled(path.read_bytes()))
    return path


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bus:
    """Devices for the processes of the test."""
    if not have_c_compiler():
        pytest.skip("no C compiler to build the mock library with")
    found = Bus(tmp_path / "bus", ",".join(f"pci:/dev/apex_{i}" for i in range(6)))
    monkeypatch.setenv("MOCK_EDGETPU", str(found.folder))
    return found


async def test_a_device_that_fails(tmp_path: Path, bus: Bus) -> None:
    encoder = for_a_device(tmp_path, "encoder", 1)
    settings = settings_in(tmp_path, encoder, devices=f"pci:{DEVICE}", tpu_library=library())
    await make_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            await worker.serves()
            await meet_every_fault(bus, worker, events, WIDTH)
            assert await worker.stop() == 0
    await require_encoded_truth(settings, encoder, steps=1.01)


@pytest.mark.parametrize("mode", ["hang", "abort", "wrong", "error"])
async def test_a_device_that_fails_while_an_encoder_is_swapped(tmp_path: Path, bus: Bus, mode: str) -> None:
    encoder, other = (for_a_device(tmp_path, name, len(name)) for name in ("encoder", "other"))
    given = {"devices": f"pci:{DEVICE}", "tpu_library": library(), "metrics_port": free_port()}
    settings = settings_in(tmp_path, encoder, **given)
    await make_topics(settings)

    async def fit() -> bool:
        found = await scrape(settings.metrics_port)
        return any(n.startswith("dgdm_tpu_state.") and n.endswith(".ready") and v for n, v in found.items())

    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            for event in some_events(5, 900, features=WIDTH):
                await events.send(event)
            await events.visible(60)
            await until(fit, "the device is ready")
            for name in ("{}.tflite", "{}_edgetpu.tflite"):
                (tmp_path / name.format("other")).rename(tmp_path / name.format("encoder"))
            bus.mode(mode)
            worker.signal(signal.SIGHUP)
            await worker.says("encoded_anew", f"as encoder {read_model(encoder).digest} has them")
            assert worker.said("tpu_fault")
            assert await worker.stop() == 0
    assert not other.exists()
    await require_encoded_truth(settings, encoder, steps=1.01)


@pytest.mark.parametrize(
    ("shape", "content", "says"),
    [
        ({"features": 7}, None, "it gives 7 columns, and features = 4"),
        ({}, b"....TFL3", "no readable .tflite file"),
        ({}, b"nothing", "it does not say TFL3"),
        ({"rows": 1}, None, "are no model of rows"),
    ],
)
async def test_an_encoder_that_cannot_work_is_refused(
    tmp_path: Path, shape: dict[str, int], content: bytes | None, says: str
) -> None:
    encoder = encoder_file(tmp_path / "encoder.tflite", 1, **shape)
    if content is not None:
        encoder.write_bytes(content)
    settings = settings_in(tmp_path, encoder)
    await make_topics(settings)
    with WorkerProcess(settings, tmp_path) as worker:
        assert await worker.ended() == 2
        found = worker.said("refused")[-1]["message"]
        assert found.startswith(f"encoder = {encoder}: ")
        assert says in found


async def test_an_encoder_whose_answer_to_zeros_is_out_of_reach_is_refused(tmp_path: Path) -> None:
    encoder = encoder_file(tmp_path / "encoder.tflite", 1)
    settings = settings_in(tmp_path, encoder, offset=[1e9])
    await make_topics(settings)
    with WorkerProcess(settings, tmp_path) as worker:
        assert await worker.ended() == 2
        assert "what it makes of zeros" in worker.said("refused")[-1]["message"]
