"""Regions through real int8 kernels: whatever they answer, the certificate holds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mockedgetpu import Bus, for_the_mock
from scipy import sparse

from dgdm.diffusion.exact import fixed_point, transition
from dgdm.examples.buses import buses
from dgdm.tpu.accelerator import Answer, Cpu
from dgdm.tpu.device import Device, DeviceState
from dgdm.tpu.model import CpuModel, ModelFile, Raw, from_raw, to_raw
from dgdm.tpu.opcheck import SRAM, Verdict, check
from dgdm.tpu.partition import Rows, partition
from dgdm.tpu.region import PATIENCE, Coupling, Region, coupling_of
from dgdm.tpu.resolvent import Baked, bake, resolvent, resolvent_file, scaled_columns

ALPHA, ACCURACY = 0.15, 0.01


def random_p(random: np.random.Generator, n: int, degree: int = 4) -> sparse.csr_array:
    rows, targets = random.integers(0, n, (2, n * degree))
    weights = 10 ** random.uniform(-2, 2, n * degree)
    return transition(np.append(rows, targets), np.append(targets, rows), np.append(weights, weights), n)


def residual(p: sparse.csr_array, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    """From its definition, in float64."""
    return ALPHA * x + (1 - ALPHA) * (p @ h.astype(np.float64)) - h


def inner(p: sparse.csr_array, rows: Rows) -> np.ndarray:
    return p[rows][:, rows].toarray()


class Solver:
    """Vectors and maintained residuals of a graph, settled by regions and finished by a naive push."""

    def __init__(self, p: sparse.csr_array, x: np.ndarray) -> None:
        self.p = p
        self.x = x.astype(np.float64)
        self.h = x.astype(np.float32).copy()
        self.r = residual(p, self.x, self.h).astype(np.float32)
        self.passes = self.pushes = 0

    def settle(self, region: Region, coupling: Coupling, epsilon: float, most: int = 20) -> None:
        touched = np.append(region.rows, coupling.boundary)
        while np.abs(self.r[region.rows]).max(initial=0.0) > epsilon and most:
            done = region.settle(coupling, self.r[touched])
            self.h[region.rows] += done.delta
            self.r[touched] = done.residual
            self.passes, most = self.passes + 1, most - 1
            if done.contraction > 0.5 or not done.accepted.any():
                return

    def push(self, epsilon: float) -> None:
        columns = self.p.tocsc()
        while np.abs(self.r).max() > epsilon:
            u = int(np.abs(self.r).max(axis=1).argmax())
            into = columns[:, [u]].toarray().ravel()
            d = self.r[u] / (1 - (1 - ALPHA) * into[u])
            self.h[u] += d
            self.r += ((1 - ALPHA) * into[:, None] * d).astype(np.float32)
            self.r[u] = 0
            self.pushes += 1

    def holds(self, exact: np.ndarray) -> None:
        """The certificate, and the maintained residual against its definition."""
        true = residual(self.p, self.x, self.h)
        np.testing.assert_allclose(self.r, true, atol=2e-5 * max(1.0, float(np.abs(self.x).max())))
        error = float(np.abs(self.h - exact).max())
        assert error <= float(np.abs(true).max()) / ALPHA * (1 + 1e-9)
        assert error <= ACCURACY


# The file.


@given(
    n=st.integers(2, 40), parts=st.sampled_from([1, 2]), f=st.integers(1, 12), seed=st.integers(0, 2**32 - 1)
)
def test_the_file_multiplies_by_the_resolvent(n: int, parts: int, f: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    p = random_p(random, n)
    g = resolvent(p.toarray(), ALPHA)
    np.testing.assert_allclose(g @ (np.eye(n) - (1 - ALPHA) * p.toarray()), np.eye(n), atol=1e-9)
    model = CpuModel(resolvent_file(g, parts, 1.0, f))
    r = random.uniform(-1, 1, (n, f)).astype(np.float32)
    q = to_raw(r.T, model.inputs[0]).reshape(model.inputs[0].shape)
    got = sum(from_raw(out, spec) for out, spec in zip(model.invoke(q), model.outputs, strict=True))
    rest = g
    for _ in range(parts):
        step = np.abs(rest).max(axis=1, keepdims=True) / 127
        rest = rest - np.rint(rest / step) * step
    rounding = sum(0.51 * spec.scale for spec in model.outputs)
    bound = rounding + np.abs(rest).sum(axis=1) + np.abs(g).sum(axis=1) * 0.51 / 127
    assert (np.abs(got.reshape(f, n).T - g @ r) <= bound[:, None]).all()


def test_every_way_of_baking_is_certain_and_fits() -> None:
    g = resolvent(random_p(np.random.default_rng(1), 1400).toarray(), ALPHA)
    for parts in (1, 2):
        report = check(resolvent_file(g, parts, 0.6, 24))
        assert report.verdict is Verdict.CERTAIN
        assert report.parameters <= SRAM
        assert [op.op for op in report.ops] == ["CONV_2D"] * parts


def test_the_best_way_was_measured() -> None:
    p = random_p(np.random.default_rng(1), 60)
    baked = Region(np.arange(60), p.toarray(), ALPHA, Cpu()).baked
    assert len(baked.trials) == 6
    assert baked.chosen == min(baked.trials, key=lambda t: t.seconds_per_decade)
    assert 0 < baked.chosen.contraction < 0.3
    assert baked.chosen.seconds > 0


def test_columns_have_their_own_scales() -> None:
    r = np.array([[1, 1000.0, 0], [-2, 1, 0]], np.float32)
    scaled, scale = scaled_columns(r, 4)
    np.testing.assert_array_equal(scaled, np.array([[0.5, -1], [1, 0.001], [0, 0], [0, 0]], np.float32))
    np.testing.assert_array_equal(scale, [2, 1000, 1])


def test_a_small_column_beside_a_large_one_is_settled_too() -> None:
    random = np.random.default_rng(3)
    n = 50
    p = random_p(random, n)
    x = random.normal(size=(n, 8)) * 10.0 ** np.arange(-4, 4)
    solver = Solver(p, x)
    region = Region(np.arange(n), p.toarray(), ALPHA, Cpu(), columns=8)
    before = np.abs(solver.r).max(axis=0)
    for _ in range(4):
        done = region.settle(coupling_of(p, np.arange(n), ALPHA), solver.r)
        solver.r = done.residual
    assert (np.abs(solver.r).max(axis=0) < 2e-3 * before).all()


# Convergence.


def test_montevideo_is_certified_hour_by_hour() -> None:
    table = buses()
    p = table.transition()
    n = len(table.stops)
    region = Region(np.arange(n), p.toarray(), ALPHA, Cpu(), columns=24)
    coupling = coupling_of(p, np.arange(n), ALPHA)
    exact = ALPHA * np.linalg.inv(np.eye(n) - (1 - ALPHA) * p.toarray())
    solver = Solver(p, table.features(0))
    passes = []
    for hour in range(table.hours):
        x = table.features(hour)
        solver.r += (ALPHA * (x - solver.x)).astype(np.float32)  # the repair of SetFeatures
        solver.x = x.astype(np.float64)
        solver.passes = 0
        solver.settle(region, coupling, ALPHA * ACCURACY / 2)
        passes.append(solver.passes)
        solver.push(ALPHA * ACCURACY / 2)
        if hour % 24 == 0:
            # maintained in float32 over a day, then computed anew, as the scrubber does
            solver.holds(exact @ x)
            solver.r = residual(p, solver.x, solver.h).astype(np.float32)
        assert np.abs(solver.h - exact @ x).max() <= ACCURACY
    assert solver.pushes == 0, "int8 alone has done it"
    assert np.mean(passes) < 5


def test_regions_of_a_random_sparse_graph_and_a_push_that_finishes() -> None:
    random = np.random.default_rng(7)
    n = 900
    p = random_p(random, n, 3)
    x = random.normal(size=(n, 40))  # wider than an invocation
    solver = Solver(p, x)
    parts = partition(p, 320)
    regions = [Region(rows, inner(p, rows), ALPHA, Cpu()) for rows in parts]
    couplings = [coupling_of(p, rows, ALPHA) for rows in parts]
    largest = np.abs(solver.r).max()
    for _ in range(3):
        for region, coupling in zip(regions, couplings, strict=True):
            solver.settle(region, coupling, ALPHA * ACCURACY / 2, most=2)
    assert np.abs(solver.r).max() < 0.1 * largest
    solver.push(ALPHA * ACCURACY / 2)
    solver.holds(fixed_point(p, x.astype(np.float64), ALPHA))


@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1))
@settings(max_examples=15)
def test_a_stale_region_is_only_slow(seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    n = 60
    old, other = random_p(random, n), random_p(random, n)
    mixed = sparse.csr_array((1 - share) * old + share * other)
    x = random.normal(size=(n, 3))
    solver = Solver(mixed, x)
    region = Region(np.arange(n), old.toarray(), ALPHA, Cpu(), columns=4)
    solver.settle(region, coupling_of(mixed, np.arange(n), ALPHA), ALPHA * ACCURACY / 2)
    solver.push(ALPHA * ACCURACY / 2)
    solver.holds(fixed_point(mixed, x, ALPHA))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_a_pass_shrinks_what_it_takes_and_leaves_the_rest(seed: int) -> None:
    """For any residuals, graphs and regions, also of another graph."""
    random = np.random.default_rng(seed)
    n = 40
    p, baked = random_p(random, n, 2), random_p(random, n, 2)
    rows = np.sort(random.choice(n, 15, replace=False))
    coupling = coupling_of(p, rows, ALPHA)
    region = Region(rows, inner(baked, rows), ALPHA, Cpu(), columns=4)
    touched = np.append(rows, coupling.boundary)
    r = (random.normal(size=(n, 6)) * 10.0 ** random.integers(-6, 6, 6)).astype(np.float32)
    r[:, 5] = 0
    done = region.settle(coupling, r[touched])
    before, after = np.abs(r[touched]).max(axis=0), np.abs(done.residual).max(axis=0)
    assert (after[:5] < before[:5]).tolist() == done.accepted[:5].tolist()
    left = ~done.accepted
    assert not done.delta[:, left].any()
    np.testing.assert_array_equal(done.residual[:, left], r[touched][:, left])
    h = np.zeros((n, 6))
    h[rows] = done.delta
    change = (1 - ALPHA) * (p @ h) - h  # the residual is linear in the vectors
    np.testing.assert_allclose(
        done.residual - r[touched], change[touched], atol=1e-5 * float(before.max()), rtol=1e-4
    )
    outside = np.setdiff1d(np.arange(n), touched)
    assert not change[outside].any()


def test_a_row_that_has_left_gets_nothing() -> None:
    random = np.random.default_rng(9)
    n = 30
    p = random_p(random, n)
    region = Region(np.arange(n), p.toarray(), ALPHA, Cpu(), columns=4)
    gone = 7
    dense = coupling_of(p, np.arange(n), ALPHA).matrix.toarray()
    dense[gone] = dense[:, gone] = 0
    r = random.normal(size=(n, 4)).astype(np.float32)
    r[gone] = 0
    done = region.settle(Coupling(sparse.csr_array(dense), np.empty(0, np.int64)), r)
    assert not done.delta[gone].any()
    assert not done.residual[gone].any()


# Baking anew.


def test_a_region_that_contracts_badly_is_baked_again_without_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(2)
    n = 80
    old, new = random_p(random, n), random_p(random, n)
    region = Region(np.arange(n), old.toarray(), ALPHA, Cpu(), columns=4)
    coupling = coupling_of(new, np.arange(n), ALPHA)
    r = random.normal(size=(n, 4)).astype(np.float32)
    may_bake = threading.Event()

    def bake_slowly(*args: Any, **options: Any) -> Baked:
        assert may_bake.wait(60)
        return bake(*args, **options)

    monkeypatch.setattr("dgdm.tpu.region.bake", bake_slowly)
    contractions = [region.settle(coupling, r).contraction for _ in range(PATIENCE)]
    assert min(contractions) > 0.5
    assert region.wants_baking
    done = threading.Event()
    region.bake_again(new.toarray(), done.set)
    assert not region.wants_baking
    assert region.settle(coupling, r).contraction == contractions[0], "meanwhile the old one answers"
    may_bake.set()
    assert done.wait(60)
    assert region._baker is not None
    region._baker.join()
    assert region.settle(coupling, r).contraction < 0.3
    assert region.bakes == 2
    assert len(region._accelerator._models) == 1, "the old one is unloaded"
    region.close()
    assert not region._accelerator._models


def test_a_region_that_is_poor_when_fresh_is_not_baked_for_ever() -> None:
    random = np.random.default_rng(2)
    n = 30
    p, other = random_p(random, n), random_p(random, n)
    region = Region(np.arange(n), p.toarray(), ALPHA, Cpu(), columns=4)
    coupling = coupling_of(other, np.arange(n), ALPHA)
    r = random.normal(size=(n, 4)).astype(np.float32)
    gaps = []
    for _ in range(3):
        passes = 0
        while not region.wants_baking:
            region.settle(coupling, r)
            passes += 1
        gaps.append(passes)
        region.bake_again(p.toarray())  # not what would help
        assert region._baker is not None
        region._baker.join()
        region._take_over()
    assert gaps == [PATIENCE, 2 * PATIENCE, 4 * PATIENCE]


# Devices.


@pytest.fixture
def device(open_device: Callable[..., Device], monkeypatch: pytest.MonkeyPatch) -> Device:
    def compiled_here(_: object, model: ModelFile) -> ModelFile:
        return for_the_mock(model.content)  # in this process: six ways of baking, six compilations

    monkeypatch.setattr("dgdm.tpu.resolvent.device_model", compiled_here)
    return open_device()


@pytest.mark.parametrize("mode", ["wrong", "echo", "hang", "abort", "error", "vanish"])
def test_on_a_device_that_fails_the_certificate_holds(device: Device, bus: Bus, mode: str) -> None:
    random = np.random.default_rng(4)
    n = 48
    p = random_p(random, n)
    x = random.normal(size=(n, 8))
    region = Region(np.arange(n), p.toarray(), ALPHA, device, columns=8)
    coupling = coupling_of(p, np.arange(n), ALPHA)
    exact = fixed_point(p, x, ALPHA)
    solver = Solver(p, x)
    bus.mode(mode)
    solver.settle(region, coupling, ALPHA * ACCURACY / 2)
    solver.holds(exact)
    assert solver.pushes == 0
    kind = device.last_fault
    assert kind is not None
    assert (kind.kind == "wrong") == (mode in ("wrong", "echo"))
    bus.mode("ok")
    assert device.wait(DeviceState.READY, timeout=30)
    answered = device._metrics.invocations.labels("pci:0", "device")._value.get()
    again = Solver(p, x)
    again.settle(region, coupling, ALPHA * ACCURACY / 2)
    again.holds(exact)
    assert device._metrics.invocations.labels("pci:0", "device")._value.get() >= answered + 2


def test_a_stale_region_is_not_held_against_the_device(device: Device) -> None:
    """Baked without arcs; then each row points at its neighbour, and signs alternate: ten times worse than before."""
    n = 40
    pairs = sparse.csr_array((np.ones(n), (np.arange(n), np.arange(n) ^ 1)), shape=(n, n))
    region = Region(np.arange(n), np.eye(n), ALPHA, device, columns=4)
    r = np.tile(np.array([[1], [-1]], np.float32), (n // 2, 4))
    before = device._metrics.invocations.labels("pci:0", "device")._value.get()
    done = region.settle(coupling_of(pairs, np.arange(n), ALPHA), r)
    assert not done.accepted.any()
    assert device._metrics.invocations.labels("pci:0", "device")._value.get() == before + 1
    assert device.last_fault is None


class Liar(Cpu):
    """Answers with noise, and does not ask the check."""

    def run(self, digest: str, x: Raw, check: object = None) -> Answer:  # noqa: ARG002
        answer = super().run(digest, x)
        noise = np.random.default_rng(int(np.abs(x.astype(int)).sum()))
        return Answer([noise.integers(-128, 128, q.shape).astype(np.int8) for q in answer.outputs], "cpu")


def test_noise_costs_time_and_nothing_else() -> None:
    random = np.random.default_rng(6)
    n = 50
    p = random_p(random, n)
    x = random.normal(size=(n, 5))
    region = Region(np.arange(n), p.toarray(), ALPHA, Liar(), columns=8)
    solver = Solver(p, x)
    for _ in range(5):
        solver.settle(region, coupling_of(p, np.arange(n), ALPHA), 0.0)
    solver.push(ALPHA * ACCURACY / 2)
    solver.holds(fixed_point(p, x, ALPHA))
    assert solver.pushes > 0
