"""Graphs and streams of edge events for the benchmarks of the kernels, and the kernels in a loop of their own."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dgdm.diffusion.arrays import ARCS, EDGES, MOVED, GraphArrays, allocate, grow_arcs
from dgdm.diffusion.compile import kernel
from dgdm.diffusion.local import FULL, REMOVE_ARC, SET_ARC, change_arc, look_ahead, push
from dgdm.diffusion.upkeep import acknowledge, count_loops, load_arcs, rebuild, select_moved

ALPHA = 0.15
RMAT = (0.57, 0.19, 0.19)  # as Graph500 draws its edges: few rows have many neighbours


class Events(NamedTuple):
    """The weight of (u, v) becomes w; 0 removes it."""

    u: Any
    v: Any
    w: Any


def unit_rows(random: np.random.Generator, n: int, width: int) -> Any:
    """Features [n, F] of length 1."""
    x = random.standard_normal((n, width), np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def rmat_pairs(random: np.random.Generator, n: int, count: int) -> Any:
    """Pairs [count, 2] of rows below n; some twice."""
    bits = int(np.ceil(np.log2(n)))
    names = np.random.default_rng(n).permutation(1 << bits).astype(np.int32)
    found: list[Any] = []
    while sum(map(len, found)) < count:
        u = np.zeros(count, np.int32)
        v = np.zeros(count, np.int32)
        for _ in range(bits):
            r = random.random(count, np.float32)
            u = 2 * u + (r >= RMAT[0] + RMAT[1])
            v = 2 * v + (((r >= RMAT[0]) & (r < RMAT[0] + RMAT[1])) | (r >= sum(RMAT)))
        pairs = np.stack([names[u], names[v]], axis=1)
        found.append(pairs[(pairs < n).all(axis=1) & (pairs[:, 0] != pairs[:, 1])])
    return np.concatenate(found)[:count]


def rmat_edges(random: np.random.Generator, n: int, count: int) -> Any:
    """Different undirected edges [count, 2], u < v."""
    keys = np.empty(0, np.int64)
    while len(keys) < count:
        pairs = np.sort(rmat_pairs(random, n, count + count // 2), axis=1).astype(np.int64)
        keys = np.unique(np.concatenate([keys, pairs[:, 0] * n + pairs[:, 1]]))
    keys = random.permutation(keys)[:count]
    return np.stack([keys // n, keys % n], axis=1).astype(np.int32)


def edge_events(random: np.random.Generator, n: int, edges: Any, count: int) -> Events:
    """Half are new weights of edges that are there, a quarter new edges, a quarter edges that go and come back."""
    chosen = edges[random.integers(0, len(edges), count)]
    kind = random.integers(0, 4, count)
    chosen[kind == 2] = np.sort(rmat_pairs(random, n, int((kind == 2).sum())), axis=1)
    w = random.uniform(0.5, 2, count).astype(np.float32)
    w[kind == 3] = 0
    turned = random.random(count) < 0.5
    u = np.where(turned, chosen[:, 1], chosen[:, 0])
    return Events(u.astype(np.int32), np.where(turned, chosen[:, 0], chosen[:, 1]).astype(np.int32), w)


def loaded(x: Any, edges: Any, weights: Any) -> GraphArrays:
    """An undirected graph with its residuals, nothing pushed and everything announced."""
    n, width = x.shape
    g = allocate(n, width, directed=False)
    g.X[:, :width] = g.H[:, :width] = x
    g.alive[:] = 1
    g.announced[:] = 1
    sources, targets = np.concatenate([edges[:, 0], edges[:, 1]]), np.concatenate([edges[:, 1], edges[:, 0]])
    done, both = 0, np.concatenate([weights, weights])
    while (done := load_arcs(g.rows, sources, targets, both, done)) < len(sources):
        g = grow_arcs(g)
    count_loops(g, n)
    g.sizes[ARCS], g.sizes[EDGES] = 2 * len(edges), len(edges)
    return g


def solved(g: GraphArrays, accuracy: float) -> GraphArrays:
    """Pushed, and consumers hold what it came to."""
    n = len(g.alive)
    epsilon = ALPHA * accuracy / 2
    rebuild(g, n, ALPHA, epsilon)
    push(g, ALPHA, epsilon, 1 << 60)
    publish_all(g)
    return g


def publish_all(g: GraphArrays) -> None:
    """Consumers hold every vector."""
    g.P[:] = g.H
    g.moved_mark[:] = 0
    g.sizes[MOVED] = 0


class Scratch(NamedTuple):
    """What the loop below needs beside the graph."""

    chosen: Any  # [n]
    generations: Any  # [n]
    vectors: Any  # [n, F']


def scratch_for(g: GraphArrays) -> Scratch:
    """For a graph."""
    n = len(g.alive)
    return Scratch(np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros((n, g.H.shape[1]), np.float32))


@kernel
def stream(
    g: GraphArrays,
    s: Scratch,
    kind: Any,
    ends: Any,
    w: Any,
    size: int,
    alpha: float,
    epsilon: float,
    tau: float,
) -> int:
    """Edge events in batches: apply, push, decide, acknowledge, as the pipeline does. Vectors published."""
    published = 0
    for start in range(0, len(ends), size):
        for i in range(start, min(start + size, len(ends))):
            look_ahead(g, ends, i, False)
            outcome = change_arc(g, True, kind[i], ends[i, 0], ends[i, 1], w[i], alpha, epsilon)
            assert outcome != FULL
        push(g, alpha, epsilon, 1 << 60)
        count = select_moved(g, tau, len(s.chosen), s.chosen)
        for i in range(count):
            s.generations[i] = g.generation[s.chosen[i]]
            for f in range(g.H.shape[1]):
                s.vectors[i, f] = g.H[s.chosen[i], f]
        acknowledge(g, s.chosen[:count], s.generations[:count], s.vectors[:count])
        published += count
    return published


def kinds(events: Events) -> Any:
    """The kernels' names for what the events do."""
    return np.where(events.w > 0, SET_ARC, REMOVE_ARC).astype(np.uint8)


def ends(events: Events) -> Any:
    """Both rows of each event [k, 2]."""
    return np.stack([events.u, events.v], axis=1)
