"""What reader, writer and admin calls share: settings, one translation of errors, a close that ends."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from aiokafka import errors
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.helpers import create_ssl_context

from .interface import (
    LogError,
    LogUnavailableError,
    NotAuthorizedError,
    OffsetOutOfRangeError,
    ProducerFencedError,
    RecordRejectedError,
    UnknownTopicError,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

    from aiokafka.client import AIOKafkaClient

    from .security import KafkaSecurity

CLOSE_TIMEOUT = 5.0  # seconds for a close in good order
_ABORT_TIMEOUT = 1.0

_WRONG_PASSWORD = (
    errors.SaslAuthenticationFailed,
    errors.AuthenticationFailedError,
    errors.AuthenticationMethodNotSupported,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
    errors.SecurityDisabled,
)
# The last two: the coordinator has forgotten the transactional id, or ended the transaction itself.
_FENCED = (
    errors.ProducerFenced,
    errors.InvalidProducerEpoch,
    errors.InvalidProducerIdMapping,
    errors.InvalidTxnState,
)
_REJECTED = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.InvalidTimestampError,
    errors.PolicyViolationError,
)
_NO_PERMISSION = {
    errors.TopicAuthorizationFailedError: "the topic",
    errors.GroupAuthorizationFailedError: "the consumer group",
    errors.ClusterAuthorizationFailedError: "the cluster",
    errors.TransactionalIdAuthorizationFailed: "the transactional id",
}


@dataclass(frozen=True)
class KafkaConnection:
    """Where the cluster is and how long to wait for it, in seconds."""

    bootstrap: str  # host:port[,host:port]
    security: KafkaSecurity
    request_timeout: float
    delivery_timeout: float  # how long a write is retried before its outcome counts as unknown
    silence: float  # how long a reader waits for any answer before it says that there is none

    @cached_property
    def authentication(self) -> dict[str, Any]:
        """Keyword arguments of aiokafka. Raises LogError for a certificate that cannot be read."""
        security = self.security
        options: dict[str, Any] = {"security_protocol": security.protocol}
        if security.tls:
            try:
                options["ssl_context"] = create_ssl_context(
                    cafile=security.cafile, certfile=security.certfile, keyfile=security.keyfile
                )
            except (OSError, ssl.SSLError) as exc:
                files = [name for name in (security.cafile, security.certfile, security.keyfile) if name]
                raise LogError(f"cannot read the certificates {', '.join(files)}: {exc}") from exc
        if security.sasl:
            options["sasl_mechanism"] = security.sasl_mechanism
            options["sasl_plain_username"] = security.username
            options["sasl_plain_password"] = security.password
        return options

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of every aiokafka client."""
        return {
            "bootstrap_servers": self.bootstrap,
            "client_id": "dgdm",
            "request_timeout_ms": int(self.request_timeout * 1000),
            **self.authentication,
        }

    async def diagnose(self) -> LogError:
        """Why no broker would have us: aiokafka tries all and says only that it failed."""
        reasons = []
        for host, port, _ in collect_hosts(self.bootstrap):
            try:
                conn = await create_conn(
                    host,
                    port,
                    client_id="dgdm",
                    request_timeout_ms=int(self.request_timeout * 1000),
                    **self.authentication,
                )
            except errors.KafkaError as exc:
                found = log_error(exc, f"connecting to {host}:{port}")
                if not isinstance(found, LogUnavailableError):
                    return found
                reasons.append(f"{host}:{port} closed the connection (does it expect TLS or a password?)")
            except TimeoutError:
                reasons.append(f"{host}:{port} does not answer")
            except ssl.SSLError as exc:
                reasons.append(f"{host}:{port}: TLS failed ({exc.reason or exc})")
            except OSError as exc:
                reasons.append(f"{host}:{port}: {_plain(exc)}")
            else:
                await conn.close()
                reasons.append(f"{host}:{port} accepts connections but not requests yet")
        return LogUnavailableError("no Kafka broker to talk to: " + "; ".join(sorted(reasons)))


def _plain(exc: OSError) -> str:
    """Connection refused, Name or service not known, …: asyncio's own text hides the words."""
    if exc.errno is None or isinstance(exc, socket.gaierror):
        return str(exc.strerror or exc)
    return os.strerror(exc.errno)


def log_error(exc: BaseException, doing: str) -> LogError:
    """The interface's error for one of aiokafka's, which may be hidden behind a general one."""
    link: BaseException | None = exc
    while link is not None:
        if isinstance(link, LogError):
            return link
        if (known := _known(link, doing)) is not None:
            return known
        link = link.__cause__
    if isinstance(exc, TimeoutError):
        return LogUnavailableError(f"{doing}: no answer in time")
    return LogUnavailableError(f"{doing}: {exc or type(exc).__name__}")


def _known(exc: BaseException, doing: str) -> LogError | None:  # noqa: PLR0911 - a table, read from top to bottom
    if isinstance(exc, _WRONG_PASSWORD):
        return NotAuthorizedError(
            f"{doing}: the broker refuses this user, password or SASL mechanism ({type(exc).__name__})"
        )
    for kind, what in _NO_PERMISSION.items():
        if isinstance(exc, kind):
            named = f": {', '.join(map(str, _names(exc)))}" if exc.args else ""
            return NotAuthorizedError(f"{doing}: this user has no permission on {what}{named}")
    if isinstance(exc, _FENCED):
        return ProducerFencedError(
            f"{doing}: a later writer with this transactional id has started, or the transaction timed out"
        )
    if isinstance(exc, errors.UnknownTopicOrPartitionError | errors.InvalidTopicError):
        return UnknownTopicError(f"{doing}: there is no such topic")
    if isinstance(exc, errors.OffsetOutOfRangeError):
        places = exc.args[0] if exc.args and isinstance(exc.args[0], dict) else {}
        where = ", ".join(f"offset {offset} of partition {tp.partition}" for tp, offset in places.items())
        return OffsetOutOfRangeError(f"{doing}: {where or 'the position'} is outside what the log holds")
    if isinstance(exc, _REJECTED):
        return RecordRejectedError(f"{doing}: the broker refuses a record ({type(exc).__name__})")
    if isinstance(exc, errors.InvalidTransactionTimeout):
        return LogError(
            f"{doing}: the transaction time-out is above the broker's transaction.max.timeout.ms: raise that, or "
            "lower checkpoint_interval"
        )
    return None


def _names(exc: BaseException) -> Sequence[object]:
    (first, *_) = exc.args
    return sorted(first) if isinstance(first, set) else [first]


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Let only the interface's errors out."""
    try:
        yield
    except (
        errors.KafkaError,
        errors.IllegalOperation,
        errors.ConsumerStoppedError,
        AssertionError,  # aiokafka asserts that a broker is known
        OSError,
        TimeoutError,
    ) as exc:
        raise log_error(exc, doing) from exc


async def shut_down(
    stop: Coroutine[Any, Any, None], owners: Sequence[object], client: AIOKafkaClient
) -> None:
    """Stop an aiokafka object within a bound, whatever the broker does, and leave no task or socket behind.

    aiokafka's own `stop` waits for ever for a broker that is gone, and may raise the cancellation of its own
    tasks; so it runs in a task, what is left afterwards is cancelled, and the connections are aborted.
    """
    stopping = asyncio.create_task(stop)
    await asyncio.wait({stopping}, timeout=CLOSE_TIMEOUT)
    transports = [conn._writer.transport for conn in client._conns.values() if conn._writer is not None]  # noqa: SLF001 - no public way
    await _end({stopping, *_tasks_of(owners)})
    closing = asyncio.create_task(client.close())
    await asyncio.wait({closing}, timeout=_ABORT_TIMEOUT)
    for transport in transports:
        transport.abort()
    await _end({closing, *_tasks_of([*owners, client])})


async def uncut(opening: Coroutine[Any, Any, None]) -> None:
    """To its end, also when cancelled meanwhile: aiokafka forgets a connection that is being opened then.

    Within a bound: who cancels is not kept waiting for a broker that does not answer.
    """
    task = asyncio.create_task(opening)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=CLOSE_TIMEOUT)
        await _end({task})
        raise


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    done, _ = await asyncio.wait(tasks, timeout=_ABORT_TIMEOUT)
    for task in done:
        if not task.cancelled():
            task.exception()  # seen: nobody else will look at it


def _tasks_of(owners: Sequence[object]) -> set[asyncio.Task[Any]]:
    """Unfinished tasks that run a method of these objects: aiokafka keeps its own in local variables."""
    found = set()
    for task in asyncio.all_tasks():
        frame = getattr(task.get_coro(), "cr_frame", None)
        if frame is not None and any(frame.f_locals.get("self") is owner for owner in owners):
            found.add(task)
    return found


class _NoSecrets(logging.Filter):
    """aiokafka logs every request at DEBUG level, the one with the password too."""

    def filter(self, record: logging.LogRecord) -> bool:
        args = record.args if isinstance(record.args, tuple) else ()
        return not any(type(arg).__name__.startswith("SaslAuthenticate") for arg in args)


logging.getLogger("aiokafka.conn").addFilter(_NoSecrets())
