"""The rule of conftest.py on skips, seen from outside: a skipped integration test is red when CI says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
TESTS = """
import pytest

@pytest.mark.integration
def test_marked(): pytest.skip("nothing to talk to")

def test_names_a_server(): pytest.skip("no redis-server on this machine")

def test_of_another_kind(): pytest.skip("only on macOS")

@pytest.mark.integration
@pytest.mark.xfail(reason="known", strict=True)
def test_expected_failure(): assert False
"""


def run(folder: Path, required: str) -> tuple[int, str]:
    (folder / "conftest.py").write_text(CONFTEST.read_text())
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = integration: as in the project\n")
    (folder / "test_three.py").write_text(TESTS)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            str(folder),
            "-c",
            str(folder / "pytest.ini"),
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "DGDM_REQUIRE_INTEGRATION": required, "DGDM_SEED": "7", "NO_COLOR": "1"},
    )
    return done.returncode, done.stdout


def test_skips_are_said_in_words(tmp_path: Path) -> None:
    code, out = run(tmp_path, "0")
    assert code == 0, out
    assert "3 skipped, 1 xfailed" in out
    assert "seed: 7" in out
    for reason in ("nothing to talk to", "no redis-server on this machine", "only on macOS"):
        assert f"1 test: {reason}" in out


@pytest.mark.parametrize("name", ["test_marked", "test_names_a_server"])
def test_a_skipped_integration_test_is_red_where_it_is_required(tmp_path: Path, name: str) -> None:
    code, out = run(tmp_path, "1")
    assert code == 1, out
    assert "2 failed, 1 skipped, 1 xfailed" in out
    assert f"FAILED test_three.py::{name}" in out


def test_a_skipped_module_is_red_where_it_is_required(tmp_path: Path) -> None:
    (tmp_path / "integration").mkdir()
    (tmp_path / "integration" / "test_module.py").write_text(
        'import pytest\npytest.skip("nothing here", allow_module_level=True)\n'
    )
    code, out = run(tmp_path, "1")
    assert code != 0, out
    assert "forbids it: nothing here" in out
