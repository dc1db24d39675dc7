"""Full recomputes by torch, and by PyG where it is, behind a pipe: run by an interpreter that has them.

Usage: python torch_peer.py FOLDER ERROR ALPHA. FOLDER holds the matrix P as CSR (data, indices, indptr), x and exact,
each an .npy. The first line out says how many steps reach the error; then each name on a line in is answered by the
seconds it took.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

MOST = 200  # steps


def main() -> None:
    """Answer until nothing more is asked."""
    folder, error, alpha = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    held = {name: np.load(folder / f"{name}.npy") for name in ("data", "indices", "indptr", "x", "exact")}
    x = torch.from_numpy(held["x"])
    p = torch.sparse_csr_tensor(
        torch.from_numpy(held["indptr"].astype(np.int64)),
        torch.from_numpy(held["indices"].astype(np.int64)),
        torch.from_numpy(held["data"]),
        size=(len(x), len(x)),
    )
    steps, reached = _steps(p, x, torch.from_numpy(held["exact"]), error, alpha)
    ways: dict[str, Callable[[], Any]] = {
        "torch": lambda: _recompute(p, x, alpha, steps),
        "torch K=10": lambda: _recompute(p, x, alpha, 10),
    }
    versions = {"torch": torch.__version__}
    appnp = _appnp(p, x, alpha, steps, versions)
    if appnp is not None:
        ways["PyG APPNP"] = appnp
    for way in ways.values():
        way()
    hello = {"steps": steps, "error": reached, "threads": torch.get_num_threads(), "versions": versions}
    print(json.dumps({**hello, "ways": list(ways)}), flush=True)
    for line in sys.stdin:
        begun = time.perf_counter()
        ways[line.strip()]()
        print(time.perf_counter() - begun, flush=True)


def _recompute(p: Any, x: Any, alpha: float, steps: int) -> Any:
    z, part = x, alpha * x
    for _ in range(steps):
        z = torch.addmm(part, p, z, beta=1.0, alpha=1 - alpha)
    return z


def _steps(p: Any, x: Any, exact: Any, error: float, alpha: float) -> tuple[int, float]:
    """The fewest that are as near to the exact answer, and how near they are."""
    z, part = x, alpha * x
    for step in range(1, MOST):
        z = torch.addmm(part, p, z, beta=1.0, alpha=1 - alpha)
        reached = float((z.double() - exact).abs().max())
        if reached <= error:
            return step, reached
    raise SystemExit(f"torch does not come to {error} in {MOST} steps")


def _appnp(p: Any, x: Any, alpha: float, steps: int, versions: dict[str, str]) -> Callable[[], Any] | None:
    try:
        import torch_geometric  # noqa: PLC0415 - it may not be there
        from torch_geometric.nn import APPNP  # noqa: PLC0415 - the same
    except ImportError:
        return None
    versions["torch_geometric"] = torch_geometric.__version__
    layer = APPNP(K=steps, alpha=alpha, normalize=False).eval()

    def run() -> Any:
        with torch.no_grad():
            return layer(x, p)

    return run


if __name__ == "__main__":
    main()
