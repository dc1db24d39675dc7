"""What a mutant is."""

from __future__ import annotations

from typing import NamedTuple

EMBEDDED = "not kafka and not redis"


class Mutant(NamedTuple):
    """One mistake: in this file, this text, which stands there once, becomes that, and the test must turn red."""

    name: str
    file: str
    right: str
    wrong: str
    test: str
    chosen: str = EMBEDDED  # pytest's -k
