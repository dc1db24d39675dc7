"""200,000 spoiled messages: the decoder and the oracle's agree on every one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import oracle
import pytest
from mutations import Mutations

from dgdm.schemas.events import AddEdge, RemoveEdge, decode_event
from dgdm.schemas.reasons import InvalidEvent, Reason

COUNT = 200_000
# The others need a graph to be judged by.
DECODED = {
    Reason.NULL_VALUE,
    Reason.UNDECODABLE,
    Reason.WRONG_TYPE,
    Reason.BAD_ID,
    Reason.NOT_FINITE,
    Reason.BAD_WEIGHT,
}


@pytest.mark.timeout(240)
def test_the_decoder_and_the_oracle_agree_on_every_spoiled_message(seed: int) -> None:
    mutations = Mutations(seed)
    reasons: Counter[str] = Counter()
    for _ in range(COUNT):
        message = mutations.bad()
        mine, theirs = verdict(message.value), foreign(message.value)
        assert mine == theirs, f"{message.made}: {message.value!r:.500}"
        reasons[mine if isinstance(mine, str) else "good"] += 1
    assert {slug for slug, times in reasons.items() if times > COUNT / 200} == DECODED | {"good"}, reasons


def verdict(value: bytes | None) -> Any:
    """What dgdm makes of it: the reason it is refused for, or the event's fields, vectors as bytes."""
    try:
        event = decode_event(value)
    except InvalidEvent as error:
        return error.reason.value
    kind = type(event).__name__
    if isinstance(event, AddEdge):
        return kind, (event.source, event.target), None, event.weight, event.op, event.ts
    if isinstance(event, RemoveEdge):
        return kind, (event.source, event.target), None, 1.0, "set", event.ts
    return kind, (event.id,), packed(getattr(event, "features", None)), 1.0, "set", event.ts


def foreign(value: bytes | None) -> Any:
    """The same by the oracle."""
    event = oracle.read(value)
    if isinstance(event, str):
        return event
    return event.kind, event.nodes, packed(event.features), float(event.weight), event.op, event.ts


def packed(features: np.ndarray | None) -> bytes | None:
    return None if features is None else features.astype("<f4").tobytes()
