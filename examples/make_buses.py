"""Make `data/montevideo2020.npz.xz` from PyTorch Geometric Temporal's montevideo_bus.json (licence MIT); run by hand.

    python -m dgdm.examples.make_buses montevideo_bus.json [OUTPUT]

The JSON file is `dataset/montevideo_bus.json` of the repository benedekrozemberczki/pytorch_geometric_temporal. The
same file gives the same bytes. `buses` reads it.
"""

from __future__ import annotations

import io
import json
import lzma
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .buses import DATA


def pack(source: dict[str, Any]) -> bytes:
    """Boardings [stops, hours], links [links, 2] as rows, their length in metres."""
    row = {stop["bus_stop"]: i for i, stop in enumerate(source["nodes"])}
    links = [(row[link["source"]], row[link["target"]]) for link in source["links"]]
    plain = io.BytesIO()
    np.savez(
        plain,
        stops=np.array(list(row), np.int32),
        boardings=np.array([stop["y"] for stop in source["nodes"]], np.int16),
        links=np.array(links, np.int16),
        metres=np.array([link["weight"] for link in source["links"]], np.float32),
    )
    return lzma.compress(plain.getvalue(), preset=9 | lzma.PRESET_EXTREME)


def main() -> int:
    """Read, pack, write."""
    if len(sys.argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    output = Path(sys.argv[2]) if len(sys.argv) == 3 else DATA
    output.write_bytes(pack(json.loads(Path(sys.argv[1]).read_text())))
    print(f"{output}: {output.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
