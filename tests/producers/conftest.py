"""Both logs for one test body."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from brokers import shared_broker
from logtools import Place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", "kafka"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """Either log."""
    here = Place(f"sqlite:///{tmp_path}/log.db" if request.param == "sqlite" else shared_broker().url)
    yield here
    await here.close()
