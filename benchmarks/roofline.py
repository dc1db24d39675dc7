"""How fast rows at random can be changed at all: the bound of every push, whatever it does beside it."""

from __future__ import annotations

import time

import numpy as np

from dgdm.diffusion.arrays import Floats, GraphArrays, Rows
from dgdm.diffusion.compile import kernel
from dgdm.diffusion.local import AHEAD
from dgdm.diffusion.vector import add_scaled, prefetch


@kernel
def touch_rows(array: Floats, rows: Rows, step: Floats) -> np.float32:
    """Read, change and write these rows as a push does, with a change of 0; the largest number in them."""
    top = np.float32(0)
    for i in range(len(rows)):
        if i + AHEAD < len(rows):
            prefetch(array, np.uint32(rows[i + AHEAD]))
        top = max(top, add_scaled(array, np.uint32(rows[i]), step, np.float32(0)))
    return top


def rows_per_second(g: GraphArrays, rows: Rows) -> float:
    """Of R, these rows."""
    begun = time.thread_time()
    touch_rows(g.R, rows, g.step)
    return len(rows) / (time.thread_time() - begun)
