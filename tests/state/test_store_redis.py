"""What only a server can do to a store: die, freeze, tear a reply, evict, refuse a password.

These run on Redis alone: SQLite has no server, no connection and no password.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from stores import RedisProcess, TearingProxy, changes, contents, poll_until, running_redis, some_meta

from dgdm.state import open_store, redis_wire
from dgdm.state.redis_layout import scan_hashes
from dgdm.state.store import (
    GraphStore,
    Owner,
    StoreConflictError,
    StoreFormatError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


FIRST = changes(ids={"a": 0}, features={0: [1, 2, 3]}, vectors={0: [1, 1, 1]}, arcs={(0, 0): {0: 1.0}})
SECOND = changes(some_meta(event_sequence=2), features={1: [4, 5, 6]})


@pytest.fixture
def fragile() -> Iterator[RedisProcess]:
    """A redis-server that the test may harm."""
    with running_redis() as server:
        yield server


@pytest.fixture
def store(fragile: RedisProcess) -> Iterator[GraphStore]:
    opened = open_store(fragile.url, "g", timeout=0.5)
    opened.take("A", None)
    opened.commit(Owner("A", 1), FIRST)
    yield opened
    opened.close()


def answers(store: GraphStore) -> bool:
    try:
        store.owner()
    except StoreUnavailableError:
        return False
    return True


def test_a_killed_redis_keeps_every_acknowledged_commit(fragile: RedisProcess, store: GraphStore) -> None:
    acknowledged = 1

    def commit_for_ever() -> None:
        nonlocal acknowledged
        while True:
            number = acknowledged + 1
            rows = {row: [float(number)] * 3 for row in range(200)}
            store.commit(Owner("A", number), changes(some_meta(event_sequence=number), features=rows))
            acknowledged = number

    killer = threading.Timer(0.3, fragile.kill)
    killer.start()
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        commit_for_ever()
    killer.join()
    with pytest.raises(StoreUnavailableError):
        store.owner()
    fragile.start()
    owner = store.owner()
    assert owner is not None
    assert owner.sequence in (acknowledged, acknowledged + 1)
    assert contents(store)["features"][7] == [float(owner.sequence)] * 3
    store.commit(Owner("A", owner.sequence + 1), SECOND)


def test_only_a_gentle_commit_rests_between_its_pieces(
    store: GraphStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    monkeypatch.setattr(redis_wire.time, "sleep", rests.append)
    rows = {row: [float(row)] * 3 for row in range(20_000)}
    for number, gently in ((2, False), (3, True)):
        assert not rests, "a backlog waits for it"
        change = changes(some_meta(event_sequence=number), features=rows)
        store.commit(Owner("A", number), change, gently=gently)
        assert contents(store)["features"] == rows
    assert len(rests) >= change.nbytes // redis_wire.PIECE
    assert sum(rests) <= redis_wire.MOST_REST


def test_a_frozen_redis_is_unavailable_and_later_goes_on(fragile: RedisProcess, store: GraphStore) -> None:
    fragile.freeze()
    for attempt in (
        store.owner,
        lambda: store.commit(Owner("A", 2), SECOND),
        lambda: store.lookup(["a"]),
        lambda: store.hold("A", "SERVING", 3),
        lambda: contents(store),
        store.check,
    ):
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            attempt()
    fragile.thaw()
    poll_until(lambda: answers(store))
    # What the frozen server had in its socket is only the question, never the write: WATCH had no answer yet.
    assert store.owner() == Owner("A", 1)
    store.commit(Owner("A", 2), SECOND)
    assert store.owner() == Owner("A", 2)


def test_redis_frozen_after_the_watch_leaves_the_outcome_unknown_not_refused(
    fragile: RedisProcess, store: GraphStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # redis-py's own pipeline calls this a WatchError, that is: a conflict.
    from dgdm.state.redis_wire import Session

    transaction = Session.transaction

    def freeze_first(session: Session, commands: object, **how: bool) -> object:
        fragile.freeze()
        return transaction(session, commands, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "transaction", freeze_first)
    with pytest.raises(StoreUnavailableError):
        store.commit(Owner("A", 2), SECOND)
    monkeypatch.undo()
    fragile.thaw()
    poll_until(lambda: answers(store))
    assert store.owner() in (Owner("A", 1), Owner("A", 2))


def test_a_torn_reply_is_unknown_and_the_sequence_tells(fragile: RedisProcess, store: GraphStore) -> None:
    proxy = TearingProxy(fragile.port, mark=b"+QUEUED")
    try:
        torn = open_store(f"redis://127.0.0.1:{proxy.port}", "g", timeout=5)
        assert torn.owner() == Owner("A", 1)
        proxy.tear()
        with pytest.raises(StoreUnavailableError):
            torn.commit(Owner("A", 2), SECOND)
        assert proxy.torn.is_set()
        poll_until(lambda: store.owner() == Owner("A", 2))
        assert torn.owner() == Owner("A", 2)
        with pytest.raises(StoreConflictError) as conflict:
            torn.commit(Owner("A", 2), SECOND)
        assert conflict.value.stored == Owner("A", 2)
        assert contents(torn)["features"] == {0: [1, 2, 3], 1: [4, 5, 6]}
        torn.close()
    finally:
        proxy.close()


def test_a_redis_that_lost_its_disk_is_empty(fragile: RedisProcess, store: GraphStore) -> None:
    fragile.kill()
    fragile.wipe()
    fragile.start()
    assert store.owner() is None
    with pytest.raises(StoreConflictError) as conflict:
        store.commit(Owner("A", 2), SECOND)
    assert conflict.value.stored is None
    store.rewrite(Owner("A", 2), None, [FIRST, SECOND])
    assert contents(store)["features"] == {0: [1, 2, 3], 1: [4, 5, 6]}


def test_a_full_redis_refuses_whole_commits_and_goes_on_with_more_memory(
    fragile: RedisProcess, store: GraphStore
) -> None:
    fragile.command("CONFIG", "SET", "maxmemory", "1mb")
    with pytest.raises(StoreUnavailableError, match="cannot serve this now"):
        store.commit(Owner("A", 2), SECOND)
    assert store.owner() == Owner("A", 1)
    assert contents(store)["features"] == {0: [1, 2, 3]}
    fragile.command("CONFIG", "SET", "maxmemory", "0")
    store.commit(Owner("A", 2), SECOND)


def test_settings_that_lose_rows_are_found(fragile: RedisProcess, store: GraphStore) -> None:
    assert store.check() == []
    fragile.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    fragile.command("CONFIG", "SET", "appendonly", "no")
    evicting, no_aof = store.check()
    assert evicting.fatal
    assert "allkeys-lru" in evicting.message
    assert "set maxmemory-policy noeviction" in evicting.message
    assert not no_aof.fatal
    assert "set appendonly yes" in no_aof.message


def test_a_replica_is_refused(fragile: RedisProcess, store: GraphStore) -> None:
    fragile.command("REPLICAOF", "127.0.0.1", "1")
    (finding,) = store.check()
    assert finding.fatal
    assert "replica" in finding.message
    with pytest.raises(StoreUnavailableError, match="cannot serve this now"):
        store.hold("A", "SERVING", 3)


def test_an_old_redis_is_refused(redis_server: RedisProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    from dgdm.state import redis_store

    monkeypatch.setattr(redis_store, "parse_info", lambda _: {"redis_version": "5.0.14"})
    store = open_store(redis_server.url, "g")
    assert [(finding.fatal, "5.0.14" in finding.message) for finding in store.check()] == [(True, True)]
    store.close()


@pytest.mark.parametrize("key", ["meta", "lease"])
def test_a_key_of_another_type_is_a_foreign_format(
    fragile: RedisProcess, store: GraphStore, key: str
) -> None:
    fragile.command("DEL", f"{{dgdm:g}}:{key}")
    fragile.command("SADD", f"{{dgdm:g}}:{key}", "x")
    attempts = {
        "meta": (store.owner, store.meta, lambda: store.commit(Owner("A", 2), SECOND)),
        "lease": (store.lease, lambda: store.hold("A", "SERVING", 3)),
    }
    for attempt in attempts[key]:
        with pytest.raises(StoreFormatError, match="something else uses this graph's keys"):
            attempt()


def test_a_hash_that_is_not_a_graph_is_refused(fragile: RedisProcess, store: GraphStore) -> None:
    fragile.command("DEL", "{dgdm:g}:meta")
    fragile.command("HSET", "{dgdm:g}:meta", "token", "A", "format", "one")
    with pytest.raises(StoreFormatError, match="not a dgdm graph"):
        store.owner()


def test_a_bucket_of_another_type_refuses_the_commit_before_it_writes(
    fragile: RedisProcess, store: GraphStore
) -> None:
    generation = fragile.command("HGET", "{dgdm:g}:meta", "generation").split(b"\r\n")[1].decode()
    fragile.command("SET", f"{{dgdm:g}}:{generation}:features:1", "x")
    with pytest.raises(StoreFormatError, match=r"features:1 is a string, not a hash"):
        store.commit(Owner("A", 2), changes(features={0: [9, 9, 9], 65536: [1, 1, 1]}))
    assert store.owner() == Owner("A", 1)
    assert contents(store)["features"][0] == [1, 2, 3]


def test_torn_values_are_a_format_error(fragile: RedisProcess, store: GraphStore) -> None:
    generation = fragile.command("HGET", "{dgdm:g}:meta", "generation").split(b"\r\n")[1].decode()
    for kind, field, read in (
        ("features:0", b"\0\0\0\0", store.features),
        ("arcs:0", b"\0\0\0\0\0\0\0\0", store.arcs),
        ("vectors:0", b"12345", store.vectors),
    ):
        fragile.command(
            "HSET", f"{{dgdm:g}}:{generation}:{kind}", field, b"12345678901" + b"2" * (kind[0] == "v")
        )
        with pytest.raises(StoreFormatError):
            list(read())


class Scripted:
    """Answers HSCAN by key and cursor."""

    def __init__(self, replies: dict[tuple[str, Any], Any]) -> None:
        self._replies = replies
        self.asked: list[tuple[str, Any]] = []

    def ask(self, *command: Any) -> None:
        self.asked.append(command[1:3])

    def answer(self) -> Any:
        return self._replies[self.asked.pop(0)]


def test_a_field_that_hscan_repeats_is_given_once() -> None:
    replies = {
        ("first", 0): (b"7", [b"a", b"1", b"b", b"2"]),
        ("first", b"7"): (b"3", [b"b", b"2", b"c", b"3", b"c", b"3"]),
        ("first", b"3"): (b"9", []),
        ("first", b"9"): (b"4", [b"a", b"1"]),
        ("first", b"4"): (b"0", [b"d", b"4"]),
        ("second", b"0"): (b"0", [b"a", b"5"]),
    }
    session: Any = Scripted(replies)
    found = list(scan_hashes(session, ["first", "second"], 10))
    assert found == [([b"a", b"b"], [b"1", b"2"]), ([b"c"], [b"3"]), ([b"d"], [b"4"]), ([b"a"], [b"5"])]
    assert not session.asked
    assert list(scan_hashes(session, [], 10)) == []


def test_the_next_batch_is_asked_for_before_this_one_is_given() -> None:
    session: Any = Scripted({("key", 0): (b"7", [b"a", b"1"]), ("key", b"7"): (b"0", [b"b", b"2"])})
    batches = scan_hashes(session, ["key"], 10)
    next(batches)
    assert session.asked == [("key", b"7")]


def test_vectors_are_where_the_documentation_says(fragile: RedisProcess, store: GraphStore) -> None:
    # Others read this layout with two HGETs: it is a contract.
    generation = fragile.command("HGET", "{dgdm:g}:meta", "generation").split(b"\r\n")[1].decode()
    bucket = 0xE8B7BE43 % 256  # crc32 of "a"
    row = fragile.command("HGET", f"{{dgdm:g}}:{generation}:ids:{bucket}", "a").split(b"\r\n", 1)[1][:4]
    assert row == b"\0\0\0\0"
    vector = fragile.command("HGET", f"{{dgdm:g}}:{generation}:vectors:0", row).split(b"\r\n", 1)[1][:12]
    assert vector == np.ones(3, "<f4").tobytes()
