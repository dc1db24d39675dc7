"""A folder of one's own, an environment without settings, and the topics of a graph."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from clitools import make_topics

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the present one."""
    for name in os.environ:
        if name.upper().startswith("DGDM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def folder(empty: Path) -> Path:
    """The same with an embedded log that has the topics of the default graph, and nothing in them."""
    make_topics()
    return empty
