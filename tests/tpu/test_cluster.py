"""Regions on several devices: the answer is within the accuracy whatever becomes of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mockedgetpu import Bus, for_the_mock
from tputools import int8_of, some_network

from dgdm.diffusion.exact import fixed_point, transition
from dgdm.examples.buses import buses
from dgdm.tpu.accelerator import Answer, Cpu
from dgdm.tpu.cluster import ArcGraph, TpuCluster
from dgdm.tpu.device import Device, DeviceState
from dgdm.tpu.errors import ModelError, TpuError
from dgdm.tpu.metrics import TpuMetrics
from dgdm.tpu.model import ModelFile, Raw
from dgdm.tpu.partition import PartitionStrategy
from dgdm.tpu.rows import RowModel

ALPHA, ACCURACY = 0.15, 0.01


def some_graph(random: np.random.Generator, n: int, degree: int, columns: int) -> ArcGraph:
    rows, targets = random.integers(0, n, (2, n * degree))
    weights = 10 ** random.uniform(-2, 2, n * degree)
    return ArcGraph(random.normal(size=(n, columns)).astype(np.float32), rows, targets, weights)


def exact(graph: ArcGraph, alpha: float = ALPHA) -> np.ndarray:
    p = transition(graph.rows, graph.targets, graph.weights, len(graph.features))
    return fixed_point(p, graph.features.astype(np.float64), alpha)


def certified(cluster: TpuCluster, graph: ArcGraph, accuracy: float = ACCURACY, alpha: float = ALPHA) -> Any:
    found = cluster.distributed_diffusion(graph, alpha, accuracy)
    error = float(np.abs(found.vectors - exact(graph, alpha)).max(initial=0.0))
    assert error <= found.bound * (1 + 1e-9) + 1e-12
    assert found.bound <= accuracy
    return found


@settings(max_examples=30)
@given(
    n=st.integers(0, 70),
    degree=st.integers(0, 4),
    columns=st.integers(1, 9),
    alpha=st.sampled_from([0.05, 0.15, 0.5, 1.0]),
    strategy=st.sampled_from(PartitionStrategy),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_graph_is_certified(
    n: int, degree: int, columns: int, alpha: float, strategy: PartitionStrategy, seed: int
) -> None:
    """Directed arcs, self loops, rows without arcs, no rows at all."""
    graph = some_graph(np.random.default_rng(seed), n, degree if n else 0, columns)
    with TpuCluster(["cpu", "cpu"], strategy, max_rows=25, columns=4) as cluster:
        certified(cluster, graph, alpha=alpha)
        assert not any(a._models for a in cluster._accelerators), "all regions are unloaded"


def test_montevideo_on_three() -> None:
    table = buses()
    with TpuCluster(["cpu"] * 3, PartitionStrategy.EDGE_CUT, max_rows=250, columns=24) as cluster:
        found = certified(cluster, ArcGraph(table.features(300), *table.arcs()))
    assert found.regions == 3
    assert found.passes <= 3 * 18, "exact blocks take 12 rounds"
    assert found.sweeps < found.passes / 3


def test_more_accuracy_costs_more_passes() -> None:
    graph = some_graph(np.random.default_rng(1), 120, 4, 4)
    with TpuCluster(["cpu"], max_rows=60, columns=4) as cluster:
        passes = [certified(cluster, graph, accuracy).passes for accuracy in (0.1, 0.01, 0.001)]
    assert passes == sorted(passes)
    assert passes[0] < passes[-1]


class Liar(Cpu):
    """Answers with noise, and does not ask the check."""

    def run(self, digest: str, x: Raw, check: object = None) -> Answer:  # noqa: ARG002
        answer = super().run(digest, x)
        noise = np.random.default_rng(int(np.abs(x.astype(int)).sum()))
        return Answer([noise.integers(-128, 128, q.shape).astype(np.int8) for q in answer.outputs], "cpu")


def test_one_that_lies_costs_sweeps_and_nothing_else() -> None:
    graph = some_graph(np.random.default_rng(2), 100, 4, 5)
    with TpuCluster([Cpu(), Liar()], max_rows=50, columns=8) as cluster:
        found = certified(cluster, graph)
    assert found.sweeps > 0


@pytest.fixture
def two(
    open_device: Callable[..., Device], bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[TpuCluster, list[Device], list[Bus]]:
    """Two devices whose faults are their own."""

    def compiled_here(_: object, model: ModelFile) -> ModelFile:
        return for_the_mock(model.content)

    monkeypatch.setattr("dgdm.tpu.resolvent.device_model", compiled_here)
    other = Bus(tmp_path / "other", "pci:/dev/apex_0,pci:/dev/apex_1")
    metrics = TpuMetrics()
    first = open_device(metrics=metrics)
    second = open_device("pci:1", environment=other.environment, metrics=metrics)
    return TpuCluster([first, second], max_rows=30, columns=8, metrics=metrics), [first, second], [bus, other]


@pytest.mark.parametrize("mode", ["abort", "hang", "error", "wrong"])
def test_a_device_that_dies_in_the_middle(two: tuple[TpuCluster, list[Device], list[Bus]], mode: str) -> None:
    cluster, (first, second), (_, bus) = two
    # 12 ways of baking with 3 invocations and a warm-up each come first, for 2 regions; then it dies
    bus.mode(f"{mode}:60")
    graph = some_graph(np.random.default_rng(3), 100, 4, 8)
    certified(cluster, graph)
    assert second.last_fault is not None
    assert first.last_fault is None
    bus.mode("ok")
    assert second.wait(DeviceState.READY, timeout=30)
    certified(cluster, graph)


def test_all_devices_gone(two: tuple[TpuCluster, list[Device], list[Bus]]) -> None:
    cluster, devices, both = two
    for bus in both:
        bus.mode("abort")
    certified(cluster, some_graph(np.random.default_rng(4), 90, 4, 8))
    assert all(device.last_fault is not None for device in devices)


def test_batches_go_where_least_waits(two: tuple[TpuCluster, list[Device], list[Bus]]) -> None:
    cluster, (first, second), (bus, _) = two
    random = np.random.default_rng(5)
    network = some_network(random, 6, 4)
    x = random.normal(size=(30, 6)).astype(np.float32)
    model = RowModel(cluster, for_the_mock(int8_of(network, x, rows=31)))
    expected = model.run(x)
    bus.mode("slow")  # 50 ms an invocation
    slow = threading.Thread(target=lambda: model.run(x))
    slow.start()
    while not first.queued_seconds and slow.is_alive():
        pass
    before = second._metrics.invocations.labels("pci:1", "device")._value.get()
    np.testing.assert_array_equal(model.run(x), expected)
    slow.join()
    assert second._metrics.invocations.labels("pci:1", "device")._value.get() == before + 1
    first.close()
    np.testing.assert_array_equal(model.run(x), expected)
    assert cluster.queued_seconds == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"features": np.zeros(5, np.float32)}, r"features \(5,\): want \[n, F\]"),
        ({"features": np.full((9, 2), np.nan, np.float32)}, r"features: the number at \(0, 0\) is nan"),
        ({"rows": np.array([0])}, "rows: want 2 numbers from 0 to 8"),
        ({"targets": np.array([1, 9])}, "targets: want 2 numbers from 0 to 8"),
        ({"weights": np.array([1.0, 0.0])}, "weights: want finite numbers above 0"),
        ({"weights": np.array([1.0, np.inf])}, "weights: want finite numbers above 0"),
        (
            {"features": np.full((9, 2), 1e6, np.float32)},
            "accuracy = 0.01 is below 25, which float32 cannot keep",
        ),
    ],
)
def test_bad_graphs_are_named(change: dict[str, Any], says: str) -> None:
    good = ArcGraph(np.ones((9, 2), np.float32), np.array([0, 1]), np.array([1, 2]), np.ones(2))
    with TpuCluster(["cpu"]) as cluster, pytest.raises(ModelError, match=says):
        cluster.distributed_diffusion(good._replace(**change))


def test_bad_numbers_are_named() -> None:
    graph = ArcGraph(np.ones((3, 1), np.float32), np.array([0]), np.array([1]), np.ones(1))
    with TpuCluster(["cpu"]) as cluster:
        with pytest.raises(ModelError, match=r"alpha = 0 is not in \(0, 1\]"):
            cluster.distributed_diffusion(graph, alpha=0)
        with pytest.raises(TpuError, match="accuracy = 0 is below"):
            cluster.distributed_diffusion(graph, accuracy=0)
    with pytest.raises(ModelError, match="a cluster of no devices"):
        TpuCluster([])
    with pytest.raises(ModelError, match="'gpu:0' is none of"):
        TpuCluster(["gpu:0"])
