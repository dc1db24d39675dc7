"""Files into the events topic: the body of `dgdm produce`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

from .connections import connect_log
from .producers.files import BadLine, Format, format_of, open_input, read_events, require_input
from .producers.graph import GraphProducer

if TYPE_CHECKING:
    from .schemas.events import GraphEvent
    from .settings import Settings

    Item = GraphEvent | BadLine

AHEAD = 10_000  # items read before they are taken
PATIENCE = 3600.0  # seconds that `wait` waits


@dataclass(slots=True)
class Sent:
    """How far it has come."""

    events: int = 0
    bad: int = 0

    def __str__(self) -> str:
        return f"{self.events} events sent, {self.bad} bad lines"


async def send_files(
    settings: Settings,
    paths: Sequence[str],
    kind: str | None,
    sent: Sent,
    *,
    wait: bool,
    tell: Callable[[str, BadLine | None], None],
) -> None:
    """Send every event of these files in order and count them in `sent`; `tell` hears of bad lines, and now and then.

    Cancelled, it still writes what was sent. Raises OSError, ValueError, LogError; with `wait`, returns when the
    embeddings reflect all of it.
    """
    for path in paths:
        require_input(path)  # of all, before the first event is sent
    formats = [cast("Format", kind or ("jsonl" if path == "-" else format_of(path))) for path in paths]
    log = connect_log(settings)
    producer = GraphProducer(
        log, settings.events_topic, progress_topic=settings.progress_topic, graph=settings.graph
    )
    try:
        async with producer:
            try:
                for path, name in zip(paths, formats, strict=True):
                    await _send(producer, path, name, sent, tell)
            except asyncio.CancelledError:
                await producer.flush()
                raise
            if wait:
                await producer.visible(PATIENCE)
    finally:
        await log.close()


async def _send(
    producer: GraphProducer,
    path: str,
    kind: Format,
    sent: Sent,
    tell: Callable[[str, BadLine | None], None],
) -> None:
    async with ReadAhead(path, kind) as reader:
        while items := await reader.take():
            for item in items:
                if isinstance(item, BadLine):
                    sent.bad += 1
                    tell(path, item)
                    continue
                await producer.send(item)
                sent.events += 1
                if sent.events % 1000 == 0:
                    tell(path, None)


class ReadAhead:
    """A file, read by a thread of its own.

    A pipe may be silent for hours: what it said before must be sent meanwhile, and Ctrl-C must be heard.
    """

    def __init__(self, path: str, kind: Format) -> None:
        self._path, self._kind = path, kind
        self._lock = threading.Condition()  # guards the four below
        self._waiting: list[Item] = []
        self._ended = False  # all is read
        self._left = False  # nobody takes any more
        self._failure: Exception | None = None
        self._something = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        # A daemon, because nothing interrupts a thread that waits for a pipe, and the process must be able to end.
        threading.Thread(target=self._read, name="dgdm-read", daemon=True).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        with self._lock:
            self._left = True
            self._lock.notify()

    async def take(self) -> list[Item]:
        """What has been read since the last call, at least one item; [] at the end. Raises OSError."""
        while True:
            with self._lock:
                items, self._waiting = self._waiting, []
                if items:
                    self._lock.notify()
                    return items
                if self._failure is not None:
                    raise self._failure
                if self._ended:
                    return []
                self._something.clear()
            await self._something.wait()

    def _read(self) -> None:
        failure: Exception | None = None
        try:
            with open_input(self._path) as stream:
                for item in read_events(stream, self._kind):
                    if not self._put(item):
                        return
        except OSError as error:
            error.filename = error.filename or self._path  # reading does not name it
            failure = error
        except Exception as error:  # noqa: BLE001 - raised by `take`
            failure = error
        with self._lock:
            self._ended, self._failure = True, failure
            self._wake()

    def _put(self, item: Item) -> bool:
        """Hand an item over; False when nobody takes any more."""
        with self._lock:
            while len(self._waiting) >= AHEAD and not self._left:
                self._lock.wait()
            if not self._left:
                self._waiting.append(item)
                if len(self._waiting) == 1:
                    self._wake()
            return not self._left

    def _wake(self) -> None:
        if not self._left:  # then the loop still runs
            self._loop.call_soon_threadsafe(self._something.set)
