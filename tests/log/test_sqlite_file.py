"""SQLite only: a file can be the wrong one, old, damaged or locked; a Kafka broker cannot."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest
from logtools import messages, read_to_end, values

from dgdm.log import (
    LogError,
    LogUnavailableError,
    UnknownTopicError,
    open_log,
    sqlite_compaction,
    sqlite_file,
)

if TYPE_CHECKING:
    from pathlib import Path


async def refusal(path: Path) -> str:
    log = open_log(f"sqlite:///{path}")
    with pytest.raises(LogError) as caught:
        await log.describe(["a"])
    await log.close()
    return str(caught.value)


def other_database(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)


async def test_a_file_that_is_not_a_log(tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes, in which nothing must change\n" * 100)
    before = path.read_bytes()
    assert "is not a dgdm log" in await refusal(path)
    assert path.read_bytes() == before
    path = tmp_path / "other.db"
    other_database(path, "CREATE TABLE mine (a)")
    assert "is not a dgdm log" in await refusal(path)
    path = tmp_path / "store.db"
    other_database(path, "PRAGMA application_id = 7")
    assert "is not a dgdm log" in await refusal(path)


async def test_a_log_of_another_format(tmp_path: Path):
    path = tmp_path / "log.db"
    log = open_log(f"sqlite:///{path}")
    await log.create("a", 1, {})
    await log.close()
    other_database(path, "PRAGMA user_version = 99")
    said = await refusal(path)
    assert "format 99" in said
    assert f"reads format {sqlite_file.FORMAT}" in said


async def test_a_folder_and_a_place_that_cannot_be(tmp_path: Path):
    assert "is a folder" in await refusal(tmp_path)
    (tmp_path / "file").write_text("")
    log = open_log(f"sqlite:///{tmp_path}/file/log.db")
    with pytest.raises(LogError, match="cannot be opened"):
        await log.create("a", 1, {})
    await log.close()


async def test_a_name_mistyped_leaves_nothing_behind(tmp_path: Path):
    log = open_log(f"sqlite:///{tmp_path}/folder/lgo.db")
    assert await log.describe(["a"]) == {}
    for client in (log.reader("a", "read_committed"), log.writer(), log.transactional_writer("w", 10)):
        with pytest.raises(
            UnknownTopicError,
            match=r"there is no log .*folder.lgo\.db: run this where `dgdm up` runs, name another file",
        ):
            await client.start()
        await client.close()
    await log.close()
    assert not (tmp_path / "folder").exists()


async def test_folders_on_the_way_are_made_and_first_openers_do_not_collide(tmp_path: Path):
    for number in range(25):  # the race is narrow
        logs = [open_log(f"sqlite:///{tmp_path}/new/folder/log{number}.db") for _ in range(8)]
        made = await asyncio.gather(*(log.create("a", 2, {}) for log in logs))
        assert sorted(made) == [False] * 7 + [True]
        for log in logs:
            await log.close()


async def test_a_lock_that_is_not_released_is_unavailable_not_a_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT", 0.05)
    path = tmp_path / "log.db"
    log = open_log(f"sqlite:///{path}")
    await log.create("a", 1, {})
    writer, reader = log.writer(), log.reader("a", "read_committed")
    await writer.start()
    await reader.start()
    assert await writer.append("a", 0, messages("1")) == 1
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogUnavailableError, match="locked"):
            await writer.append("a", 0, messages("2"))
        assert values(await read_to_end(reader)) == [b"1"]  # readers do not wait for writers
        holder.execute("ROLLBACK")
    with pytest.raises(LogUnavailableError, match="locked"):  # dead, as with Kafka
        await writer.append("a", 0, messages("3"))
    for client in (writer, reader, log):
        await client.close()


async def test_a_damaged_file_is_told(tmp_path: Path):
    path = tmp_path / "log.db"
    log = open_log(f"sqlite:///{path}")
    await log.create("a", 1, {})
    writer = log.writer()
    await writer.start()
    await writer.append("a", 0, messages(*map(str, range(5000))))
    await writer.close()
    await log.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    reader = open_log(f"sqlite:///{path}").reader("a", "read_committed")
    with pytest.raises(LogError, match="damaged"):
        await reader.start()


async def test_the_file_stays_small_when_few_keys_change_often(tmp_path: Path):
    path = tmp_path / "log.db"
    log = open_log(f"sqlite:///{path}")
    await log.create("a", 1, {"cleanup.policy": "compact"})
    writer = log.writer()
    await writer.start()
    sizes = []
    for round_ in range(60):
        await writer.append(
            "a", 0, [m._replace(value=b"%d" % round_ * 100) for m in messages(*"abcdefgh")] * 100
        )
        if round_ in {20, 59}:
            sizes.append(path.stat().st_size + path.with_name("log.db-wal").stat().st_size)
    with contextlib.closing(sqlite3.connect(path)) as db:
        (left,) = db.execute("SELECT count(*) FROM records").fetchone()
    assert left < 3 * sqlite_compaction.CHUNK
    assert sizes[1] < 1.5 * sizes[0]
    await writer.close()
    await log.close()


async def test_tombstones_stay_for_a_while_and_records_for_their_retention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    compact = {"cleanup.policy": "compact", "delete.retention.ms": "60000", "min.cleanable.dirty.ratio": "0"}
    await log.create("table", 1, compact)
    await log.create("events", 1, {"retention.ms": "60000"})
    writer, reader = log.writer(), log.reader("table", "read_committed")
    events = log.reader("events", "read_committed")
    for client in (writer, reader, events):
        await client.start()
    gone = messages("gone")[0]
    filler = messages("filler") * sqlite_compaction.CHUNK
    await writer.append("table", 0, [gone, gone._replace(value=None), *filler])
    await writer.append("events", 0, messages("old"))
    assert [r.value for r in await read_to_end(reader) if r.key == b"gone"] == [None]

    later = sqlite_file.now_ms() + 61_000
    for module in ("sqlite_compaction", "sqlite_records"):
        monkeypatch.setattr(f"dgdm.log.{module}.now_ms", lambda: later)
    await writer.append("table", 0, filler)
    await writer.append("events", 0, messages("new"))
    reader.seek({0: 0})
    assert {r.key for r in await read_to_end(reader)} == {b"filler"}
    assert await events.beginning_offsets() == {0: 1}
    events.seek({0: 1})
    assert values(await read_to_end(events)) == [b"new"]
    for client in (writer, reader, events, log):
        await client.close()
