"""Boardings at 675 bus stops of Montevideo, hour by hour, October 2020 (made by make_buses)."""

from __future__ import annotations

import io
import lzma
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..diffusion.exact import transition

DATA = Path(__file__).parent / "data" / "montevideo2020.npz.xz"
DAY = 24


class Buses(NamedTuple):
    """Stops and the roads between them."""

    stops: NDArray[np.int32]  # numbers of the city's own
    boardings: NDArray[np.int16]  # [stops, 744 hours]
    links: NDArray[np.int16]  # [690, 2] rows of stops that follow each other on a line
    metres: NDArray[np.float32]  # [690] along the road

    @property
    def hours(self) -> int:
        """At which a whole day lies behind."""
        return int(self.boardings.shape[1]) - DAY + 1

    def features(self, hour: int) -> NDArray[np.float32]:
        """[675, 24]: boardings in the day that ends with `hour` (0: the first hour with a whole day)."""
        return self.boardings[:, hour : hour + DAY].astype(np.float32)

    def arcs(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Rows, targets and weights, each link in both directions: near stops weigh more, by 1/distance."""
        a, b = self.links.T.astype(np.int64)
        weights = 1.0 / self.metres.astype(np.float64)
        return np.concatenate([a, b]), np.concatenate([b, a]), np.concatenate([weights, weights])

    def transition(self) -> sparse.csr_array:
        """P [675, 675]."""
        return transition(*self.arcs(), len(self.stops))


def buses(path: Path = DATA) -> Buses:
    """Read the file. Raises ValueError when it is not what `make_buses` writes."""
    try:
        with np.load(io.BytesIO(lzma.decompress(path.read_bytes()))) as arrays:
            return Buses(*(arrays[name] for name in Buses._fields))
    except (OSError, lzma.LZMAError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is not the table of boardings that make_buses writes: {error}") from None
