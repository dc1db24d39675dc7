"""The accelerators and models that the settings name, opened with the graph they work for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import CollectorRegistry

    from .settings import Settings
    from .state.graph import GraphState
    from .tpu.accelerator import Accelerator
    from .tpu.partition import Rows
    from .tpu.rows import RowModel
    from .tpu.settler import Given


class Models:
    """What a worker computes beside push. Opens nothing until `attach`; without any setting, nothing at all.

    Raises ValueError, in the constructor, for what cannot work: no runtime, no compiler, a file that is no model.
    """

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        self.head: RowModel | None = None
        self.told = False  # predictions of all vectors have been sent since the start
        self._settings = settings
        self._graph: GraphState | None = None
        self._accelerator: Accelerator | None = None
        self._regional = settings.diffusion_backend == "region"
        if not (self._regional or settings.head is not None):
            return
        from .tpu.errors import TpuError  # noqa: PLC0415 - whoever has no models needs none of it
        from .tpu.metrics import TpuMetrics  # noqa: PLC0415 - the same

        try:
            _require(settings)
        except TpuError as error:
            what = "diffusion_backend = region" if self._regional else f"head = {settings.head}"
            raise ValueError(f"{what}: {error}") from None
        self._regions = _read_regions(settings)
        self._metrics = TpuMetrics(registry)

    def attach(self, graph: GraphState) -> None:
        """Open the devices, load the head, give the graph its settler. Raises ValueError for a head that does not fit."""
        if not (self._regional or self._settings.head is not None):
            return
        from .tpu.cluster import TpuCluster  # noqa: PLC0415 - as above
        from .tpu.settler import RegionSettler  # noqa: PLC0415 - the same

        options: Any = {"library": self._settings.tpu_library, "metrics": self._metrics}
        self._graph = graph
        self._accelerator = TpuCluster(_paths(self._settings), **options)
        if self._settings.head is not None:
            self._load_head(self._accelerator, graph.rules.features)
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
        if self._accelerator is not None:
            self._accelerator.close()

    def _load_head(self, accelerator: Accelerator, features: int) -> None:
        from .tpu.edge import device_model  # noqa: PLC0415 - as above
        from .tpu.errors import TpuError  # noqa: PLC0415 - the same
        from .tpu.model import read_model  # noqa: PLC0415 - the same
        from .tpu.rows import RowModel  # noqa: PLC0415 - the same

        path = self._settings.head
        assert path is not None
        try:
            model = device_model(accelerator, read_model(path))
            self.head = RowModel(accelerator, model, path.stem)
        except TpuError as error:
            raise ValueError(f"head = {path}: {error}") from None
        if self.head.features_in != features:
            raise ValueError(
                f"head = {path}: it takes {self.head.features_in} columns, and the graph has {features}"
            )

    def _given(self, graph: GraphState) -> Given | None:
        if self._regions is None:
            return None
        from .state.id_table import rows_of  # noqa: PLC0415 - kernels
        from .tpu.settler import Given  # noqa: PLC0415 - as above

        def rows(ids: Sequence[str]) -> Rows:
            return rows_of(graph.ids, ids).astype(np.int64)

        return Given(self._regions, rows)


def _paths(settings: Settings) -> list[str]:
    return [path.strip() for path in settings.devices.split(",")]


def _require(settings: Settings) -> None:
    """Raises TpuError, which names the way out."""
    from .tpu.compiler import require_compiler  # noqa: PLC0415 - as above
    from .tpu.model import CpuModel, read_model  # noqa: PLC0415 - the same
    from .tpu.partition import require_metis  # noqa: PLC0415 - the same
    from .tpu.runtime import load_runtime, load_schema  # noqa: PLC0415 - the same

    load_runtime()
    load_schema()
    regional = settings.diffusion_backend == "region"
    if regional and settings.regions is None:
        require_metis()
    compiled = True
    if settings.head is not None:
        model = read_model(settings.head)
        CpuModel(model.content)
        compiled = model.compiled is not None
    if any(path != "cpu" for path in _paths(settings)) and (regional or not compiled):
        require_compiler()


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
