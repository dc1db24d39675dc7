"""The table of embeddings as a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .connections import connect_log
from .consumers.embeddings import EmbeddingStream

if TYPE_CHECKING:
    from pathlib import Path

    from .settings import Settings


async def export_table(settings: Settings, path: Path) -> int:
    """Write ids and vectors [n, F] to a .npz or .parquet file; how many. Raises ValueError, OSError, LogError."""
    if path.suffix not in (".npz", ".parquet"):
        raise ValueError(f"{path}: write a .npz or a .parquet file")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")
    log = connect_log(settings)
    try:
        async with EmbeddingStream(log, settings.embeddings_topic) as stream:
            table = await stream.as_table()
    finally:
        await log.close()
    ids = sorted(table)
    matrix = np.array([table[node] for node in ids], np.float32)
    if path.suffix == ".npz":
        np.savez_compressed(path, ids=np.array(ids, str), vectors=matrix)
    else:
        _write_parquet(path, ids, matrix)
    return len(ids)


def _write_parquet(path: Path, ids: list[str], matrix: np.ndarray) -> None:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        import pyarrow.parquet as pq  # noqa: PLC0415 - an extra
    except ImportError:
        raise ValueError(
            "Parquet needs pyarrow: pip install 'graph-diffusion-edge-serving[parquet]', or write a .npz file"
        ) from None
    width = matrix.shape[1] if len(ids) else 1
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel(), pa.float32()), width)
    pq.write_table(pa.table({"id": pa.array(ids, pa.string()), "vector": vectors}), path)
