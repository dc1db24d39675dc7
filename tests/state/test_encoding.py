"""An encoder before diffusion: X of every node is the answer of the model of its digest to its raw features."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import oracle
import pytest
from graphtools import Replica, Table, graph_of, rows_by_id, some_stream
from hypothesis import given
from hypothesis import strategies as st

from dgdm.schemas.events import AddEdge, AddNode, RemoveNode, SetFeatures, encode_event
from dgdm.state.encoding import Encoding, encode
from dgdm.state.graph import GraphState
from dgdm.state.loading import restore
from dgdm.state.raw_features import RawFeatures
from dgdm.state.recovery import StoredGraphMismatchError, require_same_graph
from dgdm.state.rules import Rules

WIDTH, FEATURES = 3, 2


class Answer(NamedTuple):
    outputs: np.ndarray
    digest: str


class Versions:
    """An encoder whose version is a number that may change between any two requests."""

    def __init__(self, version: int = 0) -> None:
        self.version = version

    @staticmethod
    def answer(version: int, x: np.ndarray) -> np.ndarray:
        """[.., WIDTH] → [.., FEATURES]; what it makes of zeros is not zero."""
        factor = np.float32(1 + version % 3)
        return np.stack(
            [factor * x[..., 0] + np.float32(version), x[..., 1] - factor * x[..., 2]],
            axis=-1,
            dtype=np.float32,
        )

    @staticmethod
    def digest(version: int) -> str:
        return f"{version + 1:016x}"

    def run(self, x: np.ndarray) -> Answer:
        """All by one version."""
        version = self.version
        return Answer(self.answer(version, x), self.digest(version))

    def zeros(self) -> Answer:
        """What it makes of a node without features."""
        return self.run(np.zeros((1, WIDTH), np.float32))


class Encoded:
    """A graph whose features an encoder makes, and what it must hold."""

    def __init__(self, rows: int = 2, **rules: Any) -> None:
        self.encoder, self.step_rows = Versions(), rows
        self.truth = oracle.Oracle(WIDTH)
        self._own(graph_of(FEATURES, **rules))
        self.encoding.use(self.encoder.zeros())
        self.replica = Replica(self.graph)

    def _own(self, graph: GraphState) -> None:
        self.graph = graph
        self.raw = graph.raw = RawFeatures(WIDTH)
        self.encoding = Encoding(self.encoder, graph, self.raw, self.step_rows)

    def read(self, stream: list[Any]) -> tuple[list[bytes], Any]:
        """Events on their way in."""
        values = [encode_event(event) for event in stream]
        return values, self.encoding.encode(values)

    def feed(self, stream: list[Any], read: Any = None, *, push: bool = True) -> list[tuple[int, str]]:
        """Apply one batch, and let the truth apply the same; which were refused, and why."""
        values, encoded = read or self.read(stream)
        applied = self.graph.apply(values, push=push, encoded=encoded)
        refused = [(index, error.reason.value) for index, error in applied.refused]
        told = [
            (i, reason) for i, value in enumerate(values) if (reason := self.truth.apply(value)) is not None
        ]
        assert [i for i, _ in told] == [i for i, _ in refused]
        return refused

    def step(self) -> None:
        """One step of encoding anew, its answer waited for."""
        self.encoding.step()
        if self.encoding._asked is not None:
            self.encoding._asked.result()

    def settle(self) -> None:
        """Until nothing waits."""
        while self.raw.stale or self.encoding._asked is not None:
            self.graph.push()
            self.step()

    def swap(self, version: int) -> None:
        """As a worker does: the version changes for who asks, then the graph hears of it."""
        self.encoder.version = version
        self.encoding.use(self.encoder.zeros())

    def restart(self) -> None:
        """Stop, and start with what the replica holds and the encoder of now."""
        self.encoding.close()
        self._own(GraphState(self.graph.rules, self.graph.alpha))
        restore(self.graph, self.replica, self.replica.meta)  # type: ignore[arg-type]
        self.encoding.use(self.encoder.zeros())

    def must_hold(self) -> dict[str, int]:
        """Raw features to the last bit, X as the version of each row answers; the version of each node."""
        rows = rows_by_id(self.graph)
        assert rows.keys() == self.truth.x.keys()
        versions = {}
        for node, row in rows.items():
            raw = self.truth.x[node]
            word = self.raw.words(np.array([row], np.int32))[0]
            np.testing.assert_array_equal(word[2:].view(np.float32), raw, err_msg=node)
            versions[node] = int(word[:2].astype("<i4").tobytes().hex(), 16) - 1
            x = self.graph.rules.raw(self.graph.arrays.X[row])
            np.testing.assert_array_equal(x, Versions.answer(versions[node], raw), err_msg=node)
        return versions

    def exact(self) -> dict[str, np.ndarray]:
        """The fixed point of X as each node's version has it."""
        versions = self.must_hold()
        truth = oracle.Oracle(FEATURES, w=self.truth.w, touching=self.truth.touching)
        truth.x = {node: Versions.answer(versions[node], raw) for node, raw in self.truth.x.items()}
        return truth.exact()


@given(data=st.data())
def test_whatever_happens_x_is_what_the_rows_own_model_says(data: Any) -> None:
    """Removals, births and features in one batch, swaps between reading and applying, restarts, steps at any time."""
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    held, table = Encoded(rows=int(random.integers(1, 4))), Table()
    stream = some_stream(random, data.draw(st.integers(1, 100)), WIDTH, data.draw(st.integers(1, 8)))
    version = 0
    while stream:
        size = int(random.integers(1, 20))
        part, stream = stream[:size], stream[size:]
        read = held.read(part)
        if random.integers(4) == 0:
            version += 1
            held.swap(version)
        if random.integers(2):
            held.encoding.step()  # asked, and perhaps answered only after the batch
        held.feed(part, read, push=bool(random.integers(2)))
        if random.integers(2):
            held.step()
        held.must_hold()
        if random.integers(2):
            table.deliver(held.graph)
        held.replica.checkpoint(held.graph)
        held.replica.must_equal(held.graph)
        if random.integers(5) == 0:
            held.restart()
            held.replica.must_equal(held.graph)
    held.settle()
    held.graph.push()
    last = table.deliver(held.graph)
    assert set(held.must_hold().values()) <= {version}
    assert oracle.largest_error(held.exact(), table.held) <= min(0.01, *last.bound)
    held.replica.rewrite(held.graph)
    held.replica.must_equal(held.graph)
    held.encoding.close()


def test_in_the_middle_of_a_swap_two_digests_are_counted_and_the_bound_is_that_of_x() -> None:
    held, table = Encoded(rows=1), Table()
    held.feed([AddEdge(str(i), str(i + 1)) for i in range(9)])
    held.swap(5)
    for _ in range(4):
        held.graph.push()
        held.step()
    held.graph.push()
    last = table.deliver(held.graph)
    counts = held.raw.counts(held.graph.arrays.alive)
    assert counts == {Versions.digest(0): 7, Versions.digest(5): 3}
    assert oracle.largest_error(held.exact(), table.held) <= min(0.01, *last.bound)
    assert held.graph.remade == last.remade == 3
    held.settle()
    assert held.raw.counts(held.graph.arrays.alive) == {Versions.digest(5): 10}
    held.encoding.close()


def test_what_an_event_changed_meanwhile_is_left_to_it() -> None:
    held = Encoded()
    held.feed([SetFeatures("a", np.ones(3, np.float32))])
    held.swap(1)
    held.encoding.step()  # asks for a
    held.encoder.version = 0  # an event that was read before the swap
    held.feed([SetFeatures("a", np.full(3, 2, np.float32))])
    held.encoder.version = 1
    held.step()
    assert held.must_hold() == {"a": 0}, "the answer was to other raw features"
    held.settle()
    assert held.must_hold() == {"a": 1}
    held.encoding.close()


@pytest.mark.parametrize(
    ("event", "reason", "says"),
    [
        (SetFeatures("a", np.ones(2, np.float32)), "wrong-length", "2 features where the encoder takes 3"),
        (SetFeatures("a", np.empty(0, np.float32)), "wrong-length", "0 features where the encoder takes 3"),
        (AddNode("a", np.full(3, 3e38, np.float32)), "not-finite", "the encoder's answer, column 0, is inf"),
        (AddNode("a", np.full(3, 1e6, np.float32)), "float32-floor", "the encoder's answer: feature 0 = "),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")  # it is the encoder's
def test_what_cannot_be_features_is_refused(event: Any, reason: str, says: str) -> None:
    held = Encoded()
    held.encoder.version = 2
    read = held.read([AddNode("b"), event, SetFeatures("b", np.ones(3, np.float32))])
    applied = held.graph.apply(read[0], encoded=read[1])
    assert [(i, error.reason.value) for i, error in applied.refused] == [(1, reason)]
    assert says in str(applied.refused[0][1])
    assert applied.sequence == 2
    assert rows_by_id(held.graph).keys() == {"b"}
    held.encoding.close()


def test_rows_without_a_good_answer_keep_what_they_have() -> None:
    held = Encoded(accuracy=1e-4)
    held.feed([SetFeatures("far", np.full(3, 3.5, np.float32)), SetFeatures("near", np.ones(3, np.float32))])
    held.swap(1)  # doubles the first column, which may be 4 at most
    held.settle()
    assert held.must_hold() == {"far": 0, "near": 1}
    held.encoding.close()


def test_a_node_that_comes_back_has_zeros_for_raw_features() -> None:
    held = Encoded()
    held.feed([SetFeatures("a", np.ones(3, np.float32)), RemoveNode("a"), AddEdge("b", "a")])
    held.must_hold()
    held.encoding.close()


def test_what_changes_again_and_again_is_noted_once() -> None:
    held = Encoded()
    for number in range(100):
        held.feed([SetFeatures(str(i % 3), np.full(3, number, np.float32)) for i in range(10)])
    assert held.raw._noted == sum(map(len, held.raw._changed)) <= 2 * len(held.graph.arrays.alive) + 10
    assert held.replica.checkpoint(held.graph).raw_rows.tolist() == [0, 1, 2]
    held.replica.must_equal(held.graph)
    held.encoding.close()


def test_reading_needs_no_encoder_where_nothing_has_features() -> None:
    class Nobody:
        def run(self, _x: Any) -> Any:
            raise AssertionError("asked for nothing")

    rules = Rules(FEATURES, np.ones(FEATURES), np.zeros(FEATURES))
    assert not encode([encode_event(AddEdge("a", "b")), None], Nobody(), WIDTH, rules).raw.size


@pytest.mark.parametrize(
    ("stored", "wanted", "says"),
    [
        (3, 0, "encoder is not set, but the stored graph has features that one made of 3 raw ones"),
        (0, 3, "encoder takes 3 features, but those of the stored graph are those of its events"),
        (3, 4, "encoder takes 4 features, but those of the stored graph are made of 3 raw ones"),
    ],
)
def test_a_graph_with_an_encoder_stays_one(stored: int, wanted: int, says: str) -> None:
    from stores import some_meta

    with pytest.raises(StoredGraphMismatchError, match=says):
        require_same_graph(some_meta(raw_features=stored), some_meta(raw_features=wanted))
