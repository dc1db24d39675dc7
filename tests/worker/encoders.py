"""Encoders for tests, what they answer by themselves, and the verdict on a stream whose features they make."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import oracle
from processes import read_all
from streams import require_truth
from tputools import int8_of, some_network

from dgdm.connections import connect_store
from dgdm.settings import Settings
from dgdm.tpu.model import CpuModel, ModelFile
from dgdm.tpu.network import network_of
from dgdm.tpu.runtime import load_runtime, without_greeting

WIDTH, FEATURES = 6, 4


def encoder_file(
    path: Path, seed: int, rows: int = 8, width: int = WIDTH, features: int = FEATURES, bias: float = 0.0
) -> Path:
    """Random weights, int8, `rows` rows in one invocation, one of them the golden one; `bias` is added to what it says."""
    random = np.random.default_rng(seed)
    network = some_network(random, width, 8, features)
    weights, biases = ([getattr(layer, name) for layer in network.layers] for name in ("weight", "bias"))
    network = network_of("some", weights, [*biases[:-1], biases[-1] + np.float32(bias)])
    path.write_bytes(int8_of(network, random.normal(size=(300, width)).astype(np.float32), rows=rows))
    return path


def answers_of(content: bytes, x: np.ndarray) -> np.ndarray:
    """x [n, width] → [n, features], by an interpreter of its own."""
    with without_greeting():
        interpreter = load_runtime().Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (asked,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = asked["quantization"]
    step, origin = given["quantization"]
    rows = asked["shape"][-2]
    y = []
    for start in range(0, len(x), rows):
        part = np.zeros((rows, x.shape[1]), np.float32)
        part[: len(x) - start] = x[start : start + rows]
        q = np.clip(np.rint(part * np.float32(1 / scale)) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(asked["index"], q.reshape(asked["shape"]))
        interpreter.invoke()
        found = interpreter.get_tensor(given["index"]).reshape(rows, -1)[: len(x) - start]
        y.append((found.astype(np.float32) - np.float32(origin)) * np.float32(step))
    return np.concatenate(y)


class Row(NamedTuple):
    """What a store holds of a node's features."""

    digest: str
    raw: np.ndarray
    x: np.ndarray


def stored_rows(settings: Settings) -> dict[str, Row]:
    """By id."""
    store = connect_store(settings)
    try:
        ids = {
            row: node for names, rows in store.ids() for node, row in zip(names, rows.tolist(), strict=True)
        }
        x = {r: v for rows, values in store.features() for r, v in zip(rows.tolist(), values, strict=True)}
        raw = {r: w for rows, words in store.raw() for r, w in zip(rows.tolist(), words, strict=True)}
        assert raw.keys() == x.keys() == ids.keys()
        return {
            ids[r]: Row(w[:2].astype("<i4").tobytes().hex(), w[2:].view(np.float32), x[r])
            for r, w in raw.items()
        }
    finally:
        store.close()


async def require_encoded_truth(
    settings: Settings, *encoders: Path, steps: float = 0, forward: bool = True
) -> dict[str, int]:
    """Consumers hold the exact answer for X := what the encoder of each node's stored digest says of its raw features.

    `steps` of the output is how far the stored X may be off, where a device made it. Nodes by digest.
    """
    truth = oracle.Oracle(WIDTH, settings.alpha, settings.directed, settings.aggregate)
    for record in await read_all(settings, settings.events_topic):
        truth.apply(record.value)
    stored = await asyncio.to_thread(stored_rows, settings)
    assert stored.keys() == truth.x.keys()
    files = {ModelFile(path.read_bytes()).digest: path.read_bytes() for path in encoders}
    nodes = sorted(stored)
    for node in nodes:
        np.testing.assert_array_equal(stored[node].raw, truth.x[node])
    counts: dict[str, int] = {}
    for digest, content in files.items():
        mine = [node for node in nodes if stored[node].digest == digest]
        counts[digest] = len(mine)
        if mine:
            answers = answers_of(content, np.array([truth.x[node] for node in mine]))
            found = np.array([stored[node].x for node in mine])
            if steps:
                step = CpuModel(content).outputs[0].scale
                np.testing.assert_allclose(found, answers, atol=steps * step)
                answers = found  # the bound is that of the X that was applied
            else:
                np.testing.assert_array_equal(found, answers)
            truth.x.update(zip(mine, answers, strict=True))
    assert sum(counts.values()) == len(nodes), "a row of another model"
    truth.features = FEATURES
    await require_truth(settings, truth=truth, forward=forward)
    return counts


def encoded_settings(settings: Settings, encoder: Path | None, **others: Any) -> Settings:
    """The same graph with this encoder, or with none."""
    given = settings.model_dump(exclude_unset=True) | {"encoder": encoder} | others
    return Settings(**{name: value for name, value in given.items() if value is not None})
