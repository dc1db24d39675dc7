"""Models and regions on this machine's CPU: latency, accuracy, Montevideo hour by hour, swaps under load.

What is compared runs in turns in the same process, so that a busy neighbour disturbs all alike. A "graph" is 64 nodes
with 10 arcs each: its features go through the encoder, then ten steps of diffusion in float32 on the host.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from dgdm.diffusion.exact import transition, truncated
from dgdm.tpu.accelerator import Cpu
from dgdm.tpu.calibration import CalibrationData
from dgdm.tpu.files import float_file
from dgdm.tpu.manager import ModelManager
from dgdm.tpu.model import ModelFile, from_raw, to_raw
from dgdm.tpu.network import PRESETS, Network, preset
from dgdm.tpu.quantizer import AdaptiveQuantizer
from dgdm.tpu.rows import RowModel

from . import tpu_accuracy, tpu_regions
from .figures import at_least, at_most

NODES, ARCS, STEPS, ALPHA = 64, 10, 10, 0.15
SMALL_MS, BASE_GRAPHS = 2.3, 3_678.0  # what the original promises on its accelerator
BATCHES = {"DGDM-Small": 1, "DGDM-Base": 32, "DGDM-Large": 128}
SWAPS, SWAP_SECONDS, ASKERS = 40, 4.0, 1


def measure(data: Path, repeats: int = 40, hours: int | None = None, seeds: int = 10) -> dict[str, Any]:
    """All of it; `data` is where cora_ml.npz may be."""
    setting = _setting()
    models = {name: _model(name, batch, repeats) for name, batch in BATCHES.items()}
    montevideo = tpu_regions.montevideo(hours)
    digits = tpu_accuracy.digits(seeds)
    cora = tpu_accuracy.cora_ml(data / "cora_ml.npz", seeds)
    swap = _swaps()
    goals = {
        "small_one_graph_ms": at_most(models["DGDM-Small"]["int8"]["ms"]["median"], SMALL_MS),
        "base_graphs_per_s": at_least(models["DGDM-Base"]["int8_all_cores"]["graphs_per_s"], BASE_GRAPHS),
        "montevideo_error": at_most(montevideo["region"]["worst_error"], montevideo["accuracy"]),
        "digits_points_lost": at_most(digits["int8"]["points_lost"]["high"], 1.0),
        "swap_failed_or_mixed": at_most(swap["failed_or_mixed"], 0),
    }
    if "int8" in cora:
        goals["cora_ml_points_lost"] = at_most(cora["int8"]["points_lost"]["high"], 1.0)
    return {
        "setting": setting,
        "models": models,
        "montevideo": montevideo,
        "digits": digits,
        "cora_ml": cora,
        "swap": swap,
        "goals": goals,
        "holds": all(goal["holds"] for goal in goals.values()),
    }


def _setting() -> dict[str, Any]:
    """int8 is faster than float32 where the CPU multiplies bytes at once: avx512_vnni, avx_vnni, asimddp."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        flags = set()
    return {
        "load_before": os.getloadavg()[0],
        "byte_products": sorted(flags & {"avx512_vnni", "avx_vnni", "asimddp"}),
        "nodes_per_graph": NODES,
        "arcs_per_node": ARCS,
        "diffusion_steps": STEPS,
    }


# -- models


def _model(name: str, graphs: int, repeats: int) -> dict[str, Any]:
    """Encoder and diffusion of a batch of graphs, by each kind of arithmetic, in turns."""
    network, random = preset(name), np.random.default_rng(1)
    x = random.normal(size=(graphs * NODES, network.widths[0])).astype(np.float32)
    rows = min(len(x), 256) + 1  # a layer's outputs stay in the cache; one row is the golden one
    int8, float32 = _int8(network, rows), float_file(network, rows)
    p = _graphs(graphs, random)
    alone = min(repeats, max(5, 4_000_000_000 // (network.weights * len(x))))
    encoders = {
        kind: RowModel(Cpu(), ModelFile(content)) for kind, content in (("int8", int8), ("float32", float32))
    }
    spread = _diffusion_of(p)
    cores = min(graphs, os.cpu_count() or 1)
    with ThreadPoolExecutor(cores) as threads:
        work: dict[str, Callable[[], Any]] = {
            "int8": lambda: spread(encoders["int8"].run(x)),
            "int8_all_cores": _on_cores(threads, cores, int8, x, graphs, random),
            "float32": lambda: spread(encoders["float32"].run(x)),
            "numpy": lambda: spread(network.forward(x)),
        }
        parts = _parts(encoders, network, x, spread)
        times = _in_turns(work | parts, alone)
    exact = network.forward(x)
    found: dict[str, Any] = {
        "graphs": graphs,
        "repeats": alone,
        "int8_relative_error": float(np.linalg.norm(encoders["int8"].run(x) - exact) / np.linalg.norm(exact)),
    }
    for kind in work:
        per_second = round(1000 * graphs / float(np.median(times[kind])), 1)
        found[kind] = {"ms": _spread(times[kind]), "graphs_per_s": per_second}
    found["profile_ms"] = {part: _spread(times[part]) for part in parts}
    products = graphs * NODES * sum(layer.weight.size for layer in network.layers)
    found["gmac_per_s"] = {
        kind: round(products / 1e6 / float(np.percentile(times[f"invoke_{kind}"], 10)), 1)
        for kind in encoders
    }
    return found


def _on_cores(
    threads: ThreadPoolExecutor,
    cores: int,
    content: bytes,
    x: np.ndarray,
    graphs: int,
    random: np.random.Generator,
) -> Callable[[], Any]:
    """The batch in as many parts as there are cores, an interpreter each."""
    bounds = [k * graphs // cores for k in range(cores + 1)]
    models = [RowModel(Cpu(), ModelFile(content)) for _ in range(cores)]
    counts = np.diff(bounds).tolist()
    ways = [_diffusion_of(_graphs(count, random)) for count in counts]
    cut = [x[a * NODES : b * NODES] for a, b in itertools.pairwise(bounds)]

    def one(k: int) -> Any:
        return ways[k](models[k].run(cut[k]))

    return lambda: list(threads.map(one, range(cores)))


def _parts(
    encoders: Mapping[str, RowModel], network: Network, x: np.ndarray, spread: Callable[[np.ndarray], Any]
) -> dict[str, Callable[[], Any]]:
    """What a batch's time goes into, one thread."""
    int8, float32 = encoders["int8"], encoders["float32"]
    encoded = network.forward(x)
    raw = to_raw(encoded, int8._out)  # noqa: SLF001 - the benchmark looks inside

    def invocations(model: RowModel) -> Callable[[], Any]:
        empty = np.zeros((model.batch, model.features_in), model._spec.kind)  # noqa: SLF001 - the same
        count = -(-len(x) // model.batch)
        return lambda: [model._invoke(empty) for _ in range(count)]  # noqa: SLF001 - the same

    return {
        "quantise": lambda: to_raw(x, int8._spec),  # noqa: SLF001 - the same
        "invoke_int8": invocations(int8),
        "invoke_float32": invocations(float32),
        "dequantise": lambda: from_raw(raw, int8._out),  # noqa: SLF001 - the same
        "diffusion": lambda: spread(encoded),
    }


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


def _diffusion_of(p: sparse.csr_array) -> Callable[[np.ndarray], np.ndarray]:
    """X to Z of ten steps."""
    step = ((1 - ALPHA) * p).astype(np.float32)

    def diffuse(x: np.ndarray) -> np.ndarray:
        a, z = np.float32(ALPHA) * x, x
        for _ in range(STEPS):
            z = step @ z
            z += a
        return z

    some = np.random.default_rng(2).normal(size=(p.shape[0], 3))
    wanted = truncated(p.astype(np.float64), some, ALPHA, STEPS)
    assert np.abs(diffuse(some.astype(np.float32)) - wanted).max() < 1e-4
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
