"""A worker's states and the steps of its protocols, as data.

RESTORING → SERVING ⇄ PAUSED
every state → STOPPING → CLOSED;  every state but CLOSED → FENCED

A log that fails leaves the graph in memory: SERVING → PAUSED, and back. Who has not served yet begins again:
RESTORING → RESTORING.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class WorkerState(StrEnum):
    """Where a worker is in its life; what the lease shows."""

    RESTORING = "restoring"  # waits for the lease, loads, replays
    SERVING = "serving"  # applies and publishes
    PAUSED = "paused"  # the log is away, or the store is and the changed rows have reached their limit
    STOPPING = "stopping"  # publishes and stores what it has applied
    CLOSED = "closed"
    FENCED = "fenced"  # another worker owns the graph


SUCCESSORS: Final[dict[WorkerState, frozenset[WorkerState]]] = {
    WorkerState.RESTORING: frozenset(
        {WorkerState.RESTORING, WorkerState.SERVING, WorkerState.STOPPING, WorkerState.FENCED}
    ),
    WorkerState.SERVING: frozenset({WorkerState.PAUSED, WorkerState.STOPPING, WorkerState.FENCED}),
    WorkerState.PAUSED: frozenset(
        {WorkerState.PAUSED, WorkerState.SERVING, WorkerState.STOPPING, WorkerState.FENCED}
    ),
    WorkerState.STOPPING: frozenset({WorkerState.CLOSED, WorkerState.FENCED}),
    WorkerState.FENCED: frozenset({WorkerState.CLOSED}),
    WorkerState.CLOSED: frozenset(),
}


class Step(StrEnum):
    """The steps of recovery, of serving and of a commit, each reported before and after it is taken."""

    LEASE = "lease"
    TOKEN = "token"  # noqa: S105 - a step's name
    FENCE = "fence"
    LOAD = "load"
    TAIL = "tail"
    REPLAY = "replay"
    ANNOUNCE = "announce"
    PUSH = "push"
    PUBLISH = "publish"
    BARRIER = "barrier"
    TRANSACTION = "transaction"
    GATHER = "gather"
    STORE = "store"
    GROUP = "group"


def require_successor(old: WorkerState, new: WorkerState) -> None:
    """Raises RuntimeError for a transition the table does not have."""
    if new not in SUCCESSORS[old]:
        raise RuntimeError(f"a worker does not go from {old} to {new}")
