"""Files into the events topic: the body of `dgdm produce`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from .connections import connect_log
from .producers.files import BadLine, Format, format_of, open_input, read_events
from .producers.graph import GraphProducer

if TYPE_CHECKING:
    from .settings import Settings


@dataclass(slots=True)
class Sent:
    """How far it has come."""

    events: int = 0
    bad: int = 0


async def send_files(
    settings: Settings,
    paths: Sequence[str],
    kind: str | None,
    *,
    wait: bool,
    tell: Callable[[str, Sent, BadLine | None], None],
) -> Sent:
    """Send every event of these files in order; `tell` hears of each bad line and now and then of the rest.

    Raises OSError, ValueError, LogError; with `wait`, returns when the embeddings reflect all of it.
    """
    formats = [cast("Format", kind or ("jsonl" if path == "-" else format_of(path))) for path in paths]
    sent, log = Sent(), connect_log(settings)
    producer = GraphProducer(
        log, settings.events_topic, progress_topic=settings.progress_topic, graph=settings.graph
    )
    try:
        async with producer:
            for path, name in zip(paths, formats, strict=True):
                with open_input(path) as stream:
                    for item in read_events(stream, name):
                        if isinstance(item, BadLine):
                            sent.bad += 1
                            tell(path, sent, item)
                            continue
                        await producer.send(item)
                        sent.events += 1
                        if sent.events % 1000 == 0:
                            tell(path, sent, None)
            if wait:
                await producer.visible(3600)
    finally:
        await log.close()
    return sent
