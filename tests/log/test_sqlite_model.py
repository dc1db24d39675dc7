"""SQLite only (a broker is too slow for thousands of examples): random interleavings against a dict model of a log."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from logtools import messages

from dgdm.log import OffsetOutOfRangeError, ProducerFencedError, open_log

PARTITIONS = 2
partitions = st.integers(0, PARTITIONS - 1)
slots = st.integers(0, 1)  # two writers share one transactional id


@dataclass
class Transaction:
    """An open, committed or aborted transaction of the model."""

    state: str = "open"
    first: dict[int, int] = field(default_factory=dict)


@dataclass
class Writer:
    """A live client and what the model knows of it."""

    client: Any
    epoch: int
    open: bool = False
    txn: Transaction | None = None


class Model:
    """A log as a dict: offset → (value, transaction); markers are gaps."""

    def __init__(self) -> None:
        self.records: list[dict[int, tuple[bytes, Transaction | None]]] = [{} for _ in range(PARTITIONS)]
        self.next = [0] * PARTITIONS
        self.first = [0] * PARTITIONS
        self.epoch = -1
        self.open: Transaction | None = None

    def append(self, partition: int, values: list[bytes], txn: Transaction | None) -> int:
        if txn is not None:
            txn.first.setdefault(partition, self.next[partition])
        for value in values:
            self.records[partition][self.next[partition]] = (value, txn)
            self.next[partition] += 1
        return self.next[partition]

    def end(self, txn: Transaction, state: str) -> None:
        txn.state = state
        for partition in txn.first:
            self.next[partition] += 1
        self.open = None

    def stable(self, partition: int, isolation: str) -> int:
        if isolation == "read_committed" and self.open is not None:
            return self.open.first.get(partition, self.next[partition])
        return self.next[partition]

    def visible(self, partition: int, position: int, isolation: str) -> list[tuple[int, bytes]]:
        end = self.stable(partition, isolation)
        return [
            (offset, value)
            for offset, (value, txn) in self.records[partition].items()
            if max(position, self.first[partition]) <= offset < end
            and (isolation == "read_uncommitted" or txn is None or txn.state == "committed")
        ]


class LogMachine(RuleBasedStateMachine):
    """Two transactional writers, a plain one, and a reader for each isolation."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.log: Any = open_log(f"sqlite:///{self.folder.name}/log.db")
        self.model = Model()
        self.run(self.log.create("t", PARTITIONS, {}))
        self.plain = self.run(self.started(self.log.writer()))
        self.writers: list[Writer | None] = [None, None]
        self.readers = {
            isolation: self.run(self.started(self.log.reader("t", isolation)))
            for isolation in ("read_committed", "read_uncommitted")
        }
        self.count = 0

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    async def started(self, client: Any) -> Any:
        await client.start()
        return client

    def fresh(self, count: int) -> list[Any]:
        self.count += count
        return messages(*(str(i) for i in range(self.count - count, self.count)))

    @rule(slot=slots)
    def start(self, slot: int) -> None:
        if (old := self.writers[slot]) is not None:
            self.close(slot, old)
        client = self.run(self.started(self.log.transactional_writer("one", 600)))
        if self.model.open is not None:
            self.model.end(self.model.open, "aborted")
        self.model.epoch += 1
        self.writers[slot] = Writer(client, self.model.epoch)

    def close(self, slot: int, writer: Writer) -> None:
        self.run(writer.client.close())
        if writer.txn is not None and writer.txn is self.model.open:
            self.model.end(writer.txn, "aborted")
        self.writers[slot] = None

    @rule(slot=slots)
    def stop(self, slot: int) -> None:
        if (writer := self.writers[slot]) is not None:
            self.close(slot, writer)

    @rule(slot=slots, partition=partitions, count=st.integers(1, 3))
    def append(self, slot: int, partition: int, count: int) -> None:
        writer = self.writers[slot]
        if writer is None:
            return
        if not writer.open:
            if writer.client._dead is None:
                self.run(writer.client.begin())
            writer.open = True
        batch = self.fresh(count)
        if writer.epoch != self.model.epoch:
            with pytest.raises(ProducerFencedError):
                self.run(writer.client.append("t", partition, batch))
            return
        if writer.txn is None:
            writer.txn = self.model.open = Transaction()
        expected = self.model.append(partition, [m.value for m in batch], writer.txn)
        assert self.run(writer.client.append("t", partition, batch)) == expected

    @rule(slot=slots, commit=st.booleans())
    def end(self, slot: int, commit: bool) -> None:
        writer = self.writers[slot]
        if writer is None or writer.txn is None:
            return
        ending = writer.client.commit() if commit else writer.client.abort()
        if writer.epoch != self.model.epoch:
            with pytest.raises(ProducerFencedError):
                self.run(ending)
            return
        self.run(ending)
        self.model.end(writer.txn, "committed" if commit else "aborted")
        writer.txn, writer.open = None, False

    @rule(partition=partitions, count=st.integers(1, 3))
    def append_plain(self, partition: int, count: int) -> None:
        batch = self.fresh(count)
        expected = self.model.append(partition, [m.value for m in batch], None)
        assert self.run(self.plain.append("t", partition, batch)) == expected

    @precondition(lambda self: self.model.open is None)
    @rule(partition=partitions, share=st.floats(0, 1))
    def delete(self, partition: int, share: float) -> None:
        before = int(self.model.next[partition] * share)
        self.run(self.log.delete_records("t", {partition: before}))
        self.model.first[partition] = max(self.model.first[partition], before)

    @rule(isolation=st.sampled_from(["read_committed", "read_uncommitted"]), most=st.integers(1, 4))
    def poll(self, isolation: str, most: int) -> None:
        reader = self.readers[isolation]
        before = reader.positions()
        if any(before[p] < self.model.first[p] for p in before):
            with pytest.raises(OffsetOutOfRangeError):
                self.run(reader.poll(most, 0))
            reader.seek({p: self.model.first[p] for p in before if before[p] < self.model.first[p]})
            return
        got = self.run(reader.poll(most, 0))
        assert len(got) <= most
        for p, position in reader.positions().items():
            mine = [(r.offset, r.value) for r in got if r.partition == p]
            wanted = self.model.visible(p, before[p], isolation)
            assert mine == wanted[: len(mine)]
            # The position stands behind all that was given, before all that was not, and never beyond the end.
            assert all(offset < position for offset, _ in mine)
            assert all(offset >= position for offset, _ in wanted[len(mine) :])
            assert before[p] <= position <= max(before[p], self.model.stable(p, isolation))
        if len(got) < most:
            assert all(
                position >= self.model.stable(p, isolation) for p, position in reader.positions().items()
            )

    @rule(isolation=st.sampled_from(["read_committed", "read_uncommitted"]), share=st.floats(0, 1))
    def seek(self, isolation: str, share: float) -> None:
        self.readers[isolation].seek({0: int(self.model.next[0] * share)})

    @invariant()
    def ends_agree(self) -> None:
        for isolation, reader in self.readers.items():
            ends = self.run(reader.end_offsets())
            assert ends == {p: self.model.stable(p, isolation) for p in range(PARTITIONS)}

    def teardown(self) -> None:
        for client in (*(w.client for w in self.writers if w), self.plain, *self.readers.values(), self.log):
            self.run(client.close())
        self.loop.close()
        self.folder.cleanup()


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
