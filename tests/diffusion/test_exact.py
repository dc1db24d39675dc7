"""The exact solution, the certificate and the stateless call, against dense algebra."""

from __future__ import annotations

from typing import Any

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kerneltools import pair, random_ops

from dgdm.diffusion.exact import certify, fixed_point, transition, truncated
from dgdm.diffusion.stateless import diffuse

ALPHAS = st.sampled_from([0.05, 0.15, 0.9, 1.0])


@given(seed=st.integers(0, 2**32 - 1), alpha=ALPHAS, directed=st.booleans(), steps=st.integers(0, 12))
def test_transition_fixed_point_and_steps(seed: int, alpha: float, directed: bool, steps: int) -> None:
    random = np.random.default_rng(seed)
    _, twin = pair(3, directed=directed, alpha=alpha)
    for op in random_ops(random, twin, int(random.integers(1, 150)), 20):
        twin.apply(op)
    rows, p = twin.transition()
    arcs = [(i, rows.index(v), w) for i, u in enumerate(rows) for v, w in twin.w[u].items()]
    u, v, w = (np.array(part) for part in zip(*arcs, strict=True)) if arcs else (np.empty(0, int),) * 3
    sparse = transition(u, v, np.asarray(w, np.float64), len(rows))
    np.testing.assert_allclose(sparse.toarray(), p, atol=1e-15)
    x = twin.stacked(twin.x)
    np.testing.assert_allclose(fixed_point(sparse, x, alpha), twin.exact(), atol=1e-11)
    np.testing.assert_allclose(
        truncated(sparse, x, alpha, steps), naive.diffuse(p, x, alpha, steps), atol=1e-12
    )


def test_a_certificate_names_the_worst() -> None:
    exact = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    held = exact + np.array([[0.01, 0.0], [0.0, -0.3], [0.02, 0.0]])
    found = certify(["a", "b", "c"], exact, held, [0.04, 0.2], worst=2)
    np.testing.assert_allclose(found.error, [0.02, 0.3])
    assert [node for node, _ in found.worst] == ["b", "c"]
    np.testing.assert_allclose([units for _, units in found.worst], [1.5, 0.5])
    assert not found.holds
    assert certify(["a", "b", "c"], exact, held, [0.04, 0.31]).holds
    assert certify([], np.empty((0, 2)), np.empty((0, 2)), [0.1, 0.1]).holds


@given(data=st.data())
def test_the_stateless_call(data: Any) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    directed, aggregate = data.draw(st.sampled_from([(False, "in"), (True, "in"), (True, "out")]))
    steps, alpha = data.draw(st.sampled_from([None, 0, 1, 7])), data.draw(ALPHAS)
    temperature = data.draw(st.sampled_from([None, 0.1, 2.0]))
    names = [f"n{i}" for i in range(int(random.integers(1, 9)))]
    x = {name: random.normal(size=2) for name in names if random.integers(4)} or {names[0]: np.ones(2)}
    edges = [
        (*random.choice(names, 2).tolist(), float(random.uniform(0.1, 4)))
        for _ in range(int(random.integers(0, 25)))
    ]
    w: dict[tuple[str, str], float] = {}
    for a, b, weight in edges:
        for source, target in [(a, b)] if directed else [(a, b), (b, a)]:
            w[(target, source) if directed and aggregate == "in" else (source, target)] = weight
    known = [*x, *dict.fromkeys(node for a, b, _ in edges for node in (a, b) if node not in x)]
    p = np.zeros((len(known), len(known)))
    for i, u in enumerate(known):
        own = {v: weight for (s, v), weight in w.items() if s == u}
        if temperature is not None:
            own = {v: np.exp(weight / temperature) for v, weight in own.items()}
        for j, v in enumerate(known):
            p[i, j] = own.get(v, 0.0) / sum(own.values()) if own else float(i == j)
    dense = np.array([x.get(node, np.zeros(2)) for node in known])
    found = diffuse(x, edges, steps, alpha, temperature, directed, aggregate)
    assert list(found) == known
    np.testing.assert_allclose(
        list(found.values()), naive.diffuse(p, dense, alpha, steps), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"alpha": 0.0}, "alpha = 0.0 is not in"),
        ({"alpha": 1.5}, "alpha = 1.5 is not in"),
        ({"steps": -1}, "steps = -1 is negative"),
        ({"temperature": 0.0}, "temperature = 0.0 is not"),
        ({"temperature": float("inf")}, "temperature = inf is not"),
        ({"edges": [("a", "b", 0.0)]}, "weight 0.0 of edge 'a' → 'b'"),
        ({"edges": [("a", "b", float("nan"))]}, "weight nan of edge"),
        ({"nodes": {"a": [1.0], "b": [1.0, 2.0]}}, "features of 'b' are not 1 finite"),
        ({"nodes": {"a": [float("inf")]}}, "features of 'a' are not 1 finite"),
    ],
)
def test_bad_arguments_are_named(given_: dict[str, Any], says: str) -> None:
    arguments: dict[str, Any] = {"nodes": {"a": [1.0]}, "edges": [], **given_}
    with pytest.raises(ValueError, match=says):
        diffuse(**arguments)
