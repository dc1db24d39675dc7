"""The pages and schemas that are made of the code are those of this code, and leave nothing out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from dgdm.docs.generated import FOLDER, SECTIONS, WAYS, generated
from dgdm.docs.sources import log_lines
from dgdm.schemas.reasons import Reason
from dgdm.settings import Settings
from dgdm.telemetry import Metrics
from dgdm.tpu.metrics import TpuMetrics
from dgdm.worker import Exit

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("name", sorted(generated()))
def test_a_page_is_made_of_this_code(name: str) -> None:
    assert (FOLDER / name).read_text() == generated()[name], "`make docs`, and look at what changed"


def test_every_setting_has_its_row() -> None:
    page = (FOLDER / "settings.md").read_text()
    assert SECTIONS.keys() <= Settings.model_fields.keys()
    for name, field in Settings.model_fields.items():
        (row,) = re.findall(rf"^\| `{name}`<br>`DGDM_{name.upper()}` \| (.*) \|$", page, re.MULTILINE)
        assert len(str(field.description)) > 10, f"{name}: what is it for?"
        assert str(field.description) in row
    assert {name for name in Settings.model_fields if "**Frozen.**" in row_of(page, name)} == {
        "features",
        "directed",
        "aggregate",
    }


def row_of(page: str, name: str) -> str:
    return next(line for line in page.splitlines() if line.startswith(f"| `{name}`<br>"))


def exposed() -> set[str]:
    """Names as Prometheus sees them, of the samples and of what they belong to."""
    registry = Metrics().registry
    TpuMetrics(registry)
    lines = generate_latest(registry).decode().splitlines()
    families = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    return {name for name in families if not name.endswith("_created")}


def test_every_metric_that_is_exposed_has_its_row() -> None:
    page = (FOLDER / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(dgdm_\w+)`", page, re.MULTILINE)) == exposed()


def test_every_metric_that_a_page_names_is_exposed() -> None:
    for page in PAGES:
        named = set(re.findall(r"\bdgdm_[a-z][a-z0-9_]+[a-z]\b", page.read_text()))
        assert named <= exposed(), page.name


def test_reasons_events_and_exit_codes_are_all_there() -> None:
    page = (FOLDER / "messages.md").read_text()
    worker, clients = log_lines()
    events = {line.event for line in [*worker, *clients]}
    assert {"serving", "refused", "table_lost"} <= events
    assert set(WAYS) == events, "what does each ask for?"
    rows = set(re.findall(r"^\| `?([a-z0-9_-]+)`? \|", page, re.MULTILINE)) - {
        "---",
        "reason",
        "event",
        "code",
    }
    assert rows == set(Reason) | events | {str(code.value) for code in Exit} | {"1", "130"}
