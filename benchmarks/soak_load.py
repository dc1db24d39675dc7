"""A graph that grows, gets a hub, loses both, and is as large again as it was: the load of a soak."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dgdm.schemas.events import AddEdge, AddNode, GraphEvent, RemoveEdge, RemoveNode, SetFeatures, as_weight

NODES, EDGES = 10_000, 30_000
HUB = 5_000  # neighbours
GROWN = 10_000  # nodes that come and go, with two edges each


class Town:
    """Who lives there now; every method gives events and takes them for applied."""

    def __init__(self, seed: int, features: int) -> None:
        self._random, self._normal = random.Random(seed), np.random.default_rng(seed)
        self._features = features
        self._edges = sorted({self._pair() for _ in range(EDGES)})
        self._away: list[tuple[str, str]] = []
        self._grown = 0

    def founded(self) -> Iterator[GraphEvent]:
        """The nodes and edges that stay."""
        for number in range(NODES):
            yield AddNode(f"b{number}", self._vector())
        for a, b in self._edges:
            yield AddEdge(a, b, self._weight())

    def lived(self) -> Iterator[GraphEvent]:
        """Ordinary days, without end: weights and features move, edges go and come back."""
        rng = self._random
        while True:
            kind = rng.random()
            if kind < 0.6:
                yield AddEdge(*rng.choice(self._edges), self._weight())
            elif kind < 0.9:
                yield SetFeatures(f"b{rng.randrange(NODES)}", self._vector())
            elif kind < 0.95:
                self._away.append(rng.choice(self._edges))
                yield RemoveEdge(*self._away[-1])
            elif self._away:
                yield AddEdge(*self._away.pop(rng.randrange(len(self._away))), self._weight())

    def mended(self) -> Iterator[GraphEvent]:
        """What was away comes back."""
        while self._away:
            yield AddEdge(*self._away.pop(), self._weight())

    def grown(self) -> Iterator[GraphEvent]:
        """Newcomers, never seen before, and a hub."""
        first, self._grown = self._grown, self._grown + GROWN
        for number in range(first, self._grown):
            yield AddNode(f"g{number}", self._vector())
            yield AddEdge(f"g{number}", f"b{self._random.randrange(NODES)}", self._weight())
            yield AddEdge(f"g{number}", f"g{self._random.randrange(first, number + 1)}", self._weight())
        for number in range(HUB):
            yield AddEdge("hub", f"b{number}")

    def shrunk(self) -> Iterator[GraphEvent]:
        """They leave, the hub first."""
        yield RemoveNode("hub")
        for number in range(self._grown - GROWN, self._grown):
            yield RemoveNode(f"g{number}")

    def _pair(self) -> tuple[str, str]:
        return f"b{self._random.randrange(NODES)}", f"b{self._random.randrange(NODES)}"

    def _weight(self) -> float:
        return as_weight(10 ** self._random.uniform(-2, 2))

    def _vector(self) -> NDArray[np.float32]:
        return self._normal.normal(size=self._features).astype(np.float32)
