"""How to reach a Kafka cluster that asks who one is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from .interface import LogError

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """Kafka's own names and values. Files are PEM; without a cafile the system's authorities count."""

    protocol: Protocol = "PLAINTEXT"
    sasl_mechanism: Mechanism = "PLAIN"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything connects."""
        if self.protocol not in get_args(Protocol):
            raise LogError(f"security protocol {self.protocol!r} is none of {', '.join(get_args(Protocol))}")
        if self.sasl_mechanism not in get_args(Mechanism):
            raise LogError(
                f"SASL mechanism {self.sasl_mechanism!r} is none of {', '.join(get_args(Mechanism))}"
            )
        if self.sasl and (not self.username or self.password is None):
            raise LogError(f"{self.protocol} needs a username and a password")
        if not self.tls and (self.cafile or self.certfile or self.keyfile):
            raise LogError(f"certificates are given but the protocol is {self.protocol}; use SSL or SASL_SSL")

    @property
    def sasl(self) -> bool:
        """A password is asked for."""
        return self.protocol in {"SASL_PLAINTEXT", "SASL_SSL"}

    @property
    def tls(self) -> bool:
        """The connection is encrypted."""
        return self.protocol in {"SSL", "SASL_SSL"}
