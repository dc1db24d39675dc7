"""Regions inside a moving graph: whatever they answer, the graph's certificate holds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mockedgetpu import Bus, for_the_mock

from dgdm import StreamingDGDM
from dgdm.diffusion.arrays import PENDING
from dgdm.examples.buses import buses
from dgdm.state.id_table import rows_of
from dgdm.tpu.accelerator import Accelerator, Answer, Cpu
from dgdm.tpu.device import Device
from dgdm.tpu.model import ModelFile, Raw
from dgdm.tpu.settler import FIRST_ROWS, Given, RegionSettler

ACCURACY = 0.01


def settled(graph: StreamingDGDM, accelerator: Accelerator, **options: object) -> RegionSettler:
    settler = RegionSettler(accelerator, graph.graph.alpha, graph.graph.rules.features, **options)  # type: ignore[arg-type]
    graph.graph.settler = settler
    return settler


def certified(graph: StreamingDGDM) -> None:
    """Also the maintained residuals are those of the definition."""
    graph.incremental_diffuse()
    certificate = graph.certify()
    assert certificate.holds
    assert max(certificate.bound) <= ACCURACY
    g, rows = graph.graph.arrays, graph.graph.rows()
    pending = set(g.pending[: g.sizes[PENDING]].tolist())
    assert all(np.abs(g.R[u]).max() <= graph.graph.epsilon or u in pending for u in rows)


def test_montevideo_through_the_stream_of_events() -> None:
    table = buses()
    names = [str(stop) for stop in table.stops]
    graphs = [StreamingDGDM(features=24, accuracy=ACCURACY) for _ in range(2)]
    for graph in graphs:
        for name, x in zip(names, table.features(0), strict=True):
            graph.add_node(name, x)
        for (a, b), metres in zip(table.links.tolist(), table.metres.tolist(), strict=True):
            graph.add_edge(names[a], names[b], 1.0 / metres)
        graph.incremental_diffuse()
    settler = settled(graphs[0], Cpu())
    pushes = [graph.counters["pushes"] for graph in graphs]
    for hour in range(1, 60):
        for graph in graphs:
            for name, x in zip(names, table.features(hour), strict=True):
                graph.set_features(name, x)
        certified(graphs[0])
        graphs[1].incremental_diffuse()
        settler.wait()
    made = [graph.counters["pushes"] - before for graph, before in zip(graphs, pushes, strict=True)]
    assert made[0] < made[1] / 10, "int8 has done nearly all of it"
    assert len(settler.regions) == 1
    settler.close()
    settler.close()


class Liar(Cpu):
    """Answers with noise, and does not ask the check."""

    def run(self, digest: str, x: Raw, check: object = None) -> Answer:  # noqa: ARG002
        answer = super().run(digest, x)
        noise = np.random.default_rng(int(np.abs(x.astype(int)).sum()))
        return Answer([noise.integers(-128, 128, q.shape).astype(np.int8) for q in answer.outputs], "cpu")


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    directed=st.booleans(),
    aggregate=st.sampled_from(["in", "out"]),
    features=st.sampled_from([1, 3, 9]),
    liar=st.booleans(),
)
def test_any_events(seed: int, directed: bool, aggregate: str, features: int, liar: bool) -> None:
    """Nodes come and go, also those of regions; hubs, loops, rows without arcs; two regions and a changing graph."""
    random = np.random.default_rng(seed)
    graph = StreamingDGDM(features, accuracy=ACCURACY, directed=directed, aggregate=aggregate)  # type: ignore[arg-type]
    with ExitStack() as stack:
        settler = settled(graph, Liar() if liar else Cpu(), max_rows=30)
        stack.callback(settler.close)
        for _ in range(12):
            for _ in range(60):
                a, b = random.integers(0, 50, 2).tolist()
                match random.integers(0, 10):
                    case 0:
                        graph.remove_node(str(a))
                    case 1:
                        graph.remove_edge(str(a), str(b))
                    case 2 | 3 | 4:
                        graph.set_features(str(a), random.normal(size=features) * 10)
                    case _:
                        graph.add_edge(str(a), str(b), float(10 ** random.uniform(-2, 2)))
            certified(graph)
            settler.wait()
        assert settler.regions


def test_single_rows_are_left_to_push() -> None:
    graph = StreamingDGDM(1, accuracy=ACCURACY)
    for i in range(200):
        graph.add_edge(str(i), str((i + 1) % 200))
    settler = settled(graph, Cpu())
    graph.set_features("0", [1.0])
    graph.incremental_diffuse()
    settler.wait()
    graph.set_features("3", [1.0])
    certified(graph)
    assert settler._metrics.passes.labels("accepted")._value.get() == 0
    for i in range(200):
        graph.set_features(str(i), [float(i % 3)])
    certified(graph)
    assert settler._metrics.passes.labels("accepted")._value.get() > 0
    settler.close()


def test_a_users_own_regions_and_a_graph_that_grows() -> None:
    graph = StreamingDGDM(1, accuracy=ACCURACY)

    def found(ids: object) -> np.ndarray:
        return rows_of(graph.graph.ids, list(ids)).astype(np.int64)  # type: ignore[call-overload]

    mine = [[str(i) for i in range(20)], [str(i) for i in range(20, 60)], ["nobody"]]
    settler = settled(graph, Cpu(), given=Given(mine, found))
    for n in (30, 60):
        for i in range(n):
            graph.add_edge(str(i), str((i + 1) % n))
            graph.set_features(str(i), [float(i)])
        for turn in range(4):  # looked for, found, taken; and the old ones given back
            graph.set_features("0", [float(turn)])
            certified(graph)
            settler.wait()
    assert sorted(len(region.rows) for region in settler.regions) == [20, 40]
    settler.close()


def test_few_rows_and_too_many_have_no_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = StreamingDGDM(1, accuracy=ACCURACY)
    settler = settled(graph, Cpu())
    for i in range(FIRST_ROWS - 1):
        graph.set_features(str(i), [1.0])
        graph.add_edge(str(i), "0")
    certified(graph)
    assert settler._planner is None
    monkeypatch.setattr("dgdm.tpu.settler.MOST_ROWS", 20)
    for i in range(40):
        graph.set_features(str(i), [2.0])
        graph.add_edge(str(i), "0")
    certified(graph)
    assert settler._planner is None
    settler.close()


@pytest.fixture
def device(open_device: Callable[..., Device], monkeypatch: pytest.MonkeyPatch) -> Device:
    def compiled_here(_: object, model: ModelFile) -> ModelFile:
        return for_the_mock(model.content)

    monkeypatch.setattr("dgdm.tpu.resolvent.device_model", compiled_here)
    return open_device()


@pytest.mark.parametrize("mode", ["wrong", "hang", "abort", "error", "vanish"])
def test_a_device_that_fails_under_a_moving_graph(device: Device, bus: Bus, mode: str) -> None:
    random = np.random.default_rng(3)
    graph = StreamingDGDM(4, accuracy=ACCURACY)
    for i in range(40):
        graph.add_edge(str(i), str((7 * i + 1) % 40), float(random.uniform(0.1, 2)))
    settler = settled(graph, device)
    for turn in range(4):
        bus.mode(mode if turn == 2 else "ok")
        for i in range(40):
            graph.set_features(str(i), random.normal(size=4))
        certified(graph)
        settler.wait()
    assert device.last_fault is not None
    assert settler._metrics.passes.labels("accepted")._value.get() > 0
    settler.close()
