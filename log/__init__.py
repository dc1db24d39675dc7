"""Logs by address: Kafka, or a SQLite file. Neither implementation is imported before it is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .interface import (
    Isolation,
    Log,
    LogError,
    LogReader,
    LogUnavailableError,
    LogWriter,
    Message,
    NotAuthorizedError,
    OffsetOutOfRangeError,
    ProducerFencedError,
    Record,
    RecordRejectedError,
    TopicInfo,
    TransactionalWriter,
    UnknownTopicError,
    partition_of,
)

if TYPE_CHECKING:
    from .security import KafkaSecurity

__all__ = [
    "Isolation",
    "Log",
    "LogError",
    "LogReader",
    "LogUnavailableError",
    "LogWriter",
    "Message",
    "NotAuthorizedError",
    "OffsetOutOfRangeError",
    "ProducerFencedError",
    "Record",
    "RecordRejectedError",
    "TopicInfo",
    "TransactionalWriter",
    "UnknownTopicError",
    "open_log",
    "partition_of",
]

FORMS = "kafka://host:port[,host:port], sqlite:///relative/path or sqlite:////absolute/path"


def open_log(url: str, security: KafkaSecurity | None = None) -> Log:
    """The log at `url`; nothing connects before the first call.

    `kafka://host:port[,host:port]` (port 9092 when it is left out), `sqlite:///relative/path`,
    `sqlite:////absolute/path`. Raises LogError when the address is none of these.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"kafka", "sqlite"}:
        raise LogError(f"{_shown(url)!r} is no address of a log; these are: {FORMS}")
    if scheme == "sqlite":
        if security is not None:
            raise LogError(
                "TLS and passwords are for kafka://; a SQLite log is protected by the rights of its file"
            )
        if not rest.startswith("/") or rest == "/":
            raise LogError(
                f"{url!r} names no file: write sqlite:///relative/path or sqlite:////absolute/path"
            )
        from .sqlite import SqliteLog  # noqa: PLC0415 - a Kafka user does not pay for it

        return SqliteLog(rest[1:])
    if "@" in rest:
        raise LogError(
            f"{_shown(url)!r}: a user and password do not go into the address, where logs would show them; "
            "give them as KafkaSecurity (sasl username and password)"
        )
    servers = [_server(part, url) for part in rest.rstrip("/").split(",")]
    from .kafka import KafkaLog  # noqa: PLC0415 - aiokafka is loaded for those who use it

    return KafkaLog(",".join(servers), security)


def _server(text: str, url: str) -> str:
    host, separator, port = text.strip().rpartition(":")
    if not separator or text.endswith("]"):  # no port, or an IPv6 address without one
        host, port = text.strip(), "9092"
    digits = port.isascii() and port.isdigit() and 0 < int(port) < 65536
    if not host or not digits or any(c in host for c in "/?# "):
        raise LogError(f"{url!r}: {text!r} is not host:port; write kafka://host:port[,host:port]")
    return f"{host}:{port}"


def _shown(url: str) -> str:
    """Without what stands before an @: it may be a password."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}…@{rest.rpartition('@')[2]}" if "@" in rest else url
