"""Models and regions on this machine's CPU: latency, accuracy, Montevideo hour by hour, swaps under load.

What is compared runs in turns in the same process, so that a busy neighbour disturbs all alike. A "graph" is 64 nodes
with 10 arcs each: its features go through the encoder, then ten steps of diffusion in float32 on the host.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from dgdm.diffusion.exact import transition, truncated
from dgdm.tpu.accelerator import Cpu
from dgdm.tpu.calibration import CalibrationData
from dgdm.tpu.files import float_file
from dgdm.tpu.manager import ModelManager
from dgdm.tpu.model import ModelFile
from dgdm.tpu.network import PRESETS, Network, preset
from dgdm.tpu.quantizer import AdaptiveQuantizer
from dgdm.tpu.rows import RowModel

from . import tpu_accuracy, tpu_regions

NODES, ARCS, STEPS, ALPHA = 64, 10, 10, 0.15
SMALL_MS, BASE_GRAPHS = 2.3, 3_678.0  # what the original promises on its accelerator
BATCHES = {"DGDM-Small": 1, "DGDM-Base": 32, "DGDM-Large": 128}
SWAPS, SWAP_SECONDS, ASKERS = 40, 4.0, 1


def measure(data: Path, repeats: int = 40, hours: int | None = None, seeds: int = 10) -> dict[str, Any]:
    """All of it; `data` is where cora_ml.npz may be."""
    models = {name: _model(name, batch, repeats) for name, batch in BATCHES.items()}
    montevideo = tpu_regions.montevideo(hours)
    digits = tpu_accuracy.digits(seeds)
    cora = tpu_accuracy.cora_ml(data / "cora_ml.npz", seeds)
    swap = _swaps()
    goals = {
        "small_one_graph_ms": _goal(models["DGDM-Small"]["int8"]["total_ms"]["median"], SMALL_MS, most=True),
        "base_graphs_per_s": _goal(models["DGDM-Base"]["int8"]["graphs_per_s"], BASE_GRAPHS, most=False),
        "montevideo_error": _goal(montevideo["region"]["worst_error"], montevideo["accuracy"], most=True),
        "digits_points_lost": _goal(digits["int8"]["points_lost"]["high"], 1.0, most=True),
        "swap_failed_or_mixed": _goal(swap["failed_or_mixed"], 0, most=True),
    }
    if "int8" in cora:
        goals["cora_ml_points_lost"] = _goal(cora["int8"]["points_lost"]["high"], 1.0, most=True)
    return {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "threads": 1},
        "models": models,
        "montevideo": montevideo,
        "digits": digits,
        "cora_ml": cora,
        "swap": swap,
        "goals": goals,
        "holds": all(goal["holds"] for goal in goals.values()),
    }


# -- models


def _model(name: str, graphs: int, repeats: int) -> dict[str, Any]:
    """Encoder and diffusion of a batch of graphs, by each kind of arithmetic, in turns."""
    network, random = preset(name), np.random.default_rng(1)
    x = random.normal(size=(graphs * NODES, network.widths[0])).astype(np.float32)
    # an invocation of up to 1,024 rows keeps a layer's outputs in the cache; one row is the golden one
    rows = min(len(x), 1024) + 1
    int8 = RowModel(Cpu(), ModelFile(_int8(network, rows)))
    float32 = RowModel(Cpu(), ModelFile(float_file(network, rows)))
    p = _graphs(graphs, random)
    alone = min(repeats, max(5, 4_000_000_000 // (network.weights * len(x))))
    times = _in_turns(
        {
            "int8": lambda: int8.run(x),
            "float32": lambda: float32.run(x),
            "numpy": lambda: network.forward(x),
            "diffusion": _diffusion_of(p, network.widths[-1], len(x)),
        },
        alone,
    )
    diffusion = times.pop("diffusion")
    exact = network.forward(x)
    found: dict[str, Any] = {
        "graphs": graphs,
        "nodes": NODES,
        "arcs_per_node": ARCS,
        "repeats": alone,
        "diffusion_ms": _spread(diffusion),
        "int8_relative_error": float(np.linalg.norm(int8.run(x) - exact) / np.linalg.norm(exact)),
    }
    for kind, encoder in times.items():
        total = encoder + diffusion
        found[kind] = {
            "encoder_ms": _spread(encoder),
            "total_ms": _spread(total),
            "graphs_per_s": round(1000 * graphs / float(np.median(total)), 1),
        }
    return found


def _int8(network: Network, rows: int) -> bytes:
    x = np.random.default_rng(0).normal(size=(1000, network.widths[0])).astype(np.float32)
    data = CalibrationData.from_dataset(x)
    return AdaptiveQuantizer(data, 0.9, mixed_precision=False, rows=rows).quantize_model(network).content


def _graphs(count: int, random: np.random.Generator) -> sparse.csr_array:
    """P of so many graphs side by side, float32."""
    n = count * NODES
    rows = np.repeat(np.arange(n), ARCS)
    targets = rows // NODES * NODES + random.integers(0, NODES, n * ARCS)
    return transition(rows, targets, random.uniform(0.5, 2, n * ARCS), n).astype(np.float32)


def _diffusion_of(p: sparse.csr_array, width: int, rows: int) -> Callable[[], Any]:
    encoded = np.random.default_rng(2).normal(size=(rows, width)).astype(np.float32)
    a, b = np.float32(ALPHA) * encoded, ((1 - ALPHA) * p).astype(np.float32)

    def diffuse() -> Any:
        z = encoded
        for _ in range(STEPS):
            z = b @ z
            z += a
        return z

    np.testing.assert_allclose(diffuse(), truncated(p, encoded, ALPHA, STEPS), atol=1e-4)
    return diffuse


def _in_turns(work: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, np.ndarray]:
    """Milliseconds of each, in turns; the first two turns are for warmth."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(repeats + 2):
        for name, do in work.items():
            begun = time.perf_counter()
            do()
            if turn >= 2:
                times[name].append(1000 * (time.perf_counter() - begun))
    return {name: np.array(found) for name, found in times.items()}


# -- swaps


def _swaps() -> dict[str, Any]:
    """Latency of requests while models are swapped, and in a control without swaps before it."""
    files = [ModelFile(_int8(preset("DGDM-Small", seed), 65)) for seed in (0, 1)]
    x = np.random.default_rng(3).normal(size=(NODES, PRESETS["DGDM-Small"][0])).astype(np.float32)
    truth = {file.digest: RowModel(Cpu(), file).run(x) for file in files}
    with ModelManager() as manager:
        manager.load("encoder", files[0], Cpu())

        def swap() -> None:
            for turn in range(SWAPS):
                manager.swap("encoder", files[(turn + 1) % 2])
                time.sleep(SWAP_SECONDS / SWAPS)

        control, wrong = _asked(manager, x, truth, lambda: time.sleep(SWAP_SECONDS))
        during, mixed = _asked(manager, x, truth, swap)
    return {
        "rows_per_request": len(x),
        "swaps": SWAPS,
        "control_ms": _spread(control),
        "during_ms": _spread(during),
        "requests": {"control": len(control), "during": len(during)},
        "failed_or_mixed": wrong + mixed,
    }


def _asked(
    manager: ModelManager, x: np.ndarray, truth: dict[str, np.ndarray], work: Callable[[], None]
) -> tuple[np.ndarray, int]:
    times: list[float] = []
    bad = 0
    done = threading.Event()

    def ask() -> None:
        nonlocal bad
        while not done.is_set():
            begun = time.perf_counter()
            try:
                answered = manager.run(x)
            except Exception:  # noqa: BLE001 - any failure is counted
                bad += 1
                continue
            times.append(1000 * (time.perf_counter() - begun))
            bad += not np.array_equal(answered.outputs, truth[answered.digest])

    asking = [threading.Thread(target=ask) for _ in range(ASKERS)]
    for thread in asking:
        thread.start()
    work()
    done.set()
    for thread in asking:
        thread.join()
    return np.array(times), bad


def _spread(ms: np.ndarray) -> dict[str, float]:
    low, median, high, top = np.percentile(ms, [10, 50, 90, 99])
    return {
        "p10": round(float(low), 4),
        "median": round(float(median), 4),
        "p90": round(float(high), 4),
        "p99": round(float(top), 4),
    }


def _goal(figure: float, goal: float, *, most: bool) -> dict[str, Any]:
    return {
        "figure": float(figure),
        "goal": goal,
        "holds": bool(figure <= goal if most else figure >= goal),
    }
