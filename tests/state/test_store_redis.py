"""What only a server can do to a store: die, freeze, tear a reply, evict, refuse a password.

These run on Redis alone: SQLite has no server, no connection and no password.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from stores import RedisProcess, TearingProxy, changes, contents, poll_until, running_redis, some_meta

from dgdm.state import open_store
from dgdm.state.redis_layout import scan_hash
from dgdm.state.store import (
    GraphStore,
    Owner,
    StoreConflictError,
    StoreError,
    StoreFormatError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "correct-horse-battery"
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

    def freeze_first(session: Session, commands: object) -> object:
        fragile.freeze()
        return transaction(session, commands)  # type: ignore[arg-type]

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

    monkeypatch.setattr(redis_store, "_parse_info", lambda _: {"redis_version": "5.0.14"})
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


def test_a_field_that_hscan_repeats_is_given_once() -> None:
    replies = iter(
        [
            (b"7", [b"a", b"1", b"b", b"2"]),
            (b"3", [b"b", b"2", b"c", b"3", b"c", b"3"]),
            (b"9", []),
            (b"4", [b"a", b"1"]),
            (b"0", [b"d", b"4"]),
        ]
    )
    found = list(scan_hash(lambda *_: next(replies), "key", 10))
    assert found == [([b"a", b"b"], [b"1", b"2"]), ([b"c"], [b"3"]), ([b"d"], [b"4"])]


# Getting in. No message may hold the secret.


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisProcess]:
    with running_redis("--requirepass", SECRET) as server:
        yield server


def refusal(url: str, **options: str) -> StoreError:
    store = open_store(url, "g", timeout=2, **options)
    assert SECRET not in repr(store)
    with pytest.raises(StoreError) as refused:
        store.owner()
    store.close()
    chain: BaseException | None = refused.value
    while chain is not None:
        assert SECRET not in str(chain) + repr(chain)
        chain = chain.__cause__ or chain.__context__
    return refused.value


def test_a_password_is_accepted_from_the_url_and_beside_it(guarded: RedisProcess) -> None:
    for store in (
        open_store(f"redis://:{SECRET}@127.0.0.1:{guarded.port}", "g"),
        open_store(f"redis://:wrong@127.0.0.1:{guarded.port}/1", "g", password=SECRET),
        open_store(guarded.url, "g", username="default", password=SECRET),
    ):
        assert store.owner() is None
        assert SECRET not in repr(store) + repr(vars(store)["_client"])
        store.close()


def test_a_wrong_or_missing_password_is_said_in_words(
    guarded: RedisProcess, redis_server: RedisProcess
) -> None:
    for error in (
        refusal(guarded.url, password=SECRET + "x"),
        refusal(f"redis://:{SECRET}x@127.0.0.1:{guarded.port}"),
        refusal(guarded.url),
        refusal(redis_server.url, username="nobody", password=SECRET),
    ):
        assert not isinstance(error, StoreUnavailableError)
        assert "user name or password" in str(error)


def test_a_user_without_permission_is_told_which(fragile: RedisProcess, store: GraphStore) -> None:
    fragile.command("ACL", "SETUSER", "reader", "on", f">{SECRET}", "~*", "+@read", "+watch", "-@dangerous")
    reader = open_store(fragile.url, "g", username="reader", password=SECRET)
    assert reader.owner() == Owner("A", 1)
    assert reader.lookup(["a"])["a"].tolist() == [1, 1, 1]
    with pytest.raises(StoreError, match=r"does not permit this user .*(hset|multi)") as refused:
        reader.commit(Owner("A", 2), SECOND)
    assert SECRET not in str(refused.value)
    assert store.owner() == Owner("A", 1)
    (finding,) = reader.check()
    assert not finding.fatal
    assert "unchecked" in finding.message
    reader.close()


def answer_once(server: socket.socket, reply: bytes) -> None:
    """Answer the first words of one client, and put them in the reply's place for them."""
    connection, _ = server.accept()
    received = connection.recv(1 << 16)
    connection.sendall(reply.replace(b"RECEIVED", b" ".join(received.split())))
    connection.close()


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not a Redis"),
        (b"-ERR unknown command RECEIVED\r\n", r"refuses a command \(unknown command .*AUTH .* \*\*\*"),
    ],
)
def test_what_is_not_a_redis_is_said_so(reply: bytes, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer_once, args=(server, reply))
        thread.start()
        store = open_store(f"redis://127.0.0.1:{server.getsockname()[1]}", "g", password=SECRET)
        with pytest.raises(StoreError, match=said) as refused:
            store.owner()
        store.close()
        thread.join()
    assert SECRET not in str(refused.value)


def test_tls_to_a_plain_port_is_said_so(redis_server: RedisProcess) -> None:
    error = refusal(f"rediss://127.0.0.1:{redis_server.port}")
    assert "does this port speak TLS?" in str(error)


def test_a_failing_redis_is_asked_once() -> None:
    # Silent retries would repeat a write whose outcome is unknown, and keep the caller waiting.
    connections = 0

    def hang_up(server: socket.socket) -> None:
        nonlocal connections
        while True:
            connection, _ = server.accept()
            with connection:
                if not connection.recv(1 << 16):
                    return
                connections += 1

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=hang_up, args=(server,))
        thread.start()
        error = refusal(f"redis://127.0.0.1:{server.getsockname()[1]}")
        socket.create_connection(server.getsockname()).close()
        thread.join()
    assert isinstance(error, StoreUnavailableError)
    assert connections == 1


def test_nobody_there_is_unavailable(fragile: RedisProcess) -> None:
    fragile.kill()
    assert isinstance(refusal(fragile.url), StoreUnavailableError)
    assert isinstance(refusal(fragile.tcp_url), StoreUnavailableError)


def test_tls_is_verified(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate for Redis with")
    certificate, key = tmp_path / "redis.crt", tmp_path / "redis.key"
    arguments = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    arguments += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([openssl, *arguments, *files], check=True, capture_output=True)
    options = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running_redis("--tls-port", str(port), *options, "--tls-ca-cert-file", str(certificate)):
        store = open_store(f"rediss://127.0.0.1:{port}", "g", cafile=str(certificate))
        assert store.owner() is None
        store.close()
        error = refusal(f"rediss://127.0.0.1:{port}")
        assert "certificate" in str(error).lower()
        assert not isinstance(error, StoreUnavailableError)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"redis://:{SECRET}@host:port/0", "cannot read the store address 'host:port/0'"),
        (f"redis://:{SECRET}@host/zero", "cannot read"),
        (f"http://:{SECRET}@host", "scheme 'http'"),
        ("redis", "scheme 'redis'"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///directory/", "names no file"),
    ],
)
def test_an_address_that_cannot_be_is_refused(url: str, said: str) -> None:
    with pytest.raises(StoreError, match=said) as refused:
        open_store(url, "g")
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize("graph", ["", "a{b", "a b", "ä", "x" * 129, "a:b\n"])
def test_a_graph_name_that_cannot_be_is_refused(graph: str) -> None:
    with pytest.raises(StoreError, match="graph name"):
        open_store("redis://localhost", graph)


def test_vectors_are_where_the_documentation_says(fragile: RedisProcess, store: GraphStore) -> None:
    # Others read this layout with two HGETs: it is a contract.
    generation = fragile.command("HGET", "{dgdm:g}:meta", "generation").split(b"\r\n")[1].decode()
    bucket = 0xE8B7BE43 % 256  # crc32 of "a"
    row = fragile.command("HGET", f"{{dgdm:g}}:{generation}:ids:{bucket}", "a").split(b"\r\n", 1)[1][:4]
    assert row == b"\0\0\0\0"
    vector = fragile.command("HGET", f"{{dgdm:g}}:{generation}:vectors:0", row).split(b"\r\n", 1)[1][:12]
    assert vector == np.ones(3, "<f4").tobytes()
