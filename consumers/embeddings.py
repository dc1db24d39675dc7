"""EmbeddingStream: how programs read embeddings, as changes or as a table."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import structlog
from numpy.typing import NDArray

from ..log import open_log
from ..log.interface import Isolation, Log, LogReader, Record
from ..schemas.embeddings import Embedding, Removed, decode_embedding
from ..schemas.reasons import InvalidEvent

if TYPE_CHECKING:
    from types import TracebackType

    from ..log.security import KafkaSecurity

log = structlog.get_logger()

Change = Embedding | Removed


class EmbeddingStream:
    """Changes of embeddings, in the order of the log.

    async with EmbeddingStream("kafka://localhost:9092") as stream:
        async for change in stream:
            ...
    """

    def __init__(
        self,
        log: str | Log,
        topic: str = "dgdm.embeddings",
        *,
        isolation: Isolation = "read_uncommitted",
        start: Literal["now", "beginning"] | Mapping[int, int] = "now",
        security: KafkaSecurity | None = None,
    ) -> None:
        self._own_log = isinstance(log, str)
        self._log: Log = open_log(log, security) if isinstance(log, str) else log
        self._reader: LogReader = self._log.reader(topic, isolation)
        self._start = start
        self.skipped = 0  # records that are no embeddings

    async def __aenter__(self) -> Self:
        await self._reader.start()
        begin = await self._reader.beginning_offsets()
        if self._start == "now":
            self._reader.seek(await self._reader.end_offsets())
        else:
            self._reader.seek({**begin, **(self._start if isinstance(self._start, Mapping) else {})})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._reader.close()
        if self._own_log:
            await self._log.close()

    async def __aiter__(self) -> AsyncIterator[Change]:
        while True:
            for change in await self.poll():
                yield change

    async def poll(self, timeout: float = 0.5) -> list[Change]:  # noqa: ASYNC109 - the longest wait
        """The next changes; [] when none came within `timeout` seconds. Raises LogError."""
        return [change for change, _ in await self.poll_records(timeout)]

    async def poll_records(self, timeout: float = 0.5) -> list[tuple[Change, Record]]:  # noqa: ASYNC109 - as poll
        """As `poll`, each with the record it came in."""
        changes: list[tuple[Change, Record]] = []
        for record in await self._reader.poll(10_000, timeout):
            try:
                changes.append((decode_embedding(record.key, record.value), record))
            except InvalidEvent as error:
                self.skipped += 1
                log.warning("bad_embedding", message=f"skipped offset {record.offset}: {error}")
        return changes

    def positions(self) -> dict[int, int]:
        """Next offsets to read, by partition."""
        return self._reader.positions()

    async def end(self) -> dict[int, int]:
        """Where the topic ends now, by partition."""
        return await self._reader.end_offsets()

    async def as_table(self) -> EmbeddingTable:
        """Everything consumers hold, from the beginning of the topic, then live."""
        self._reader.seek(await self._reader.beginning_offsets())
        table = EmbeddingTable(self)
        await table.catch_up()
        return table


class EmbeddingTable(Mapping[str, NDArray[np.float32]]):
    """Id → vector [F], as the compacted topic says; follows it while `following()` is entered."""

    def __init__(self, stream: EmbeddingStream) -> None:
        self._stream = stream
        self._vectors: dict[str, Embedding] = {}

    def __getitem__(self, node: str) -> NDArray[np.float32]:
        return self._vectors[node].vector

    def __iter__(self) -> Iterator[str]:
        return iter(self._vectors)

    def __len__(self) -> int:
        return len(self._vectors)

    def embedding(self, node: str) -> Embedding:
        """A node's whole record."""
        return self._vectors[node]

    async def catch_up(self, until: Mapping[int, int] | None = None) -> None:
        """Read to these offsets, by default to the end as of now."""
        until = await self._stream.end() if until is None else until
        while any(self._stream.positions().get(p, 0) < end for p, end in until.items()):
            self.update(await self._stream.poll())

    def update(self, changes: list[Change]) -> None:
        """Take changes in."""
        for change in changes:
            if isinstance(change, Removed):
                self._vectors.pop(change.id, None)
            else:
                self._vectors[change.id] = change

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[Self]:
        """Keep up with the topic in the background."""
        task = asyncio.create_task(self._follow())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            self.update(await self._stream.poll())
