"""Every setting of dgdm, once: environment `DGDM_…`, a TOML file (`DGDM_CONFIG`), then flags, the last one wins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, TomlConfigSettingsSource

if TYPE_CHECKING:
    from pydantic_settings import PydanticBaseSettingsSource

DEFAULT_LOG = "sqlite:///.dgdm/log.db"
DEFAULT_STORE = "sqlite:///.dgdm/store.db"

Columns = Annotated[list[float], NoDecode]


class Settings(BaseSettings):
    """Settings of a worker and of the tools around it. Units: seconds, feature units, records."""

    model_config = SettingsConfigDict(env_prefix="DGDM_", extra="forbid", validate_default=True)

    graph: str = Field(
        "default",
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="Name of the graph: part of the transactional id and of every store key.",
    )
    features: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Feature columns per node; taken from the store when it has the graph.",
    )
    alpha: float = Field(0.15, gt=0, le=1, description="Weight of a node's own features in its embedding.")
    accuracy: Columns = Field(
        [0.01],
        description="Largest error a consumer may hold, in feature units: one number, or one per column.",
    )
    offset: Columns = Field(
        [0.0],
        description="Subtracted from features inside the arrays, to save float32's digits: one number, or one per column.",
    )
    directed: bool = Field(
        False, description="Whether an edge points from source to target only. Frozen once stored."
    )
    aggregate: Literal["in", "out"] = Field(
        "in",
        description="Directed: average over nodes that point at a node, or that it points at. Frozen once stored.",
    )
    unknown_nodes: Literal["create", "reject"] = Field(
        "create", description="What an edge to, or features of, an unknown node do."
    )
    max_nodes: int | None = Field(
        None, ge=1, description="Events that would exceed this number of nodes are dead letters."
    )
    max_edges: int | None = Field(
        None, ge=1, description="Events that would exceed this number of edges are dead letters."
    )
    allow_floor: bool = Field(
        False,
        description="Accept features too large for the accuracy in float32; the bound then says what is kept.",
    )

    log: str = Field(
        DEFAULT_LOG, description="Where the topics live: kafka://host:port[,host:port] or sqlite:///path."
    )
    store: str = Field(
        DEFAULT_STORE,
        description="Where the state lives: redis://[:password@]host:port/db, rediss://, unix:// or sqlite:///path.",
    )
    events_topic: str = Field("dgdm.events", description="Topic the graph events are read from.")
    embeddings_topic: str = Field(
        "dgdm.embeddings", description="Compacted topic the embeddings are written to."
    )
    progress_topic: str = Field("dgdm.progress", description="Compacted topic of progress records.")
    dead_letters_topic: str = Field(
        "dgdm.dead-letters", description="Topic of the events that could not be applied."
    )
    encoding: Literal["msgpack", "json"] = Field(
        "msgpack", description="Encoding of embeddings and progress records."
    )
    isolation: Literal["read_committed", "read_uncommitted"] = Field(
        "read_committed", description="Isolation the events are read with."
    )

    checkpoint_interval: float = Field(5.0, gt=0, le=600, description="Seconds between checkpoints.")
    dirty_rows: int = Field(
        200_000,
        ge=1,
        description="Changed rows held while the store is away; then the worker pauses. Half of it: a checkpoint.",
    )
    max_staleness: float = Field(5.0, gt=0, description="Seconds between publications while catching up.")
    catch_up: int = Field(
        20_000,
        ge=1,
        description="Backlog from which events are repaired without pushing, one solve following.",
    )
    batch: int = Field(5_000, ge=1, le=1_000_000, description="Largest batch of events.")
    publish_limit: int = Field(50_000, ge=1, description="Largest number of vectors in one publication.")
    progress_interval: float = Field(0.1, ge=0, description="Shortest time between progress records.")
    outage_budget: float = Field(
        300.0, gt=0, description="Seconds a log may stay away before the worker exits for a restart."
    )
    stop_budget: float = Field(30.0, gt=0, description="Seconds a graceful stop may take.")
    lease_ttl: float = Field(3.0, ge=0.2, description="Seconds after which a silent owner's lease is free.")
    accept_lost_history: bool = Field(
        False, description="Start although the log no longer fits the store: what is missing is lost."
    )

    metrics_port: int | None = Field(
        None, ge=0, le=65_535, description="Port of the Prometheus metrics; none by default."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level of log lines."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="Log lines for people or for machines; auto looks at the terminal."
    )

    kafka_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Kafka's security.protocol."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="Kafka's sasl.mechanism."
    )
    kafka_username: str | None = Field(None, description="SASL user.")
    kafka_password: SecretStr | None = Field(None, description="SASL password.")
    kafka_cafile: Path | None = Field(None, description="Certificate authorities for Kafka's TLS (PEM).")
    kafka_certfile: Path | None = Field(None, description="Client certificate for Kafka's TLS (PEM).")
    kafka_keyfile: Path | None = Field(None, description="Client key for Kafka's TLS (PEM).")
    redis_cafile: Path | None = Field(None, description="Certificate authorities for Redis' TLS (PEM).")

    @field_validator("accuracy", "offset", mode="before")
    @classmethod
    def _columns(cls, value: object) -> object:
        if isinstance(value, str):
            return [part for part in value.strip("[] ").split(",") if part.strip()]
        if isinstance(value, int | float):
            return [value]
        return value

    @field_validator("accuracy")
    @classmethod
    def _positive(cls, value: list[float]) -> list[float]:
        if not value or not all(0 < a < float("inf") for a in value):
            raise ValueError(f"accuracy {value} must be finite and above 0 in every column")
        return value

    @model_validator(mode="after")
    def _widths(self) -> Settings:
        for name in ("accuracy", "offset"):
            given = len(getattr(self, name))
            if self.features is not None and given not in (1, self.features):
                raise ValueError(
                    f"{name} has {given} columns and features = {self.features}: give one number, or one per column"
                )
        return self

    def columns(self, name: Literal["accuracy", "offset"], features: int) -> list[float]:
        """The setting as one number per feature column."""
        values: list[float] = getattr(self, name)
        if len(values) not in (1, features):
            raise ValueError(
                f"{name} has {len(values)} columns and the graph {features}: give one number, or one per column"
            )
        return values * features if len(values) == 1 else values

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags over environment over file."""
        path = os.environ.get("DGDM_CONFIG")
        if path is None:
            return init_settings, env_settings
        if not Path(path).is_file():
            raise ValueError(f"DGDM_CONFIG names {path!r}, which is not a file")
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, path)
