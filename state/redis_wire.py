"""Connections to Redis: commands packed by hand, every failure a StoreError in words.

redis-py's Pipeline is not used, on purpose: while it watches a key it turns a time-out into a WatchError, so
that "outcome unknown" would look like "refused". Its silent retries are off for the same reason.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
from redis import ConnectionPool
from redis import exceptions as redis_errors
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, parse_url
from redis.retry import Retry

from .store import StoreError, StoreFormatError, StoreUnavailableError

Words = Sequence[str | bytes | int]


class Packed(NamedTuple):
    """A command that is in Redis' wire format already."""

    parts: Sequence[bytes | memoryview]
    words: int


Command = Words | Packed

_PATIENCE = 3e-6
"""Seconds more for a transaction to be answered, per word: Redis first works it off and writes its AOF."""

# A checkpoint may have time, and what is served meanwhile needs the cores: in pieces, with rests between them.
PIECE = 64 << 10  # bytes
REST, MOST_REST = 0.01, 1.0  # seconds: after a piece, and of all


class PermissionDeniedError(StoreError):
    """The user may connect but not run this command or touch this key."""


_Errors = tuple[type[redis_errors.RedisError], ...]

_MEANINGS: tuple[tuple[_Errors, type[StoreError], str], ...] = (
    (
        (redis_errors.AuthenticationError,),
        StoreError,
        "Redis at {name} refuses the user name or password ({text}): give the right one",
    ),
    (
        (redis_errors.AuthorizationError, redis_errors.NoPermissionError),
        PermissionDeniedError,
        "Redis at {name} does not permit this user what dgdm needs ({text}): extend its ACL",
    ),
    (
        (redis_errors.InvalidResponse,),
        StoreError,
        "what answers at {name} is not a Redis ({text}): check host and port",
    ),
    (
        (redis_errors.ConnectionError, redis_errors.TimeoutError),
        StoreUnavailableError,
        "Redis at {name} does not answer ({text})",
    ),
    (
        (
            redis_errors.OutOfMemoryError,
            redis_errors.ReadOnlyError,
            redis_errors.ClusterDownError,
            redis_errors.TryAgainError,
        ),
        StoreUnavailableError,
        "Redis at {name} cannot serve this now ({text})",
    ),
)
_PASSING_CODES = ("MISCONF", "BUSY", "NOREPLICAS", "LOADING", "UNBLOCKED", "OOM", "READONLY")
# A full disk, a long script, too few replicas, …: a later attempt may succeed.


@dataclass(frozen=True, slots=True)
class RedisTls:
    """Files of `rediss://`; the server's name and certificate are always verified."""

    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is and how to get in."""

    url: str = field(repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: RedisTls = RedisTls()
    timeout: float = 5.0  # seconds, for connecting and for each reply


class Session:
    """One connection, for as long as a WATCH must live."""

    def __init__(self, connection: AbstractConnection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout

    def call(self, *command: str | bytes | int) -> Any:
        """The reply to one command."""
        return self.batch([command])[0]

    def ask(self, *command: str | bytes | int) -> None:
        """Send a command whose reply is read later, by `answer`."""
        self._connection.send_packed_command(_packed(self._connection, [command]))  # type: ignore[no-untyped-call]

    def answer(self) -> Any:
        """The reply to the oldest command asked that has none yet."""
        return self._connection.read_response(timeout=self._timeout)

    def batch(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to several commands, sent together. Raises the first error after reading all."""
        return _raise_first(self._exchange(commands))

    def transaction(self, commands: Sequence[Command], *, gently: bool = False) -> list[Any] | None:
        """MULTI, the commands, EXEC, sent together or `gently`; None when a watched key has changed."""
        words = sum(command.words if isinstance(command, Packed) else len(command) for command in commands)
        replies = self._exchange([("MULTI",), *commands, ("EXEC",)], words * _PATIENCE, gently=gently)
        done = replies.pop()
        if isinstance(done, redis_errors.ExecAbortError):
            _raise_first(replies)
        _raise_first([done])
        return None if done is None else _raise_first(list(done))

    def _exchange(
        self, commands: Sequence[Command], patience: float = 0.0, *, gently: bool = False
    ) -> list[Any]:
        connection = self._connection
        parts = _packed(connection, commands)
        first, *others = pieces_of(parts) if gently else [parts]
        connection.send_packed_command(first)  # type: ignore[no-untyped-call]
        for piece in others:
            time.sleep(min(REST, MOST_REST / len(others)))
            connection.send_packed_command(piece)  # type: ignore[no-untyped-call]
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(connection.read_response(timeout=self._timeout + patience))
            except redis_errors.ResponseError as error:
                replies.append(error)
        return replies


def pieces_of(parts: Sequence[bytes | memoryview]) -> list[list[bytes | memoryview]]:
    """The same bytes in pieces of at most PIECE."""
    pieces: list[list[bytes | memoryview]] = [[]]
    room = PIECE
    for part in parts:
        for at in range(0, len(part), PIECE):
            bit = part[at : at + PIECE]
            if len(bit) > room:
                pieces.append([])
                room = PIECE
            pieces[-1].append(bit)
            room -= len(bit)
    return pieces


def _packed(connection: AbstractConnection, commands: Sequence[Command]) -> list[bytes | memoryview]:
    parts: list[bytes | memoryview] = []
    words: list[Words] = []
    for command in commands:
        if isinstance(command, Packed):
            parts += [*connection.pack_commands(words), *command.parts]  # type: ignore[no-untyped-call]
            words = []
        else:
            words.append(command)
    return [*parts, *connection.pack_commands(words)]  # type: ignore[no-untyped-call]


def _raise_first(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


class RedisClient:
    """A pool of connections to one Redis. Raises StoreError when the URL makes no sense."""

    def __init__(self, address: RedisAddress) -> None:
        options = _options(address)
        self._secret = options.get("password")
        self.name = _name(options)
        self._timeout = address.timeout
        self._tls = address.url.startswith("rediss:")
        self._closed = False
        self._pool = ConnectionPool(**options)

    def __repr__(self) -> str:
        return f"RedisClient({self.name})"

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A connection of one's own. After any error it is cut, with all it watched or had still to read."""
        if self._closed:
            raise StoreError(f"the store in Redis at {self.name} has been closed")
        connection = None
        try:
            connection = self._pool.get_connection()
            yield Session(connection, self._timeout)
        except redis_errors.RedisError as error:
            if connection is not None:
                connection.disconnect()  # type: ignore[no-untyped-call]
            raise self._explain(error) from error
        except BaseException:
            if connection is not None:
                connection.disconnect()  # type: ignore[no-untyped-call]
            raise
        finally:
            if connection is not None:
                self._pool.release(connection)

    def close(self) -> None:
        """Disconnect; later calls raise StoreError."""
        self._closed = True
        self._pool.disconnect()

    def _explain(self, error: redis_errors.RedisError) -> StoreError:
        text = str(error)[:300]
        if self._secret:
            text = text.replace(self._secret, "***")
        if self._tls and isinstance(error, redis_errors.TimeoutError):
            text += "; does this port speak TLS?"
        kind, sentence = _classify(error, text)
        return kind(sentence.format(name=self.name, text=text))


def _classify(error: redis_errors.RedisError, text: str) -> tuple[type[StoreError], str]:
    """What an error means for dgdm. The order matters: redis-py's classes overlap."""
    if isinstance(error.__context__, ssl.SSLError):
        return StoreError, "no TLS connection to Redis at {name} ({text}): check the certificates"
    for errors, kind, sentence in _MEANINGS:
        if isinstance(error, errors):
            return kind, sentence
    if text.startswith(_PASSING_CODES):
        return StoreUnavailableError, "Redis at {name} cannot serve this now ({text})"
    if text.startswith("WRONGTYPE"):
        return StoreFormatError, "something else uses this graph's keys in Redis at {name} ({text})"
    return StoreError, "Redis at {name} refuses a command ({text})"


def _options(address: RedisAddress) -> dict[str, Any]:
    try:
        # redis-py takes a database that is no number for 0: another graph's data, silently.
        database = "" if address.url.startswith("unix:") else urlsplit(address.url).path.strip("/")
        options: dict[str, Any] = {"db": int(database or 0), **parse_url(address.url)}  # type: ignore[no-untyped-call]
    except ValueError:
        shown = address.url.rpartition("@")[2]
        raise StoreError(
            f"cannot read the store address {shown!r}: write redis://host:port/0 or unix:///path"
        ) from None
    if address.username is not None:
        options["username"] = address.username
    if address.password is not None:
        options["password"] = address.password
    if address.url.startswith("rediss:"):
        tls = {"ssl_ca_certs": address.tls.cafile, "ssl_certfile": address.tls.certfile}
        options |= {**tls, "ssl_keyfile": address.tls.keyfile}
    else:
        # Over TLS redis-py must introduce itself, or it would take a session ticket for a stray reply.
        options["driver_info"] = None
    return options | {
        "socket_timeout": address.timeout,
        "socket_connect_timeout": address.timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "max_connections": 64,
    }


def _name(options: dict[str, Any]) -> str:
    place = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    return f"{place}/{options['db']}"


def require_hashes(session: Session, keys: list[str]) -> None:
    """EXEC does not roll back: a key of another type must be found before, not in, the transaction."""
    for key, kind in zip(keys, session.batch([("TYPE", key) for key in keys]), strict=True):
        if kind not in (b"hash", b"none"):
            raise StoreFormatError(
                f"{key} is a {kind.decode()}, not a hash: something else uses this graph's keys"
            )


def parse_info(reply: bytes) -> dict[str, str]:
    """The lines of INFO."""
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines())
    return {name: value.strip() for name, _, value in lines}


def unpack_lease(data: bytes) -> tuple[str, str]:
    """Token and state."""
    try:
        return msgspec.msgpack.decode(data, type=tuple[str, str])
    except msgspec.DecodeError as error:
        raise StoreFormatError(
            "the stored lease cannot be read: something else uses this graph's keys"
        ) from error
