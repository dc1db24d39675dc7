"""Models in service: no request fails or mixes two versions, and what is worse than promised never serves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mockedgetpu import Bus, for_the_mock
from tputools import int8_of, some_network

from dgdm.tpu.accelerator import Cpu
from dgdm.tpu.device import Device, DeviceState
from dgdm.tpu.errors import ModelError
from dgdm.tpu.manager import Answered, Choice, GoldenBatch, ModelManager, by_load, by_size
from dgdm.tpu.metrics import TpuMetrics
from dgdm.tpu.model import ModelFile
from dgdm.tpu.rows import RowModel

RANDOM = np.random.default_rng(21)
X = RANDOM.normal(size=(40, 10)).astype(np.float32)
NETWORKS = [some_network(RANDOM, 10, 16, 5) for _ in range(2)]
FILES = [ModelFile(int8_of(network, X, rows=16)) for network in NETWORKS]
WIDER = ModelFile(int8_of(NETWORKS[0], X, rows=64))
TRUTH = {file.digest: RowModel(Cpu(), file).run(X) for file in [*FILES, WIDER]}


def swaps(metrics: TpuMetrics, outcome: str) -> float:
    return metrics.swaps.labels(outcome)._value.get()


def test_load_swap_and_back() -> None:
    metrics, cpu = TpuMetrics(), Cpu()
    first, second = (file.digest for file in FILES)
    with ModelManager(metrics=metrics) as manager:
        assert manager.load("head", FILES[0], cpu) == first
        assert manager.run(X).digest == first
        assert manager.swap("head", FILES[1]) == (second, first)
        answered = manager.run(X, "head")
        assert (answered.name, answered.digest) == ("head", second)
        np.testing.assert_array_equal(answered.outputs, TRUTH[second])
        assert manager.roll_back("head") == (first, second)
        np.testing.assert_array_equal(manager.run(X).outputs, TRUTH[first])
        assert manager.roll_back("head") == manager.versions["head"] == (second, first)
        assert set(cpu._models) == {first, second}
    assert not cpu._models, "all is unloaded"
    assert (swaps(metrics, "swapped"), swaps(metrics, "rolled back")) == (1, 2)
    manager.close()
    with pytest.raises(ModelError, match="no model is loaded"):
        manager.run(X)


@pytest.mark.parametrize(
    ("golden", "says"),
    [
        (GoldenBatch(X), r"it is [\d.]+ off .* 0.1 is allowed"),
        (GoldenBatch(X, NETWORKS[0].forward(X)), "off in relation"),
        (GoldenBatch(X, NETWORKS[1].forward(X)[:, :3]), r"gave \(40, 5\), expected was \(40, 3\)"),
        (GoldenBatch(X, NETWORKS[1].forward(X), 1e-9), "1e-09 is allowed"),
        (GoldenBatch(X[:, :4]), r"want \[n, 10\]"),
    ],
)
def test_what_is_not_good_on_the_golden_batch_never_serves(golden: GoldenBatch, says: str) -> None:
    metrics, cpu = TpuMetrics(), Cpu()
    with ModelManager(metrics=metrics) as manager:
        manager.load("head", FILES[0], cpu, GoldenBatch(X, NETWORKS[0].forward(X)))
        with pytest.raises(ModelError, match=says):
            manager.swap("head", FILES[1], golden)
        assert manager.versions["head"] == (FILES[0].digest, None)
        assert list(cpu._models) == [FILES[0].digest], "the refused one is unloaded"
        assert swaps(metrics, "refused") == 1
        manager.swap("head", FILES[1], GoldenBatch(X, NETWORKS[1].forward(X)))


def test_mistakes_are_named() -> None:
    narrow = ModelFile(int8_of(some_network(RANDOM, 10, 4), X))
    with ModelManager() as manager:
        manager.load("head", FILES[0], Cpu())
        for wrong, says in [
            (lambda: manager.load("head", FILES[1], Cpu()), "head is loaded: swap it"),
            (
                lambda: manager.load("tail", narrow, Cpu()),
                r"takes 10 columns and gives 4; in service: \(10, 5\)",
            ),
            (lambda: manager.swap("head", narrow), r"in service: \(10, 5\)"),
            (lambda: manager.swap("heart", FILES[1]), "there is no model 'heart': head"),
            (lambda: manager.run(X, "heart"), "there is no model 'heart': head"),
            (lambda: manager.roll_back("head"), "there is nothing to go back to"),
            (lambda: manager.swap("head", ModelFile(b"....TFL3")), "no readable"),
        ]:
            with pytest.raises(ModelError, match=says):
                wrong()
        assert manager.run(X).digest == FILES[0].digest


THREADS = 3


def until_answered(answers: list[Answered]) -> None:
    """So many more that one of them was asked for after this was called."""
    wanted, patience = len(answers) + THREADS + 1, time.monotonic() + 60
    while len(answers) < wanted:
        assert time.monotonic() < patience, "no answer comes any more"
        time.sleep(0.001)


def under_load(
    manager: ModelManager, work: Callable[[list[Answered]], None], threads: int = THREADS
) -> list[Answered]:
    """What all threads were answered while `work` was done; they ask before, during and after."""
    answers: list[Answered] = []
    errors: list[BaseException] = []
    done = threading.Event()
    begun = threading.Barrier(threads + 1)

    def ask() -> None:
        try:
            answers.append(manager.run(X))
            begun.wait(60)
            while not done.is_set():
                answers.append(manager.run(X))
            answers.append(manager.run(X))
        except BaseException as error:  # noqa: BLE001 - the test is to see any
            errors.append(error)

    asking = [threading.Thread(target=ask) for _ in range(threads)]
    for thread in asking:
        thread.start()
    begun.wait(60)
    try:
        work(answers)
    finally:
        done.set()
    for thread in asking:
        thread.join()
    assert not errors
    return answers


def test_under_load_no_answer_fails_or_mixes_two_versions() -> None:
    cpu = Cpu()
    with ModelManager() as manager:
        manager.load("head", FILES[0], cpu)

        def swap_often(answers: list[Answered]) -> None:
            for turn in range(60):
                manager.swap("head", FILES[(turn + 1) % 2])
                if turn % 10 < 2:  # the others come faster than answers
                    until_answered(answers)
                if turn % 7 == 0:
                    manager.roll_back("head")
                    manager.roll_back("head")

        answers = under_load(manager, swap_often)
        assert {answer.digest for answer in answers} == {file.digest for file in FILES}
        for answer in answers:
            # 40 rows are three invocations: a mixture would be part one, part the other
            np.testing.assert_array_equal(answer.outputs, TRUTH[answer.digest])
    assert not cpu._models, "each version went with the last who used it"


def test_a_device_that_faults_during_swaps(open_device: Callable[..., Device], bus: Bus) -> None:
    device = open_device()
    files = [for_the_mock(file.content) for file in FILES]
    with ModelManager() as manager:
        manager.load("head", files[0], device)

        def swap_between_faults(answers: list[Answered]) -> None:
            for turn, mode in enumerate(["abort", "wrong", "error", "hang"]):
                bus.mode(mode)
                manager.run(X)
                manager.swap("head", files[(turn + 1) % 2])
                bus.mode("ok")
                assert device.wait(DeviceState.READY, timeout=30)
                until_answered(answers)

        answers = under_load(manager, swap_between_faults, threads=2)
        for answer in answers:
            off = np.abs(answer.outputs - TRUTH[answer.digest]).max()
            assert off <= 4 * float(np.abs(TRUTH[answer.digest]).max()) / 100, (
                "device and CPU differ by a step or so"
            )
        assert {answer.digest for answer in answers} == {file.digest for file in FILES}
        assert device.last_fault is not None


def test_the_policy_sees_size() -> None:
    with ModelManager(by_size) as manager:
        manager.load("small", FILES[0], Cpu())  # 15 rows and the golden one
        manager.load("large", WIDER, Cpu())
        assert [manager.run(X[:n]).name for n in (1, 15, 16, 40)] == ["small", "small", "large", "large"]
        assert manager.run(np.concatenate([X, X])).name == "large", "nobody takes 80 at once"
        assert manager.run(X, "small").name == "small", "who asks by name gets it"


class Busy(Cpu):
    """Says what waits."""

    def __init__(self, queued: float) -> None:
        super().__init__()
        self.queued = queued

    @property
    def queued_seconds(self) -> float:
        return self.queued


def test_the_policy_sees_load() -> None:
    one, other = Busy(0.0), Busy(0.0)
    with ModelManager(by_load) as manager:
        manager.load("one", FILES[0], one)
        manager.load("other", FILES[0], other)
        assert manager.run(X).name == "one"
        one.queued = 0.5
        assert manager.run(X).name == "other"
        other.queued = float("inf")
        assert manager.run(X).name == "one"


@settings(max_examples=50)
@given(
    batches=st.lists(st.integers(1, 500), min_size=1, max_size=5),
    rows=st.integers(0, 800),
)
def test_by_size_never_takes_more_invocations_or_room_than_needed(batches: list[int], rows: int) -> None:
    choices = [Choice(str(i), batch, 0.0) for i, batch in enumerate(batches)]
    batch = batches[int(by_size(rows, choices))]
    invocations = [-(-rows // b) if rows else 0 for b in batches]
    assert -(-rows // batch) == min(invocations)
    if rows <= max(batches):
        assert batch == min(b for b in batches if b >= rows)
