"""The accelerators and models that the settings name, opened with the graph they work for."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from prometheus_client import CollectorRegistry

    from .settings import Settings
    from .state.encoding import Encoding
    from .state.graph import GraphState
    from .state.raw_features import Encoder, RawFeatures
    from .tpu.accelerator import Accelerator
    from .tpu.manager import Answered, GoldenBatch, ModelManager
    from .tpu.partition import Rows
    from .tpu.settler import Given

log = structlog.get_logger()


class Models:
    """What a worker computes beside push. Opens nothing until `attach`; without any setting, nothing at all.

    Raises ValueError, in the constructor, for what cannot work: no runtime, no compiler, a file that is no model.
    """

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        self.head: ModelManager | None = None
        self.encoding: Encoding | None = None
        self.raw_features = 0  # columns that the encoder takes
        self.told = False  # predictions of all vectors have been sent since the start
        self._settings = settings
        self._graph: GraphState | None = None
        self._accelerator: Accelerator | None = None
        self._managers: list[ModelManager] = []
        self._encoder: ModelManager | None = None
        self._changing = threading.Lock()
        self._regional = settings.diffusion_backend == "region"
        if not self.wanted:
            return
        from .tpu.errors import TpuError  # noqa: PLC0415 - whoever has no models needs none of it
        from .tpu.metrics import TpuMetrics  # noqa: PLC0415 - the same

        try:
            self.raw_features = _require(settings)
        except TpuError as error:
            wanted = ["diffusion_backend = region"] if self._regional else []
            wanted += [f"{name} = {path}" for name, path in _files(settings)]
            raise ValueError(f"{', '.join(wanted)}: {error}") from None
        self._regions = _read_regions(settings)
        self._metrics = TpuMetrics(registry)

    @property
    def wanted(self) -> bool:
        """Whether any setting asks for one."""
        return self._regional or self._settings.head is not None or self._settings.encoder is not None

    def attach(self, graph: GraphState) -> None:
        """Open the devices, load the models, give the graph its settler. Raises ValueError for what does not fit it."""
        if not self.wanted:
            return
        with self._changing:
            self._attach(graph)

    def _attach(self, graph: GraphState) -> None:
        from .tpu.cluster import TpuCluster  # noqa: PLC0415 - as above
        from .tpu.settler import RegionSettler  # noqa: PLC0415 - the same

        options: Any = {"library": self._settings.tpu_library, "metrics": self._metrics}
        self._graph = graph
        self._accelerator = TpuCluster(_paths(self._settings), **options)
        if self._settings.encoder is not None:
            self._load_encoder(self._settings.encoder, graph)
        if self._settings.head is not None:
            self._load_head(self._settings.head, graph.rules.features)
        if self._regional:
            graph.settler = RegionSettler(
                self._accelerator,
                graph.alpha,
                graph.rules.features,
                given=self._given(graph),
                metrics=self._metrics,
            )

    def close(self) -> None:
        """Give the devices back; may be called twice. Not while the graph works."""
        if self._graph is not None and self._graph.settler is not None:
            self._graph.settler.close()
        if self.encoding is not None:
            self.encoding.close()
        for manager in self._managers:
            manager.close()
        if self._accelerator is not None:
            self._accelerator.close()

    def _load_head(self, path: Path, features: int) -> None:
        self.head = self._loaded("head", path)
        found = self.head.shape(path.stem)
        if found.features_in != features:
            raise ValueError(
                f"head = {path}: it takes {found.features_in} columns, and the graph has {features}"
            )

    def _load_encoder(self, path: Path, graph: GraphState) -> None:
        from .state.encoding import Encoding  # noqa: PLC0415 - kernels

        manager, features, raw = self._loaded("encoder", path), graph.rules.features, graph.raw
        assert raw is not None
        found = manager.shape(path.stem)
        if found.features_out != features:
            raise ValueError(
                f"encoder = {path}: it gives {found.features_out} columns, and features = {features}"
            )
        self.encoding = Encoding(manager, graph, raw, found.batch)
        self._encoder = manager
        try:
            self.encoding.use(self._zeros(manager, raw.width, graph))
        except ValueError as error:
            raise ValueError(f"encoder = {path}: {error}") from None
        for digest in {*raw.digests, raw.current}:
            self._show(digest, raw, graph)

    @staticmethod
    def _zeros(manager: ModelManager, width: int, graph: GraphState) -> Answered:
        """What it makes of the zeros that a node has whose features never came. Raises ValueError."""
        from .state.encoding import within_reach  # noqa: PLC0415 - kernels

        zeros = manager.run(np.zeros((1, width), np.float32))
        if not within_reach(zeros.outputs, graph.rules)[0]:
            raise ValueError(
                f"what it makes of zeros, {zeros.outputs[0].tolist()}, is not finite, or too far from the offset for the "
                "accuracy"
            )
        return zeros

    def _show(self, digest: str, raw: RawFeatures, graph: GraphState) -> None:
        """How many nodes it has encoded, counted when somebody asks."""
        gauge = self._metrics.encoded.labels(digest)
        gauge.set_function(lambda: raw.counts(graph.arrays.alive).get(digest, 0))

    def _loaded(self, kind: str, path: Path) -> ModelManager:
        from .tpu.errors import TpuError  # noqa: PLC0415 - as above
        from .tpu.manager import ModelManager  # noqa: PLC0415 - the same
        from .tpu.model import read_model  # noqa: PLC0415 - the same

        assert self._accelerator is not None
        manager = ModelManager(metrics=self._metrics)
        self._managers.append(manager)
        try:
            manager.load(path.stem, read_model(path), self._accelerator, self._golden(kind))
        except TpuError as error:
            raise ValueError(f"{kind} = {path}: {error}") from None
        return manager

    def _golden(self, kind: str) -> GoldenBatch | None:
        from .tpu.manager import read_golden  # noqa: PLC0415 - as above

        path = getattr(self._settings, f"{kind}_golden")
        return None if path is None else read_golden(path)

    def renew(self) -> list[Callable[[], object]]:
        """Take the files up again: one that has changed serves from now on, unless it is damaged or does not fit.

        Blocks. What the graph must hear of it is returned, to be called in its thread.
        """
        with self._changing:
            return [tell for kind, path in _files(self._settings) for tell in self._renewed(kind, path)]

    def _renewed(self, kind: str, path: Path) -> list[Callable[[], object]]:
        from .tpu.errors import TpuError  # noqa: PLC0415 - as above
        from .tpu.model import read_model  # noqa: PLC0415 - the same

        manager, graph, encoding = self.head, self._graph, None
        if kind == "encoder":
            manager, encoding = self._encoder, self.encoding
        if manager is None or graph is None:
            return []  # not loaded yet: it will be what the file holds then
        old = manager.versions[path.stem].digest
        try:
            model = read_model(path)
            if model.digest == old:
                log.info("model_unchanged", message=f"{kind} = {path} is {old} still", digest=old)
                return []
            manager.swap(path.stem, model, self._golden(kind))
            tell = graph.send_again if encoding is None else self._encoding_by(manager, encoding, path, graph)
        except (TpuError, ValueError) as error:
            plan = f"{old} goes on, and a start would refuse this file"
            log.error("model_refused", message=f"{kind} = {path}: {error}; {plan}", digest=old)  # noqa: TRY400 - a sentence
            return []
        message = f"{kind} = {path}: {model.digest} serves, {old} did"
        log.info("model_swapped", message=message, digest=model.digest)
        return [tell]

    def _encoding_by(
        self, manager: ModelManager, encoding: Encoding, path: Path, graph: GraphState
    ) -> Callable[[], object]:
        """The graph is to be encoded by the version in service; rolls back and raises ValueError when it cannot be."""
        raw = graph.raw
        assert raw is not None
        try:
            zeros = self._zeros(manager, raw.width, graph)
        except ValueError:
            manager.roll_back(path.stem)
            raise
        self._show(zeros.digest, raw, graph)
        return lambda: encoding.use(zeros)

    def _given(self, graph: GraphState) -> Given | None:
        if self._regions is None:
            return None
        from .state.id_table import rows_of  # noqa: PLC0415 - kernels
        from .tpu.settler import Given  # noqa: PLC0415 - as above

        def rows(ids: Sequence[str]) -> Rows:
            return rows_of(graph.ids, ids).astype(np.int64)

        return Given(self._regions, rows)


def cpu_encoder(path: Path) -> tuple[Encoder, int]:
    """The encoder on the CPU, and the columns it takes. Raises ValueError."""
    from .tpu.accelerator import Cpu  # noqa: PLC0415 - as above
    from .tpu.errors import TpuError  # noqa: PLC0415 - the same
    from .tpu.manager import ModelManager  # noqa: PLC0415 - the same
    from .tpu.model import read_model  # noqa: PLC0415 - the same

    manager = ModelManager()
    try:
        manager.load(path.stem, read_model(path), Cpu())
    except TpuError as error:
        raise ValueError(f"encoder = {path}: {error}") from None
    return manager, manager.shape(path.stem).features_in


def _paths(settings: Settings) -> list[str]:
    return [path.strip() for path in settings.devices.split(",")]


def _files(settings: Settings) -> list[tuple[str, Path]]:
    """Models that are set, by the name of the setting."""
    found = {"head": settings.head, "encoder": settings.encoder}
    return [(name, path) for name, path in found.items() if path is not None]


def _require(settings: Settings) -> int:
    """Columns that the encoder takes; 0 without one. Raises TpuError that names the way out, ValueError for a file."""
    from .tpu.compiler import require_compiler  # noqa: PLC0415 - as above
    from .tpu.errors import ModelError  # noqa: PLC0415 - the same
    from .tpu.model import CpuModel, read_model  # noqa: PLC0415 - the same
    from .tpu.partition import require_metis  # noqa: PLC0415 - the same
    from .tpu.runtime import load_runtime, load_schema  # noqa: PLC0415 - the same

    load_runtime()
    load_schema()
    regional = settings.diffusion_backend == "region"
    if regional and settings.regions is None:
        require_metis()
    compiled, raw_features = True, 0
    for name, path in _files(settings):
        try:
            model = read_model(path)
            columns = CpuModel(model.content).inputs[0].shape[-1]
        except ModelError as error:
            raise ValueError(f"{name} = {path}: {error}") from None
        raw_features = columns if name == "encoder" else raw_features
        compiled = compiled and model.compiled is not None
    if any(path != "cpu" for path in _paths(settings)) and (regional or not compiled):
        require_compiler()
    return raw_features


def _read_regions(settings: Settings) -> list[list[str]] | None:
    if settings.regions is None:
        return None
    from .tpu.partition import MAX_ROWS  # noqa: PLC0415 - as above

    try:
        found = json.loads(settings.regions.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"regions = {settings.regions}: {error}") from None
    good = isinstance(found, list) and all(
        isinstance(ids, list) and all(isinstance(node, str | int) for node in ids) for ids in found
    )
    if not good:
        raise ValueError(f"regions = {settings.regions}: want a list of lists of ids")
    regions = [[str(node) for node in ids] for ids in found]
    seen: set[str] = set()
    for number, ids in enumerate(regions):
        if len(ids) > MAX_ROWS:
            raise ValueError(
                f"regions = {settings.regions}: region {number} has {len(ids)} ids, at most {MAX_ROWS}"
            )
        for node in ids:
            if node in seen:
                raise ValueError(f"regions = {settings.regions}: {node!r} is in two regions, or twice in one")
            seen.add(node)
    return regions
