"""From settings to a log, a store and the rules of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .log import open_log
from .log.security import KafkaSecurity
from .state import open_store
from .state.rules import Rules

if TYPE_CHECKING:
    from pathlib import Path

    from .log.interface import Log
    from .settings import Settings
    from .state.store import GraphStore, Meta


def connect_log(settings: Settings) -> Log:
    """The log the settings name; it connects when used."""
    if settings.kafka_protocol == "PLAINTEXT":
        return open_log(settings.log)
    password = settings.kafka_password
    security = KafkaSecurity(
        protocol=settings.kafka_protocol,
        sasl_mechanism=settings.kafka_sasl_mechanism,
        username=settings.kafka_username,
        password=None if password is None else password.get_secret_value(),
        cafile=_text(settings.kafka_cafile),
        certfile=_text(settings.kafka_certfile),
        keyfile=_text(settings.kafka_keyfile),
    )
    return open_log(settings.log, security)


def connect_store(settings: Settings, timeout: float = 5.0) -> GraphStore:
    """The store the settings name; `timeout` seconds bound every single wait."""
    return open_store(settings.store, settings.graph, cafile=_text(settings.redis_cafile), timeout=timeout)


def rules_of(settings: Settings, stored: Meta | None) -> Rules:
    """What events are checked against. Raises ValueError when nobody says how many features there are."""
    features = settings.features or (stored.features if stored is not None else None)
    if features is None:
        raise ValueError(
            f"features is not set and the store has no graph {settings.graph!r} yet: say how many feature columns a "
            "node has, --features 8 or DGDM_FEATURES=8"
        )
    return Rules(
        features=features,
        accuracy=np.array(settings.columns("accuracy", features)),
        offset=np.array(settings.columns("offset", features)),
        directed=settings.directed,
        aggregate=settings.aggregate,
        unknown_nodes=settings.unknown_nodes,
        max_nodes=settings.max_nodes,
        max_edges=settings.max_edges,
        allow_floor=settings.allow_floor,
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
