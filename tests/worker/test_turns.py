"""What one turn makes of a publication that arrives in the middle of it."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from graphtools import graph_of
from processes import settings_of

from dgdm.consumers.events import EventBatch
from dgdm.pipeline import Pipeline
from dgdm.reading import Read
from dgdm.schemas.events import SetFeatures, encode_event
from dgdm.telemetry import Metrics


def read(name: str, value: float) -> Read:
    """A node and its features, in a record nobody looks at."""
    event = SetFeatures(name, np.full(4, value, np.float32))
    return Read(EventBatch((), {}, {}), [encode_event(event)], None)


async def test_what_is_published_next_is_measured_by_what_has_just_arrived() -> None:
    settings, graph = settings_of("sqlite:///log", "sqlite:///store"), graph_of(4)
    anybody: Any = None  # a turn asks for none of these
    pipeline = Pipeline(
        settings=settings,
        graph=graph,
        source=anybody,
        sink=anybody,
        dead_letters=anybody,
        checkpoint=anybody,
        kernel=anybody,
        metrics=Metrics(),
        stop=asyncio.Event(),
        enter=anybody,
        report=anybody,
    )
    known = pipeline._turn(read("a", 1.0), {0: 1}, 1.0, limit=10).publication
    assert known is not None
    pipeline._arrived.append(known)
    first = pipeline._turn(read("a", 5.0), {0: 2}, 1.0, limit=10).publication
    assert first is not None
    assert first.ids == ["a"]
    arrival = asyncio.get_running_loop().create_future()
    pipeline._publishing = arrival  # type: ignore[assignment]
    assert pipeline._turn(read("b", 1.0), {0: 3}, 1.0, limit=10).publication is None, "one is on its way"
    push = graph.push

    def arrives(*given: Any) -> bool:
        pipeline._arrived.append(first)
        arrival.set_result(None)
        return push(*given)

    graph.push = arrives  # type: ignore[method-assign]
    second = pipeline._turn(read("a", 1.0), {0: 4}, 1.0, limit=10).publication
    assert second is not None
    assert sorted(second.ids) == ["a", "b"], "consumers hold 5 of a, whatever they held before"
