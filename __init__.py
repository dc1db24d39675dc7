"""dgdm: embeddings of a moving graph, always fresh, with a proven error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .consumers.embeddings import EmbeddingStream, EmbeddingTable
    from .diffusion.stateless import diffuse
    from .producers.graph import GraphProducer
    from .schemas.embeddings import Embedding, Removed
    from .schemas.events import (
        AddEdge,
        AddNode,
        GraphEvent,
        GraphUpdate,
        RemoveEdge,
        RemoveNode,
        SetFeatures,
        decode_event,
        encode_event,
    )
    from .schemas.progress import Progress
    from .schemas.reasons import InvalidEvent
    from .streaming import Changes, StreamingDGDM
    from .tpu.calibration import CalibrationData
    from .tpu.cluster import ArcGraph, TpuCluster
    from .tpu.edge import EdgeTPU
    from .tpu.manager import ModelManager
    from .tpu.partition import PartitionStrategy
    from .tpu.quantizer import AdaptiveQuantizer

__version__ = "0.1.0"

# Loaded when asked for: a service that only produces or consumes does not pay for the kernels.
_HOMES = {
    "AdaptiveQuantizer": "tpu.quantizer",
    "AddEdge": "schemas.events",
    "AddNode": "schemas.events",
    "ArcGraph": "tpu.cluster",
    "CalibrationData": "tpu.calibration",
    "Changes": "streaming",
    "EdgeTPU": "tpu.edge",
    "Embedding": "schemas.embeddings",
    "EmbeddingStream": "consumers.embeddings",
    "EmbeddingTable": "consumers.embeddings",
    "GraphEvent": "schemas.events",
    "GraphProducer": "producers.graph",
    "GraphUpdate": "schemas.events",
    "InvalidEvent": "schemas.reasons",
    "ModelManager": "tpu.manager",
    "PartitionStrategy": "tpu.partition",
    "Progress": "schemas.progress",
    "RemoveEdge": "schemas.events",
    "RemoveNode": "schemas.events",
    "Removed": "schemas.embeddings",
    "SetFeatures": "schemas.events",
    "StreamingDGDM": "streaming",
    "TpuCluster": "tpu.cluster",
    "decode_event": "schemas.events",
    "diffuse": "diffusion.stateless",
    "encode_event": "schemas.events",
}

__all__ = [
    "AdaptiveQuantizer",
    "AddEdge",
    "AddNode",
    "ArcGraph",
    "CalibrationData",
    "Changes",
    "EdgeTPU",
    "Embedding",
    "EmbeddingStream",
    "EmbeddingTable",
    "GraphEvent",
    "GraphProducer",
    "GraphUpdate",
    "InvalidEvent",
    "ModelManager",
    "PartitionStrategy",
    "Progress",
    "RemoveEdge",
    "RemoveNode",
    "Removed",
    "SetFeatures",
    "StreamingDGDM",
    "TpuCluster",
    "decode_event",
    "diffuse",
    "encode_event",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - most of what imports dgdm does not need it

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
