"""The lease in both stores, the thread that keeps it, and the standby that waits for it."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from stores import poll_until, running_redis

from dgdm.state import lease as lease_module
from dgdm.state import open_store
from dgdm.state.lease import LeaseKeeper, wait_for_lease
from dgdm.state.store import GraphStore, LeaseInfo, StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHORT = 0.3


@pytest.fixture
def connect(store_url: str) -> Callable[[], GraphStore]:
    return lambda: open_store(store_url, "g", timeout=SHORT / 3)


def test_a_lease_is_held_renewed_refused_and_released(store: GraphStore) -> None:
    assert store.hold("A", "RESTORING", 30)
    assert not store.hold("B", "RESTORING", 30)
    assert store.hold("A", "SERVING", 60)
    held = store.lease()
    assert held is not None
    assert held[:2] == ("A", "SERVING")
    assert 30 < held.remaining <= 60
    store.release("B")
    assert store.lease() is not None
    store.release("A")
    assert store.lease() is None
    store.release("A")
    assert store.hold("B", "RESTORING", 30)


def test_a_lease_runs_out_by_itself(store: GraphStore) -> None:
    assert store.hold("A", "SERVING", 0.1)
    poll_until(lambda: store.lease() is None)
    assert store.hold("B", "SERVING", 30)
    assert not store.hold("A", "SERVING", 30)


def test_a_lease_of_many_takers_goes_to_one(store: GraphStore) -> None:
    for turn in range(20):
        start = threading.Barrier(4)

        def attempt(token: str, start: threading.Barrier = start) -> bool:
            start.wait()
            return store.hold(token, "RESTORING", 30)

        with ThreadPoolExecutor(4) as pool:
            wins = list(pool.map(attempt, [f"{turn}-{number}" for number in range(4)]))
        assert wins.count(True) == 1
        held = store.lease()
        assert held is not None
        assert held.token == f"{turn}-{wins.index(True)}"
        store.release(held.token)


def test_a_clock_set_back_does_not_make_a_lease_eternal(tmp_path: Path) -> None:
    # SQLite only: Redis counts a lease down on its own clock.
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}", "g")
    assert store.hold("A", "SERVING", 30)
    with sqlite3.connect(tmp_path / "store.db-lease") as db:
        db.execute("UPDATE leases SET expires = expires + 3600")
    db.close()
    assert store.lease() is None
    assert store.hold("B", "SERVING", 30)
    store.close()


def test_a_long_commit_does_not_keep_the_lease_from_renewal(tmp_path: Path) -> None:
    # SQLite only: one writer at a time holds the file; the lease has one of its own.
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}", "g", timeout=0.1)
    store.take("A", None)
    writer = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="locked"):
        store.take("B", store.owner())
    assert store.hold("A", "SERVING", 30)
    writer.close()
    store.close()


# The keeper.


def state_of(store: GraphStore) -> str | None:
    held = store.lease()
    return held.state if held else None


def test_the_keeper_outlives_many_ttls_publishes_its_state_and_gives_up_at_the_end(
    store: GraphStore, connect: Callable[[], GraphStore]
) -> None:
    changed: list[bool] = []
    with LeaseKeeper(connect, "A", "RESTORING", SHORT, changed.append) as keeper:
        poll_until(lambda: state_of(store) == "RESTORING" and keeper.held)
        for state in ("SERVING", "PAUSED", "SERVING"):
            keeper.state = state
            poll_until(lambda state=state: state_of(store) == state)
        waiting = threading.Event()
        for _ in range(30):  # three TTLs, in which another never gets it
            assert not store.hold("B", "RESTORING", SHORT)
            waiting.wait(SHORT / 10)
    assert store.lease() is None
    assert not keeper.held
    keeper.close()
    assert changed == [True]


def test_a_keeper_that_lost_its_lease_takes_it_back_when_free(
    store: GraphStore, connect: Callable[[], GraphStore]
) -> None:
    changed: list[bool] = []
    with LeaseKeeper(connect, "A", "RESTORING", 100.0, changed.append) as keeper:
        poll_until(lambda: keeper.held)
        store.release("A")  # as if it had run out while the owner was frozen
        assert store.hold("B", "RESTORING", 60)
        keeper.state = "PAUSED"
        poll_until(lambda: not keeper.held)
        poll_until(lambda: keeper.problem == "another worker holds the lease")
        poll_until(lambda: changed == [True, False])
        store.release("B")
        keeper.state = "SERVING"
        poll_until(lambda: keeper.held)
        assert state_of(store) == "SERVING"
        poll_until(lambda: keeper.problem is None)
    assert changed == [True, False, True]


def test_a_keeper_survives_the_death_of_its_store() -> None:
    # Redis only: SQLite has no server that dies.
    with running_redis() as server:
        with LeaseKeeper(lambda: open_store(server.url, "g", timeout=0.1), "A", "SERVING", SHORT) as keeper:
            poll_until(lambda: keeper.held)
            server.kill()
            poll_until(lambda: not keeper.held)
            poll_until(lambda: "does not answer" in (keeper.problem or ""))
            server.start()
            poll_until(lambda: keeper.held)
            server.freeze()
            poll_until(lambda: not keeper.held)
            server.thaw()
            poll_until(lambda: keeper.held)
            server.kill()
        assert "does not answer" in (keeper.problem or "")


# The standby, on a clock of its own: no test here waits for a real TTL.


class Clock:
    """Time passes only in `wait`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Later(threading.Event):
    """Set from a moment on."""

    def __init__(self, clock: Clock, at: float) -> None:
        super().__init__()
        self._clock, self._at = clock, at

    def is_set(self) -> bool:
        return self._clock.now >= self._at


class Waiting(threading.Event):
    """A stop event whose wait moves the clock; it is set after `limit` seconds."""

    def __init__(self, clock: Clock, limit: float) -> None:
        super().__init__()
        self._clock = clock
        self._end = clock.now + limit

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self._clock.now += timeout
        if self._clock.now >= self._end:
            self.set()
        return self.is_set()


class Script:
    """The part of a store that a standby sees; `away`, `held` and `slow` are spans of the clock."""

    def __init__(
        self,
        clock: Clock,
        *,
        away: tuple[float, float] = (0, 0),
        held: tuple[float, float] = (0, 0),
        slow: tuple[float, float] = (0, 0),
    ) -> None:
        self._clock = clock
        self._away = away
        self._held = held
        self._slow = slow
        self.taken_at: float | None = None

    def lease(self) -> LeaseInfo | None:
        if self._away[0] <= self._clock.now < self._away[1]:
            raise StoreUnavailableError("away")
        if self._slow[0] <= self._clock.now < self._slow[1]:
            self._clock.now = self._slow[1]
        return LeaseInfo("B", "SERVING", 1.0) if self._held[0] <= self._clock.now < self._held[1] else None

    def hold(self, token: str, state: str, ttl: float) -> bool:
        assert (token, state, ttl) == ("A", "RESTORING", 3.0)
        self.taken_at = self._clock.now
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lease_module, "time", clock)
    return clock


def taken_at(clock: Clock, script: Script, limit: float = 60) -> float | None:
    taken = wait_for_lease(script, "A", 3.0, stop=Waiting(clock, limit))  # type: ignore[arg-type]
    assert taken == (script.taken_at is not None)
    return script.taken_at


def test_a_free_lease_is_taken_one_ttl_after_the_first_answer(clock: Clock) -> None:
    assert taken_at(clock, Script(clock)) == pytest.approx(103, abs=0.2)


def test_a_store_that_was_away_is_given_a_whole_ttl_again(clock: Clock) -> None:
    assert taken_at(clock, Script(clock, away=(0, 110))) == pytest.approx(113, abs=0.2)
    clock.now = 100
    assert taken_at(clock, Script(clock, away=(102.5, 110))) == pytest.approx(113, abs=0.2)


def test_a_store_that_answers_slowly_is_given_a_whole_ttl_again(clock: Clock) -> None:
    assert taken_at(clock, Script(clock, slow=(102, 104))) == pytest.approx(107, abs=0.2)


def test_a_held_lease_is_taken_as_soon_as_it_is_free(clock: Clock) -> None:
    assert taken_at(clock, Script(clock, held=(0, 120))) == pytest.approx(120, abs=0.2)


def test_who_gets_ready_late_has_waited_already(clock: Clock) -> None:
    for ready, taken in ((101, 103), (120, 120)):
        clock.now, script = 100, Script(clock)
        stop = Waiting(clock, 60)
        assert wait_for_lease(script, "A", 3.0, ready=Later(clock, ready), stop=stop)  # type: ignore[arg-type]
        assert script.taken_at == pytest.approx(taken, abs=0.2)


def test_a_lease_never_free_is_waited_for_until_stopped(clock: Clock) -> None:
    assert taken_at(clock, Script(clock, held=(0, 1e9)), limit=30) is None


def test_waiting_tells_each_change_once(clock: Clock) -> None:
    told: list[tuple[str | None, str | None]] = []
    script = Script(clock, away=(0, 105), held=(0, 120))
    wait_for_lease(
        script,  # type: ignore[arg-type]
        "A",
        3.0,
        stop=Waiting(clock, 60),
        on_wait=lambda holder, problem: told.append((holder.token if holder else None, problem)),
    )
    assert told == [(None, "away"), ("B", None)]


def test_a_standby_takes_over_from_a_dead_keeper(
    store: GraphStore, connect: Callable[[], GraphStore]
) -> None:
    keeper = LeaseKeeper(connect, "A", "SERVING", SHORT).start()
    poll_until(lambda: keeper.held)
    stop = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        standby = pool.submit(wait_for_lease, store, "B", SHORT)
        stopped = pool.submit(wait_for_lease, store, "C", 60.0, stop=stop)
        keeper.close()
        assert standby.result(20)
        stop.set()
        assert not stopped.result(20)


def test_what_waiting_cannot_heal_is_raised(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'none' / 'store.db'}", "g")
    with pytest.raises(StoreError, match="directory must exist"):
        wait_for_lease(store, "A", SHORT)
    store.close()
