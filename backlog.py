"""When a large backlog is repaired only, and when it is solved."""

from __future__ import annotations

import time

SOLVE_SHARE = 9  # times as long as a solve took, the next one is put off


class Backlog:
    """A solve costs about the same however much has changed: it gets a tenth of the time until the end is near.

    A solve begins with a push and ends when consumers have been told everything.
    """

    def __init__(self, large: int, max_staleness: float) -> None:
        """`large` records are a backlog; `max_staleness` seconds pass between two solves at least."""
        self._large, self._max_staleness = large, max_staleness
        self._solved_at, self._seconds = time.monotonic(), 0.0
        self._solving_since: float | None = None

    def is_large(self, lag: int) -> bool:
        """Whether so many records are one."""
        return lag >= self._large

    def waits(self, lag: int) -> bool:
        """Whether it is left in the log, because each batch of it would undo a part of the solve under way."""
        return self._solving_since is not None and self.is_large(lag)

    def is_repaired_only(self, lag: int) -> bool:
        """Whether it is applied without a push."""
        if not self.is_large(lag) or self._solving_since is not None:
            return False
        return time.monotonic() - self._solved_at < max(self._max_staleness, SOLVE_SHARE * self._seconds)

    def pushed(self, *, all_is_told: bool) -> None:
        """Take notice of a turn with a push."""
        now = time.monotonic()
        if self._solving_since is None:
            self._solving_since = now
        if all_is_told:
            self._seconds = now - self._solving_since
            self._solving_since, self._solved_at = None, now
