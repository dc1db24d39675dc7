"""Heat and power of a device: when it may run, at which clock, and an estimate of what it takes.

No Edge TPU can measure its power. Every number of watts here is an estimate: the published 2 W at 500 MHz, in
proportion to the clock and to the time it is busy.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple

from .discovery import DEAD_BELOW
from .errors import ModelError

FULL_WATTS: Final = 2.0
LEVELS: Final[dict[str, float]] = {"Low": 63.0, "Medium": 125.0, "High": 250.0, "Max": 500.0}
"""The delegate's `Performance` option and its clock in MHz, slowest first."""


class PowerPlan(NamedTuple):
    """How a limit is kept."""

    level: str | None  # None: what the library does by itself
    duty: float  # largest share of the time that the device is busy, in (0, 1]

    @property
    def watts(self) -> float:
        """Estimate while the device is busy."""
        return watts_of(self.level)


def watts_of(level: str | None) -> float:
    """Estimate at a level while busy; at the fastest when nobody knows."""
    return FULL_WATTS * LEVELS[level or "Max"] / LEVELS["Max"]


def plan(limit: float | None) -> PowerPlan:
    """The slowest level that can take `limit` watts, and the share of the time that keeps it there."""
    if limit is None:
        return PowerPlan(None, 1.0)
    for level in LEVELS:
        if watts_of(level) >= limit:
            return PowerPlan(level, limit / watts_of(level))
    return PowerPlan("Max", 1.0)


def parse_limit(text: str | None) -> float | None:
    """`TPU_POWER_LIMIT`: watts, as 1.5 or 1.5W; empty is none. Raises ModelError."""
    if text is None or not text.strip():
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*[wW]?\s*", text)
    if match is None or float(match[1]) <= 0:
        raise ModelError(f"TPU_POWER_LIMIT is {text!r}: write watts above 0, as 1.5")
    return float(match[1])


class DutyCycle:
    """After being busy for t the device rests for t · (1/duty − 1). `clock` gives seconds."""

    WINDOW: Final = 10.0

    def __init__(self, duty: float, clock: Callable[[], float]) -> None:
        self.duty = duty
        self._clock = clock
        self._rests_until = 0.0
        self._window_began = clock()
        self._busy = self._share = 0.0

    def may_run(self) -> bool:
        """Whether it has rested enough."""
        return self._clock() >= self._rests_until

    def busy(self, seconds: float) -> None:
        """It has just been busy for so long."""
        now = self._clock()
        self._rests_until = now + seconds * (1 / self.duty - 1)
        self._turn(now)
        self._busy += seconds

    @property
    def share(self) -> float:
        """Of the time it was busy, over the last full ten seconds."""
        self._turn(self._clock())
        return self._share

    def _turn(self, now: float) -> None:
        if now - self._window_began >= self.WINDOW:
            self._share = min(1.0, self._busy / (now - self._window_began))
            self._window_began, self._busy = now, 0.0


class Heat(StrEnum):
    """What the temperature says."""

    FINE = "fine"
    HOT = "hot"  # let it rest
    DEAD = "dead"  # the bus is lost


class TemperatureGuard:
    """Rests the device below its first trip point, where it would begin to halve its own clock.

    Hot at `soft_limit` °C, fine again `HYSTERESIS` below; read at most every `interval` seconds.
    """

    SOFT_LIMIT: Final = 78.0
    BELOW_TRIP: Final = 6.0
    HYSTERESIS: Final = 3.0

    def __init__(
        self,
        read: Callable[[], float | None],
        trip: float | None,
        clock: Callable[[], float],
        interval: float = 1.0,
    ) -> None:
        self._read = read
        self._clock = clock
        self._interval = interval
        self._due = float("-inf")
        self.soft_limit = self.SOFT_LIMIT if trip is None else min(self.SOFT_LIMIT, trip - self.BELOW_TRIP)
        self.celsius: float | None = None
        self.heat = Heat.FINE

    def look(self) -> Heat:
        """Read the thermometer if it is time; without one all is fine."""
        now = self._clock()
        if now < self._due:
            return self.heat
        self._due = now + self._interval
        self.celsius = self._read()
        if self.celsius is None:
            self.heat = Heat.FINE
        elif self.celsius < DEAD_BELOW:
            self.heat = Heat.DEAD
        elif self.celsius >= self.soft_limit:
            self.heat = Heat.HOT
        elif self.celsius < self.soft_limit - self.HYSTERESIS or self.heat is Heat.DEAD:
            self.heat = Heat.FINE
        return self.heat
