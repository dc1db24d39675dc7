"""Fifteen SIGKILLs in one run, under load that does not wait: afterwards everything is what it would have been."""

from __future__ import annotations

from pathlib import Path

import pytest
from kills import kill_often
from processes import make_topics

from dgdm.settings import Settings

KILLS = 15

pytestmark = pytest.mark.timeout(280)


async def test_killed_at_random_under_load(settings: Settings, tmp_path: Path, seed: int) -> None:
    await make_topics(settings)
    killed = await kill_often(settings.model_copy(update={"catch_up": 3_000}), tmp_path, KILLS, seed)
    assert len(killed.kills) == KILLS
    assert [verdict.wrong for verdict in killed.verdicts] == [[]] * len(killed.verdicts)
    assert killed.verdicts[-1].sequence > 5_000, "there was a load"
