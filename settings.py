"""Every setting of dgdm, once: a flag wins over the environment (`DGDM_…`), which wins over a TOML file (`DGDM_CONFIG`)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from pydantic import Field, FilePath, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, TomlConfigSettingsSource

if TYPE_CHECKING:
    from pydantic_settings import PydanticBaseSettingsSource

DEFAULT_LOG = "sqlite:///.dgdm/log.db"
DEFAULT_STORE = "sqlite:///.dgdm/store.db"


@dataclass(frozen=True)
class Unit:
    """What a number counts, for docs/settings.md."""

    name: str


@dataclass(frozen=True)
class Frozen:
    """Marks what cannot change once the graph is stored."""


Seconds = Annotated[float, Unit("seconds")]
Events = Annotated[int, Unit("events")]
Columns = Annotated[list[float], NoDecode, Unit("feature units")]


class Settings(BaseSettings):
    """Settings of a worker and of the tools around it."""

    model_config = SettingsConfigDict(env_prefix="DGDM_", extra="forbid", validate_default=True)

    graph: str = Field(
        "default",
        description="Name of the graph: part of every store key and of the transactional id, and the key of its "
        "progress records. 1 to 100 of the characters A-Z a-z 0-9 . _ -",
    )
    features: Annotated[int | None, Frozen(), Unit("columns")] = Field(
        None,
        ge=1,
        le=65_536,
        description="Feature columns per node. Needed until the graph is stored; then the store knows it.",
    )
    alpha: float = Field(
        0.15,
        gt=0,
        le=1,
        description="Weight of a node's own features in its embedding: a reach of about 1/alpha steps. 1 is no "
        "diffusion at all; smaller reaches further and costs more.",
    )
    accuracy: Columns = Field(
        [0.01],
        description="Largest error a consumer may hold: one number, or one per column (`0.1,0.5,20`). It decides "
        "what events cost and how many vectors are published.",
    )
    offset: Columns = Field(
        [0.0],
        description="Subtracted from the features inside the arrays, to save float32's digits (a year wants 2000): "
        "one number, or one per column. The embeddings are the same.",
    )
    directed: Annotated[bool, Frozen()] = Field(
        False, description="An edge leads from its source to its target only, not both ways."
    )
    aggregate: Annotated[Literal["in", "out"], Frozen()] = Field(
        "in",
        description="Directed graphs: a node averages over the nodes that point at it (`in`), or over those it "
        "points at (`out`).",
    )
    unknown_nodes: Literal["create", "reject"] = Field(
        "create",
        description="An edge to, or features of, a node that was never added: `create` it with zero features, or "
        "`reject` the event as a dead letter.",
    )
    max_nodes: Annotated[int | None, Unit("nodes")] = Field(
        None, ge=1, description="Events that would exceed it are dead letters: what the machine can hold."
    )
    max_edges: Annotated[int | None, Unit("edges")] = Field(
        None, ge=1, description="Events that would exceed it are dead letters."
    )
    allow_floor: bool = Field(
        False,
        description="Take features that are too large for the accuracy in float32, instead of refusing them; "
        "bound, metric and log then say what is really kept.",
    )

    log: str = Field(
        DEFAULT_LOG,
        description="Where the topics live: `kafka://host:port[,host:port]`, or `sqlite:///path` (four slashes: an "
        "absolute path).",
    )
    store: str = Field(
        DEFAULT_STORE,
        description="Where the graph is kept between runs: `redis://[user:password@]host:port/db`, `rediss://` "
        "(TLS), `unix://path` or `sqlite:///path`.",
    )
    events_topic: str = Field("dgdm.events", description="Topic the graph events are read from.")
    embeddings_topic: str = Field(
        "dgdm.embeddings", description="Compacted topic the embeddings are written to."
    )
    progress_topic: str = Field(
        "dgdm.progress", description="Compacted topic of progress records: how fresh and how exact it all is."
    )
    dead_letters_topic: str = Field(
        "dgdm.dead-letters", description="Topic of the events that could not be applied, with the reason."
    )
    encoding: Literal["msgpack", "json"] = Field(
        "msgpack",
        description="Encoding of embeddings and progress records. Readers tell them apart, so it may change.",
    )
    isolation: Literal["read_committed", "read_uncommitted"] = Field(
        "read_committed",
        description="How events are read: with `read_committed` those of an aborted transaction of a producer "
        "never count.",
    )

    checkpoint_interval: Seconds = Field(
        5.0,
        gt=0,
        le=600,
        description="Time between checkpoints. Longer: less to write, more to replay after a crash, later vectors "
        "for readers of committed data.",
    )
    dirty_rows: Annotated[int, Unit("rows")] = Field(
        200_000,
        ge=1,
        description="Changed rows a worker carries while the store is away; then it pauses. At half of it a "
        "checkpoint is due, whatever the interval.",
    )
    max_staleness: Seconds = Field(
        5.0, gt=0, description="Longest time between two publications while catching up."
    )
    catch_up: Events = Field(
        20_000,
        ge=1,
        description="Backlog from which events are repaired without pushing, one solve following: it catches up "
        "sooner, within a larger bound meanwhile.",
    )
    batch: Events = Field(
        5_000,
        ge=1,
        le=1_000_000,
        description="Largest batch. Batches grow with load by themselves; smaller is a shorter worst latency under "
        "load and less throughput.",
    )
    publish_limit: Annotated[int, Unit("vectors")] = Field(
        50_000, ge=1, description="Most vectors of one publication: a hub's ripple is sent in portions."
    )
    progress_interval: Seconds = Field(
        0.1,
        ge=0,
        description="Shortest time between progress records; who waits for his own write waits up to this long.",
    )
    outage_budget: Seconds = Field(
        300.0,
        gt=0,
        description="How long the log (at a start: or the store) may stay away before the worker exits, with code "
        "75, for a restart.",
    )
    stop_budget: Seconds = Field(
        30.0, gt=0, description="How long a graceful stop may take: publish, and write a last checkpoint."
    )
    lease_ttl: Seconds = Field(
        3.0,
        ge=0.2,
        description="Silence of the owner after which a standby takes over. Too short costs a needless takeover, "
        "never a wrong number.",
    )
    accept_lost_history: bool = Field(
        False,
        description="Start although the log no longer holds what the store needs: those events are lost. For one "
        "start; take it away afterwards.",
    )

    diffusion_backend: Literal["push", "region"] = Field(
        "push",
        description="How residuals become small: `push`, row by row, or `region`: whole regions at once on "
        "`devices`, push finishing. For graphs of up to 22,400 nodes whose edges rest while their features move; "
        "the bound holds either way. Needs the extra `tpu`.",
    )
    regions: FilePath | None = Field(
        None,
        description="Regions of your own for `region`: a JSON file, a list of lists of ids, each of at most 1,400 "
        "nodes. Found by METIS by default.",
    )
    devices: str = Field(
        "cpu",
        description="What models and regions run on: `cpu`, or Edge TPUs, with commas between: `/dev/apex_0`, "
        "`pci:1`, `usb:0`. The CPU answers whenever a device does not.",
    )
    head: FilePath | None = Field(
        None,
        description="A model of rows (`.tflite`) that takes a node's vector: what it makes of each that is "
        "published goes to `predictions_topic`. Needs the extra `tpu`.",
    )
    encoder: FilePath | None = Field(
        None,
        description="A model of rows (`.tflite`) that makes a node's features of what events carry: they have as many "
        "columns as it takes, and `features` is how many it gives. The stored graph is one with an encoder, or without. "
        "Needs the extra `tpu`.",
    )
    head_golden: FilePath | None = Field(
        None,
        description="Rows (`.npz`: `features`, `expected`) that a head must answer within 10 % before it serves, at a start and "
        "when its file is taken up again.",
    )
    encoder_golden: FilePath | None = Field(None, description="The same for an encoder.")
    predictions_topic: str = Field(
        "dgdm.predictions", description="Compacted topic of predictions; there only with a `head`."
    )
    tpu_library: str = Field("libedgetpu.so.1", description="The delegate's library, for Edge TPUs.")

    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65_535,
        description="Port of the Prometheus metrics, on all addresses; none by default.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level of log lines."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto",
        description="Log lines for people or for machines; `auto`: for people when a terminal reads them.",
    )

    kafka_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT",
        description="Kafka's security.protocol: whether there is TLS (SSL), and a password (SASL).",
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="Kafka's sasl.mechanism: how the password is proven."
    )
    kafka_username: str | None = Field(None, description="SASL user; a protocol with SASL needs it.")
    kafka_password: SecretStr | None = Field(None, description="SASL password; never shown.")
    kafka_cafile: FilePath | None = Field(
        None, description="Certificate authorities for Kafka's TLS (PEM); the system's by default."
    )
    kafka_certfile: FilePath | None = Field(None, description="Client certificate for Kafka's TLS (PEM).")
    kafka_keyfile: FilePath | None = Field(None, description="Key of the client certificate (PEM).")
    redis_cafile: FilePath | None = Field(
        None,
        description="Certificate authorities for Redis' TLS (`rediss://`, PEM); the system's by default.",
    )

    @field_validator("graph")
    @classmethod
    def _name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", value):
            raise ValueError("a graph's name is 1 to 100 of the characters A-Z a-z 0-9 . _ -")
        return value

    @field_validator("devices")
    @classmethod
    def _paths(cls, value: str) -> str:
        for path in value.split(","):
            if not re.fullmatch(r"cpu|/dev/apex_\d+|(usb|pci)(:\d+)?", path.strip()):
                raise ValueError(f"{path.strip()!r} is none of cpu, /dev/apex_N, pci:N, usb:N")
        return value

    @field_validator("accuracy", "offset", mode="before")
    @classmethod
    def _columns(cls, value: object) -> object:
        if isinstance(value, str):
            return [part for part in value.strip("[] ").split(",") if part.strip()]
        if isinstance(value, int | float):
            return [value]
        return value

    @field_validator("accuracy", "offset")
    @classmethod
    def _numbers(cls, value: list[float], info: ValidationInfo) -> list[float]:
        least = 0.0 if info.field_name == "accuracy" else float("-inf")
        if not value or not all(least < number < float("inf") for number in value):
            asked = "finite and above 0" if info.field_name == "accuracy" else "finite"
            raise ValueError(f"give one number, or one per column: {asked}")
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

    @model_validator(mode="after")
    def _credentials(self) -> Settings:
        for name in ("kafka_username", "kafka_password"):
            if getattr(self, name) is not None and not self.kafka_protocol.startswith("SASL"):
                raise ValueError(
                    f"{name} is given and kafka_protocol = {self.kafka_protocol} sends none: choose SASL_SSL, or "
                    "SASL_PLAINTEXT where nobody listens"
                )
        return self

    @property
    def predicted_topic(self) -> str | None:
        """The topic of predictions, when there are any."""
        return None if self.head is None else self.predictions_topic

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
        try:
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, path)
        except (OSError, ValueError) as error:
            raise ValueError(f"DGDM_CONFIG names {path!r}, which cannot be read as TOML: {error}") from None


_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list[float]: "a number, or one per column (0.1,0.2)",
    FilePath: "the path of a file",
}
_LIMITS = {"ge": "at least", "gt": "above", "le": "at most"}


def allowed(name: str) -> str:
    """What a setting takes, in words: for its page, and for those who gave something else."""
    field = Settings.model_fields[name]
    kind: Any = field.annotation
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    if NoneType in get_args(kind):
        kind = get_args(kind)[0]
    limits = [
        f"{word} {getattr(one, limit)}"
        for one in field.metadata
        for limit, word in _LIMITS.items()
        if hasattr(one, limit)
    ]
    return ", ".join([_KINDS.get(kind, "text"), *limits])
