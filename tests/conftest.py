"""What every test gets: one seed, Hypothesis profiles, and skips that are said in words or forbidden."""

from __future__ import annotations

import os
import random
import re
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings

if TYPE_CHECKING:
    from collections.abc import Generator

CI = bool(os.environ.get("CI"))
REQUIRED = os.environ.get("DGDM_REQUIRE_INTEGRATION", "") not in ("", "0")
SEED = int(os.environ.get("DGDM_SEED") or (1 if CI else random.SystemRandom().randrange(2**32)))
INTEGRATION = Path(__file__).parent / "integration"
# A skip that names a server counts as an integration test, whether or not its author marked it.
NAMES_A_SERVER = re.compile(r"\b(kafka|redis|docker|java|broker|container)", re.IGNORECASE)

settings.register_profile(
    "dev",
    derandomize=False,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("ci", settings.get_profile("dev"), database=None)
settings.register_profile(  # a mutant is red at the first example that fails, be it as small as it may
    "mutants", settings.get_profile("dev"), database=None, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if CI else "dev"))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Before Hypothesis' own plugin reads it. A seed, not `derandomize`: it can be changed and printed.
    if config.getoption("--hypothesis-seed") is None:
        config.option.hypothesis_seed = str(SEED)
    # As in the background of a script: children would inherit it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_report_header() -> list[str]:
    mode = "a skipped integration test is a failure" if REQUIRED else "what this machine lacks is skipped"
    return [f"seed: {SEED} (DGDM_SEED={SEED} repeats this run)", f"integration: {mode}"]


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of this run, printed in the header; DGDM_SEED sets it."""
    return SEED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if INTEGRATION in item.path.parents:
            item.add_marker(pytest.mark.integration)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport, *, integration: bool) -> None:
    expected_failure = hasattr(report, "wasxfail")
    if REQUIRED and report.skipped and not expected_failure:
        reason = _reason(report)
        if integration or NAMES_A_SERVER.search(reason):
            report.outcome = "failed"
            report.longrepr = f"skipped, and DGDM_REQUIRE_INTEGRATION=1 forbids it: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _forbid_skip(report, integration=item.get_closest_marker("integration") is not None)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _forbid_skip(report, integration=INTEGRATION in collector.path.parents)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = Counter(_reason(report) for report in terminalreporter.getreports("skipped"))
    if skipped:
        terminalreporter.section("not run on this machine")
        for reason, tests in skipped.most_common():
            terminalreporter.line(f"{tests:4d} {'test' if tests == 1 else 'tests'}: {reason}")
