"""Getting into a store: addresses, passwords, permissions, TLS. No message may hold the secret.

SQLite has none of these but the address.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from stores import RedisProcess, changes, running_redis

from dgdm.state import open_store
from dgdm.state.store import Owner, StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "correct-horse-battery"
FIRST = changes(ids={"a": 0}, features={0: [1, 2, 3]}, vectors={0: [1, 1, 1]}, arcs={(0, 0): {0: 1.0}})


@pytest.fixture
def fragile() -> Iterator[RedisProcess]:
    """A redis-server that the test may harm."""
    with running_redis() as server:
        yield server


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


def test_a_user_without_permission_is_told_which(fragile: RedisProcess) -> None:
    store = open_store(fragile.url, "g")
    store.take("A", None)
    store.commit(Owner("A", 1), FIRST)
    fragile.command("ACL", "SETUSER", "reader", "on", f">{SECRET}", "~*", "+@read", "+watch", "-@dangerous")
    reader = open_store(fragile.url, "g", username="reader", password=SECRET)
    assert reader.owner() == Owner("A", 1)
    assert reader.lookup(["a"])["a"].tolist() == [1, 1, 1]
    with pytest.raises(StoreError, match=r"does not permit this user .*(hset|multi)") as refused:
        reader.commit(Owner("A", 2), FIRST)
    assert SECRET not in str(refused.value)
    assert store.owner() == Owner("A", 1)
    (finding,) = reader.check()
    assert not finding.fatal
    assert "unchecked" in finding.message
    reader.close()
    store.close()


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
