"""What `dgdm tail` shows: embeddings as they change, or dead letters."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from .connections import connect_log
from .consumers.embeddings import EmbeddingStream
from .schemas.deadletters import ERROR, MESSAGE, OFFSET, PARTITION, TOPIC
from .schemas.embeddings import Embedding

if TYPE_CHECKING:
    from .consumers.embeddings import Change
    from .log.interface import Record
    from .settings import Settings

SHOWN = 8  # columns of a vector in a line for people


class Line(NamedTuple):
    """One record, for people and for scripts."""

    text: str
    fields: dict[str, Any]


async def follow(settings: Settings, *, beginning: bool, dead_letters: bool) -> AsyncGenerator[Line]:
    """Records as they come, without end; first those that are there, with `beginning`. Raises LogError."""
    log = connect_log(settings)
    try:
        if not dead_letters:
            start: Any = "beginning" if beginning else "now"
            async with EmbeddingStream(log, settings.embeddings_topic, start=start) as stream:
                async for change in stream:
                    yield _embedding(change)
        reader = log.reader(settings.dead_letters_topic, "read_uncommitted")
        await reader.start()
        try:
            if not beginning:
                reader.seek(await reader.end_offsets())
            while True:
                for record in await reader.poll(1_000, 0.5):
                    yield _dead_letter(record)
        finally:
            await reader.close()
    finally:
        await log.close()


def _embedding(change: Change) -> Line:
    if not isinstance(change, Embedding):
        return Line(f"{change.id}  removed", {"id": change.id, "vector": None})
    vector = change.vector.tolist()
    shown = " ".join(f"{x:.4g}" for x in vector[:SHOWN]) + (" …" if len(vector) > SHOWN else "")
    fields = {"id": change.id, "vector": vector, "sequence": change.sequence, "ts": change.ts}
    return Line(f"{change.id}  {shown}", fields)


def _dead_letter(record: Record) -> Line:
    headers = {name: content.decode(errors="replace") for name, content in record.headers}
    place = f"{headers.get(TOPIC)}[{headers.get(PARTITION)}] offset {headers.get(OFFSET)}"
    fields = {**headers, "key": _plain(record.key), "value": _plain(record.value)}
    return Line(f"{headers.get(ERROR)}  {place}: {headers.get(MESSAGE)}", fields)


def _plain(content: bytes | None) -> str | dict[str, str] | None:
    """Text as it is, an event in MessagePack as JSON, anything else as base64."""
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return _as_json(content) or {"base64": base64.b64encode(content).decode()}


def _as_json(content: bytes) -> str | None:
    """A map in MessagePack as JSON, its features as numbers; None when it is none."""
    try:
        event = msgspec.msgpack.decode(content)
        if not isinstance(event, dict):
            return None
        features = event.get("features")
        if isinstance(features, bytes) and len(features) % 4 == 0:
            event["features"] = np.frombuffer(features, "<f4").tolist()
        return msgspec.json.encode(event).decode()
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return None
