"""The lease: who serves a graph now. For liveness only; safety rests on the two fences of `Checkpoint`."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

from .store import GraphStore, LeaseInfo, StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

TTL = 3.0
"""Seconds a lease lives without being renewed."""


class LeaseKeeper:
    """Renews a lease every TTL/3 from its own thread and connection, whatever its owner is doing.

    `connect` opens a store for this keeper alone, with a time-out of at most TTL/3; the keeper closes it.
    Losing the lease stops nobody: the keeper goes on asking and takes it back when it is free.
    `on_change(held)` is called in the keeper's thread when `held` changes before `close`. `problem` is the
    last failure in words, or None.
    """

    def __init__(
        self,
        connect: Callable[[], GraphStore],
        token: str,
        state: str,
        ttl: float = TTL,
        on_change: Callable[[bool], None] | None = None,
    ) -> None:
        self._connect = connect
        self._token = token
        self._state = state
        self._ttl = ttl
        self._on_change = on_change or (lambda _: None)
        self._held_until = 0.0
        self._was_held = False
        self._closing = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dgdm-lease", daemon=True)
        self.problem: str | None = None

    def start(self) -> Self:
        """Begin to renew. Raises StoreError when `connect` does."""
        self._store = self._connect()
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop renewing and give the lease up; may be called twice."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def held(self) -> bool:
        """The lease was ours at the last answer, and has not run out since."""
        return time.monotonic() < self._held_until

    @property
    def state(self) -> str:
        """The worker's state as others read it; setting it publishes it at once."""
        return self._state

    @state.setter
    def state(self, state: str) -> None:
        self._state = state
        self._wake.set()

    def _run(self) -> None:
        store = self._store
        try:
            while not self._closing:
                self._renew(store)
                self._wake.wait(self._ttl / 3)
                self._wake.clear()
            self._held_until = 0.0
            self._release(store)
        finally:
            store.close()

    def _renew(self, store: GraphStore) -> None:
        asked = (
            time.monotonic()
        )  # before the store sets its own clock: never believe in it for longer than others
        try:
            held = store.hold(self._token, self._state, self._ttl)
        except StoreError as error:
            self.problem = str(error)
        else:
            self.problem = None if held else "another worker holds the lease"
            self._held_until = asked + self._ttl if held else 0.0
        if self.held != self._was_held:
            self._was_held = self.held
            self._on_change(self._was_held)

    def _release(self, store: GraphStore) -> None:
        try:
            store.release(self._token)
        except StoreError as error:
            self.problem = str(error)  # it runs out by itself


def wait_for_lease(
    store: GraphStore,
    token: str,
    ttl: float = TTL,
    *,
    state: str = "RESTORING",
    ready: threading.Event | None = None,
    stop: threading.Event | None = None,
    on_wait: Callable[[LeaseInfo | None, str | None], None] | None = None,
) -> bool:
    """Wait until the lease is ours: True; False when `stop` was set first.

    Until `ready` is set it is only watched, so that who takes long to get ready has waited already. It is not
    taken before one full TTL after the store first answered, or answered again: a store that was
    away may have lost the lease of an owner that is alive and about to renew it. `on_wait(holder, problem)`
    is called when the holder or the trouble changes. Raises StoreError for what waiting cannot heal.
    """
    stop = stop or threading.Event()
    tell = on_wait or (lambda _holder, _problem: None)
    answered: float | None = None
    told: tuple[str | None, str | None] = ("", "")
    while not stop.is_set():
        holder: LeaseInfo | None = None
        problem: str | None = None
        asked = time.monotonic()
        try:
            holder = store.lease()
            now = time.monotonic()
            # A slow answer counts as an absence: in the time of a long commit nobody could renew.
            answered = now if answered is None or now - asked > ttl / 3 else answered
            free = holder is None or holder.token == token
            due = now - answered >= ttl and (ready is None or ready.is_set())
            if free and due and store.hold(token, state, ttl):
                return True
        except StoreUnavailableError as error:
            answered = None
            problem = str(error)
        if told != (holder.token if holder else None, problem):
            told = (holder.token if holder else None, problem)
            tell(holder, problem)
        stop.wait(ttl / 20)
    return False
