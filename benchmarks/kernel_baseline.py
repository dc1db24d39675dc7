"""The baseline: push as it is usually written. A first-in first-out queue, plain loops, lists that are searched.

The same mathematics, guards and events as the kernels (an undirected graph's edges), in their obvious form.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

straight = numba.njit(nogil=True, cache=True, error_model="numpy")


class Baseline(NamedTuple):
    """Arrays of one graph."""

    X: Any
    H: Any
    R: Any
    P: Any
    weight_sum: Any
    weight_ref: Any
    offset: Any
    length: Any
    capacity: Any
    target: Any
    weight: Any
    end: Any  # [1]: of the used part of the pool
    queue: Any  # a ring of n + 1
    queued: Any
    moved: Any
    moved_mark: Any
    counts: Any  # pushes, arc updates, published


def baseline_of(n: int, u: Any, v: Any, w: Any, X: Any, H: Any) -> Baseline:
    """Undirected edges (u, v, w), lists with as much slack again; R from its definition."""
    width = X.shape[1]
    source, target = np.concatenate([u, v[u != v]]), np.concatenate([v, u[u != v]])
    weight = np.concatenate([w, w[u != v]])
    order = np.argsort(source, kind="stable")
    length = np.bincount(source, minlength=n)
    capacity = 2 * length + 4
    offset = np.concatenate([[0], np.cumsum(capacity)[:-1]])
    place = np.repeat(offset - np.concatenate([[0], np.cumsum(length)[:-1]]), length) + np.arange(len(source))
    pool = 2 * int(capacity.sum())
    targets, weights = np.zeros(pool, np.int32), np.zeros(pool, np.float32)
    targets[place], weights[place] = target[order], weight[order]
    g = Baseline(
        X.copy(),
        H.copy(),
        np.zeros((n, width), np.float32),
        H.copy(),
        np.zeros(n),
        np.zeros(n),
        offset,
        length,
        capacity,
        targets,
        weights,
        np.array([capacity.sum()]),
        np.zeros(n + 1, np.int32),
        np.zeros(n, np.uint8),
        np.zeros(n, np.int32),
        np.zeros(n, np.uint8),
        np.zeros(3, np.int64),
    )
    rebuild_all(g, 0.15)
    return g


@straight
def largest(row: Any) -> Any:
    """max |row|"""
    m = np.float32(0)
    for f in range(len(row)):
        m = max(m, abs(row[f]))
    return m


@straight
def rebuild(g: Baseline, u: int, alpha: float) -> None:
    """R_u from its definition."""
    begin, end = g.offset[u], g.offset[u] + g.length[u]
    total = 0.0
    for k in range(begin, end):
        total += g.weight[k]
    g.weight_sum[u] = g.weight_ref[u] = total
    for f in range(g.X.shape[1]):
        mean = g.H[u, f] if begin == end else 0.0
        for k in range(begin, end):
            mean += g.weight[k] / total * g.H[g.target[k], f]
        g.R[u, f] = alpha * g.X[u, f] + (1 - alpha) * mean - g.H[u, f]


@straight
def rebuild_all(g: Baseline, alpha: float) -> None:
    """Every row."""
    for u in range(len(g.length)):
        rebuild(g, u, alpha)


@straight
def find(g: Baseline, u: int, v: int) -> int:
    """Place of v in the list of u, or −1."""
    for k in range(g.offset[u], g.offset[u] + g.length[u]):
        if g.target[k] == v:
            return k
    return -1


@straight
def change(g: Baseline, u: int, v: int, k: int, before: float, after: float, alpha: float) -> None:
    """The arc u → v, at k, in the list of u; then R_u."""
    if k < 0:
        if g.length[u] == g.capacity[u]:
            new, old = g.end[0], g.offset[u]
            for i in range(g.length[u]):
                g.target[new + i], g.weight[new + i] = g.target[old + i], g.weight[old + i]
            g.offset[u], g.capacity[u] = new, 2 * g.capacity[u]
            g.end[0] += g.capacity[u]
        k = g.offset[u] + g.length[u]
        g.target[k] = v
        g.length[u] += 1
    g.weight[k] = after
    if after == 0:
        last = g.offset[u] + g.length[u] - 1
        g.target[k], g.weight[k] = g.target[last], g.weight[last]
        g.length[u] -= 1
    total = g.weight_sum[u] + after - before
    if g.length[u] <= 1 or total < g.weight_ref[u] / 2:
        rebuild(g, u, alpha)
        return
    g.weight_sum[u] = total
    g.weight_ref[u] = max(g.weight_ref[u], total)
    theta = (after - before) / total
    for f in range(g.X.shape[1]):
        rho = alpha * (g.X[u, f] - g.H[u, f]) + (1 - alpha) * (g.H[v, f] - g.H[u, f])
        g.R[u, f] += theta * (rho - g.R[u, f])


@straight
def push(g: Baseline, head: int, tail: int, alpha: float, epsilon: float) -> int:
    """Until the queue is empty; how many rows moved."""
    moved, room = 0, len(g.queue)
    d = np.empty(g.X.shape[1], np.float32)
    while head != tail:
        u = g.queue[head]
        head = head + 1 if head + 1 < room else 0
        g.queued[u] = 0
        own = 1.0 if g.length[u] == 0 else 0.0
        for k in range(g.offset[u], g.offset[u] + g.length[u]):
            if g.target[k] == u:
                own = g.weight[k] / g.weight_sum[u]
        for f in range(len(d)):
            d[f] = g.R[u, f] / (1 - (1 - alpha) * own)
            g.H[u, f] += d[f]
            g.R[u, f] = 0
        if g.moved_mark[u] == 0:
            g.moved_mark[u] = 1
            g.moved[moved] = u
            moved += 1
        g.counts[0] += 1
        g.counts[1] += g.length[u]
        for k in range(g.offset[u], g.offset[u] + g.length[u]):
            t = g.target[k]
            if t == u:
                continue
            c = np.float32((1 - alpha) * g.weight[k] / g.weight_sum[t])
            m = np.float32(0)
            for f in range(len(d)):
                g.R[t, f] += c * d[f]
                m = max(m, abs(g.R[t, f]))
            if m > epsilon and g.queued[t] == 0:
                g.queued[t] = 1
                g.queue[tail] = t
                tail = tail + 1 if tail + 1 < room else 0
    return moved


@straight
def stream(g: Baseline, u: Any, v: Any, w: Any, size: int, alpha: float, epsilon: float, tau: float) -> None:
    """Edge events in batches: the weight of (u, v) becomes w, 0 removes; repair, push, publish."""
    for start in range(0, len(u), size):
        tail = 0
        for i in range(start, min(start + size, len(u))):
            a, b = u[i], v[i]
            ka, kb = find(g, a, b), find(g, b, a)
            before = g.weight[ka] if ka >= 0 else np.float32(0)
            if before == w[i]:
                continue
            change(g, a, b, ka, np.float64(before), np.float64(w[i]), alpha)
            if a != b:
                change(g, b, a, kb, np.float64(before), np.float64(w[i]), alpha)
            for row in (a, b):
                if g.queued[row] == 0 and largest(g.R[row]) > epsilon:
                    g.queued[row] = 1
                    g.queue[tail] = row
                    tail += 1
        moved = push(g, 0, tail, alpha, epsilon)
        for i in range(moved):
            row = g.moved[i]
            g.moved_mark[row] = 0
            far = np.float32(0)
            for f in range(g.X.shape[1]):
                far = max(far, abs(g.H[row, f] - g.P[row, f]))
            if far > tau:
                g.counts[2] += 1
                for f in range(g.X.shape[1]):
                    g.P[row, f] = g.H[row, f]
