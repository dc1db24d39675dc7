"""A head behind the stream: each vector that consumers hold has its prediction, whatever the device or the worker did."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from failing_device import meet_every_fault
from hypothesis import given
from hypothesis import strategies as st
from mockedgetpu import Bus, compiled, have_c_compiler, library
from processes import WorkerProcess, make_topics, read_all, settings_of
from streams import producer, require_truth, some_events
from tputools import Places, embedded, int8_of, some_network

from dgdm.connections import connect_log
from dgdm.log.topics import create_topics, plans
from dgdm.schemas.embeddings import Embedding, Removed, decode_embedding
from dgdm.schemas.events import RemoveNode
from dgdm.schemas.predictions import Prediction, decode_prediction, encode_predictions
from dgdm.schemas.reasons import InvalidEvent
from dgdm.settings import Settings
from dgdm.tpu.accelerator import Cpu
from dgdm.tpu.model import read_model
from dgdm.tpu.rows import RowModel

pytestmark = pytest.mark.timeout(280)
RANDOM = np.random.default_rng(17)
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "prediction.json").read_text())
DEVICE = os.getpid() % 6  # so that two runs on one machine do not meet at one lock


def head_file(path: Path, width: int = 4) -> Path:
    """Random weights, int8."""
    network = some_network(RANDOM, width, 8, 3)
    path.write_bytes(int8_of(network, RANDOM.normal(size=(300, width)).astype(np.float32), rows=32))
    return path


def head_settings(places: tuple[str, str], head: Path, **others: Any) -> Settings:
    settings = settings_of(*places, head=head, **others)
    return settings.model_copy(update={"predictions_topic": f"{settings.graph}.predictions"} | others)


async def make_all_topics(settings: Settings) -> None:
    await make_topics(settings)
    log = connect_log(settings)
    try:
        names = (settings.events_topic, settings.embeddings_topic, settings.progress_topic)
        wanted = plans(*names, settings.dead_letters_topic, predictions=settings.predicted_topic)
        await create_topics(log, wanted)
    finally:
        await log.close()


async def require_predictions(settings: Settings, *, steps: float = 0.01) -> None:
    """The last record of each node is the head's answer to the last vector, its sequence, its end."""
    assert settings.head is not None
    held: dict[str, Any] = {}
    for record in await read_all(settings, settings.embeddings_topic):
        change = decode_embedding(record.key, record.value)
        held[change.id] = change
    predicted: dict[str, Any] = {}
    for record in await read_all(settings, settings.predictions_topic):
        found = decode_prediction(record.key, record.value)
        predicted[found.id] = found
    assert predicted.keys() == held.keys()
    model = RowModel(Cpu(), read_model(settings.head))
    for node, change in held.items():
        if isinstance(change, Removed):
            assert predicted[node] == change
            continue
        found = predicted[node]
        assert (found.model, found.digest) == (settings.head.stem, model.digest)
        assert found.sequence >= change.sequence
        expected = model.run(change.vector[np.newaxis])[0]
        np.testing.assert_allclose(found.vector, expected, atol=steps * model._out.scale)
    assert sum(isinstance(one, Embedding) for one in held.values()) > 50


async def test_every_vector_has_its_prediction(tmp_path: Path, places: Places) -> None:
    """Also after SIGKILL, and after nodes went."""
    settings = head_settings(places(tmp_path), head_file(tmp_path / "first.tflite"))
    await make_all_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            for event in [*some_events(1, 600), RemoveNode("3"), RemoveNode("never")]:
                await events.send(event)
            await events.visible(60)
            worker.kill()
        with WorkerProcess(settings, tmp_path) as worker:
            for event in some_events(2, 300):
                await events.send(event)
            await events.visible(60)
            assert await worker.stop() == 0
    await require_truth(settings)
    await require_predictions(settings)


async def test_another_head_predicts_all_anew(tmp_path: Path, places: Places) -> None:
    first, second = (head_file(tmp_path / f"{name}.tflite") for name in ("first", "second"))
    settings = head_settings(places(tmp_path), first, encoding="json")
    await make_all_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            for event in some_events(3, 400):
                await events.send(event)
            await events.visible(60)
            assert await worker.stop() == 0
        await require_predictions(settings)
        settings = settings.model_copy(update={"head": second})
        with WorkerProcess(settings, tmp_path) as worker:
            assert await worker.stop() == 0
    await require_predictions(settings)


async def test_a_device_that_fails(tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    if not have_c_compiler():
        pytest.skip("no C compiler to build the mock library with")
    bus = Bus(tmp_path / "bus", ",".join(f"pci:/dev/apex_{i}" for i in range(6)))
    monkeypatch.setenv("MOCK_EDGETPU", str(bus.folder))
    head = head_file(tmp_path / "head.tflite")
    (tmp_path / "head_edgetpu.tflite").write_bytes(compiled(head.read_bytes()))
    settings = head_settings(places(tmp_path), head, devices=f"pci:{DEVICE}", tpu_library=library())
    await make_all_topics(settings)
    async with producer(settings) as events:
        with WorkerProcess(settings, tmp_path) as worker:
            await worker.serves()
            await meet_every_fault(bus, worker, events)
            assert await worker.stop() == 0
    await require_truth(settings)
    await require_predictions(settings, steps=1.01)


@pytest.mark.parametrize(
    ("width", "content", "says"),
    [
        (7, None, "it takes 7 columns, and the graph has 4"),
        (4, b"....TFL3", "no readable .tflite file"),
        (4, b"nothing", "it does not say TFL3"),
    ],
)
async def test_a_head_that_cannot_work_is_refused(
    tmp_path: Path, width: int, content: bytes | None, says: str
) -> None:
    head = head_file(tmp_path / "head.tflite", width)
    if content is not None:
        head.write_bytes(content)
    settings = head_settings(embedded(tmp_path), head)
    await make_all_topics(settings)
    with WorkerProcess(settings, tmp_path) as worker:
        assert await worker.ended() == 2
        assert says in worker.said("refused")[-1]["message"]


async def test_a_missing_topic_is_named(tmp_path: Path) -> None:
    settings = head_settings(
        embedded(tmp_path), head_file(tmp_path / "head.tflite"), predictions_topic="nope"
    )
    await make_topics(settings)
    with WorkerProcess(settings, tmp_path) as worker:
        assert await worker.ended() == 2
        assert "topic nope does not exist: `dgdm topics create`" in worker.said("refused")[-1]["message"]


@given(
    outputs=st.lists(st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3), max_size=4),
    encoding=st.sampled_from(["msgpack", "json"]),
    sequence=st.integers(0, 2**60),
)
def test_records_come_back(outputs: list[list[float]], encoding: Any, sequence: int) -> None:
    ids = [f"ü{i}" for i in range(len(outputs))]
    y = np.array(outputs, np.float32).reshape(-1, 3)
    digest = "0123456789abcdef"
    values = encode_predictions(ids, y, ("head", digest), sequence, 5, encoding)
    for node, row, value in zip(ids, y, values, strict=True):
        found = decode_prediction(node.encode(), value)
        assert isinstance(found, Prediction)
        assert found._replace(vector=None) == (node, None, sequence, 5, "head", digest)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found.vector, row)
        if encoding == "json":
            jsonschema.validate(json.loads(value), SCHEMA)
        read = decode_embedding(node.encode(), value)
        assert isinstance(read, Embedding), "a reader of embeddings reads them too"


def test_a_record_without_its_model_is_none() -> None:
    assert decode_prediction(b"a", None) == Removed("a")
    from dgdm.schemas.embeddings import encode_embedding

    with pytest.raises(InvalidEvent, match="model"):
        decode_prediction(b"a", encode_embedding(Embedding("a", np.zeros(2, np.float32), 1, 2)))
