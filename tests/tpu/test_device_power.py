"""Watts to levels and duty, and a guard that rests the device: on a clock of the test."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgdm.tpu.errors import ModelError
from dgdm.tpu.power import LEVELS, DutyCycle, Heat, TemperatureGuard, parse_limit, plan, watts_of


@pytest.mark.parametrize(
    ("text", "watts"),
    [
        (None, None),
        ("", None),
        (" ", None),
        ("2", 2.0),
        ("1.5", 1.5),
        ("1.5W", 1.5),
        (" .5 w ", 0.5),
        ("2.", 2.0),
    ],
)
def test_limits_are_read(text: str | None, watts: float | None) -> None:
    assert parse_limit(text) == watts


@pytest.mark.parametrize("text", ["0", "-1", "two", "1,5", "nan", "inf", "1.5kW", "0.0W"])
def test_bad_limits_are_named(text: str) -> None:
    with pytest.raises(ModelError, match=f"TPU_POWER_LIMIT is '{text}': write watts above 0"):
        parse_limit(text)


@pytest.mark.parametrize(
    ("limit", "level", "duty"),
    [
        (None, None, 1.0),
        (9.0, "Max", 1.0),
        (2.0, "Max", 1.0),
        (1.5, "Max", 0.75),
        (1.0, "High", 1.0),
        (0.5, "Medium", 1.0),
        (0.3, "Medium", 0.6),
        (0.252, "Low", 1.0),
        (0.126, "Low", 0.5),
    ],
)
def test_a_limit_becomes_a_level_and_a_duty(limit: float | None, level: str | None, duty: float) -> None:
    assert plan(limit) == (level, pytest.approx(duty))


@given(st.floats(0.001, 10))
def test_the_estimate_keeps_the_limit(limit: float) -> None:
    found = plan(limit)
    assert 0 < found.duty <= 1
    assert found.watts * found.duty <= limit * (1 + 1e-9)
    slower = [level for level in LEVELS if watts_of(level) < found.watts]
    assert all(watts_of(level) < limit for level in slower), "no faster than it must be"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_duty() -> None:
    clock = Clock()
    cycle = DutyCycle(0.25, clock)
    assert cycle.may_run()
    clock.now += 1
    cycle.busy(1.0)
    assert not cycle.may_run()
    clock.now += 2.9
    assert not cycle.may_run()
    clock.now += 0.1
    assert cycle.may_run()
    cycle.duty = 1.0
    cycle.busy(5.0)
    assert cycle.may_run()
    clock.now = 110.0
    assert cycle.share == pytest.approx(0.6)
    clock.now = 120.0
    assert cycle.share == 0.0


def test_a_device_that_always_has_work_is_busy_for_its_share() -> None:
    clock = Clock()
    cycle = DutyCycle(0.2, clock)
    busy = 0.0
    while clock.now < 1100:
        if cycle.may_run():
            clock.now += 0.5
            cycle.busy(0.5)
            busy += 0.5
        else:
            clock.now += 0.01
    assert busy / 1000 == pytest.approx(0.2, abs=0.005)


@pytest.mark.parametrize(("trip", "soft"), [(None, 78.0), (84.8, 78.0), (80.0, 74.0)])
def test_the_guard_stays_below_the_first_trip_point(trip: float | None, soft: float) -> None:
    assert TemperatureGuard(lambda: None, trip, Clock()).soft_limit == soft


def test_the_guard_reads_seldom_and_has_a_memory() -> None:
    clock, read = Clock(), []
    shown: float | None = 50.0

    def thermometer() -> float | None:
        read.append(shown)
        return shown

    guard = TemperatureGuard(thermometer, 84.8, clock)
    for degrees, heat in [
        (50.0, Heat.FINE),
        (77.9, Heat.FINE),
        (78.0, Heat.HOT),
        (75.0, Heat.HOT),
        (74.9, Heat.FINE),
        (-89.7, Heat.DEAD),
        (77.0, Heat.FINE),
        (None, Heat.FINE),
    ]:
        shown = degrees
        clock.now += 1.0
        assert guard.look() is heat, degrees
        assert guard.look() is heat
    assert len(read) == 8, "twice within a second is once"
