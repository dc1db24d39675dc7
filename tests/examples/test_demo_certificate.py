"""The demo's certificate must find what is wrong, or it proves nothing."""

from __future__ import annotations

import numpy as np
import pytest

from dgdm.examples.certificate import RebuiltGraph, compare, rebuilt
from dgdm.schemas.events import AddEdge, AddNode, RemoveNode, SetFeatures, encode_event

ACCURACY = [0.1, 1.0]
ALPHA = 0.15


@pytest.fixture
def values() -> list[bytes]:
    rng = np.random.default_rng(1)
    events = [AddNode(f"plane{i}") for i in range(20)]
    events += [SetFeatures(f"port{i}", rng.normal(size=2).astype(np.float32)) for i in range(5)]
    for _ in range(200):
        plane, port = rng.integers(19), rng.integers(5)  # plane19 never flies
        events.append(AddEdge(f"plane{plane}", f"port{port}", float(rng.uniform(0.1, 2)), op="add"))
    return [encode_event(event) for event in events]


def dense(graph: RebuiltGraph) -> dict[str, np.ndarray]:
    """H = α (I − (1−α) P)⁻¹ X by a dense solve."""
    nodes = sorted(graph.weights)
    p, x = np.eye(len(nodes)), np.array([graph.features[node] for node in nodes], np.float64)
    for i, node in enumerate(nodes):
        if graph.weights[node]:
            row = np.array([graph.weights[node].get(other, 0.0) for other in nodes])
            p[i] = row / row.sum()
    solution = np.linalg.solve(np.eye(len(nodes)) - (1 - ALPHA) * p, ALPHA * x)
    return dict(zip(nodes, solution, strict=True))


def test_the_exact_answer_is_exact(values: list[bytes]) -> None:
    graph = rebuilt(2, values)
    expected, found = dense(graph), graph.exact(ALPHA)
    assert found.keys() == expected.keys()
    assert len(found) == 25
    for node, vector in expected.items():
        assert found[node] == pytest.approx(vector, abs=1e-9)
    assert (found["plane19"] == 0).all()


def test_weights_are_summed_in_float32() -> None:
    graph = rebuilt(1, [encode_event(AddEdge("a", "b", w, op="add")) for w in (16_777_216.0, 1.0, 1.0)])
    assert graph.weights == {"a": {"b": 16_777_216.0}, "b": {"a": 16_777_216.0}}


def test_a_table_within_the_accuracy_holds(values: list[bytes]) -> None:
    exact = rebuilt(2, values).exact(ALPHA)
    table = {node: (vector + np.array([0.05, -0.5])).astype(np.float32) for node, vector in exact.items()}
    verdict = compare(exact, table, ACCURACY)
    assert verdict.holds
    assert verdict.compared == 25
    assert verdict.error == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("column", "change", "error"), [(0, 0.11, 1.1), (1, -1.1, 1.1), (0, np.nan, np.inf), (1, np.inf, np.inf)]
)
def test_one_corrupted_vector_is_found_and_named(
    values: list[bytes], column: int, change: float, error: float
) -> None:
    exact = rebuilt(2, values).exact(ALPHA)
    table = {node: vector.astype(np.float32) for node, vector in exact.items()}
    table["plane7"][column] += change
    verdict = compare(exact, table, ACCURACY)
    assert not verdict.holds
    assert verdict.worst == "plane7"
    assert verdict.error == pytest.approx(error, rel=1e-3)


def test_a_missing_and_a_superfluous_vector_are_found(values: list[bytes]) -> None:
    exact = rebuilt(2, values).exact(ALPHA)
    table = {node: vector.astype(np.float32) for node, vector in exact.items()}
    table["ghost"] = table.pop("port3")
    verdict = compare(exact, table, ACCURACY)
    assert (verdict.missing, verdict.extra, verdict.holds) == (["port3"], ["ghost"], False)


def test_an_event_nobody_sent_is_refused() -> None:
    with pytest.raises(ValueError, match="RemoveNode"):
        rebuilt(2, [encode_event(RemoveNode("a"))])
