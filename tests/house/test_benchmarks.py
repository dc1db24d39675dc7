"""Every benchmark is described, and what is kept of it is on the page."""

from __future__ import annotations

import json
from pathlib import Path

from dgdm.benchmarks.page import RESULTS, page
from dgdm.benchmarks.registry import NAMES

ROOT = Path(__file__).parents[2]


def test_the_page_is_made_of_the_results_that_are_kept() -> None:
    assert (ROOT / "docs" / "benchmarks.md").read_text() == page(), "`make docs`"


def test_every_benchmark_is_described() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    for name, run in NAMES.items():
        assert f"\n## {name}\n\n{(run.__doc__ or 'nothing').strip()}\n" in text


def test_a_result_that_is_kept_belongs_to_its_name() -> None:
    for name in NAMES:
        kept = RESULTS / f"{name}.json"
        if kept.exists():
            found = json.loads(kept.read_text())
            assert (found["benchmark"], found["quick"]) == (name, False)
