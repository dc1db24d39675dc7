"""The accelerators that the settings name, opened with the graph they work for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import CollectorRegistry

    from .settings import Settings
    from .state.graph import GraphState
    from .tpu.partition import Rows
    from .tpu.settler import Given


class Models:
    """What a worker computes beside push. Opens nothing until `attach`; without any setting, nothing at all.

    Raises ValueError, in the constructor, for what cannot work: no runtime, no compiler, a file that is no regions.
    """

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._graph: GraphState | None = None
        if settings.diffusion_backend == "push":
            return
        from .tpu.errors import TpuError  # noqa: PLC0415 - whoever has no models needs none of it
        from .tpu.metrics import TpuMetrics  # noqa: PLC0415 - the same

        try:
            _require(settings)
        except TpuError as error:
            raise ValueError(f"diffusion_backend = region: {error}") from None
        self._regions = _read_regions(settings)
        self._metrics = TpuMetrics(registry)

    def attach(self, graph: GraphState) -> None:
        """Open the devices and give the graph its settler."""
        if self._settings.diffusion_backend == "push":
            return
        from .tpu.cluster import TpuCluster  # noqa: PLC0415 - the same
        from .tpu.settler import RegionSettler  # noqa: PLC0415 - the same

        options: Any = {"library": self._settings.tpu_library, "metrics": self._metrics}
        accelerator = TpuCluster(_paths(self._settings), **options)
        self._graph = graph
        graph.settler = RegionSettler(
            accelerator, graph.alpha, graph.rules.features, given=self._given(graph), metrics=self._metrics
        )

    def close(self) -> None:
        """Give the devices back; may be called twice. Not while the graph works."""
        if self._graph is not None and self._graph.settler is not None:
            self._graph.settler.close()

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
    from .tpu.partition import require_metis  # noqa: PLC0415 - the same
    from .tpu.runtime import load_runtime, load_schema  # noqa: PLC0415 - the same

    load_runtime()
    load_schema()
    if settings.regions is None:
        require_metis()
    if any(path != "cpu" for path in _paths(settings)):
        require_compiler()


def _read_regions(settings: Settings) -> list[list[str]] | None:
    if settings.regions is None:
        return None
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
    from .tpu.partition import MAX_ROWS  # noqa: PLC0415 - as above

    for number, ids in enumerate(regions):
        if len(ids) > MAX_ROWS:
            raise ValueError(
                f"regions = {settings.regions}: region {number} has {len(ids)} ids, at most {MAX_ROWS}"
            )
        twice = next((node for node in ids if node in seen), None)
        if twice is not None:
            raise ValueError(f"regions = {settings.regions}: {twice!r} is in two regions, or twice in one")
        seen.update(ids)
    return regions
