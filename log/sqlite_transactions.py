"""Transactions of a SQLite log. Each function runs inside one write transaction of SQLite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .interface import ProducerFencedError
from .sqlite_file import now_ms

if TYPE_CHECKING:
    import sqlite3


def new_epoch(db: sqlite3.Connection, producer: str) -> int:
    """Fence earlier writers with this transactional id and abort what they left open."""
    (epoch,) = db.execute(
        "INSERT INTO producers VALUES (?, 0) ON CONFLICT (id) DO UPDATE SET epoch = epoch + 1 "
        "RETURNING epoch",
        (producer,),
    ).fetchone()
    for (txn,) in db.execute(
        "SELECT id FROM txns WHERE state = 'open' AND producer = ?", (producer,)
    ).fetchall():
        end_transaction(db, txn, commit=False)
    return int(epoch)


def require_epoch(db: sqlite3.Connection, producer: str, epoch: int) -> None:
    """Raise ProducerFencedError when a later writer has started or the transaction has timed out."""
    row = db.execute("SELECT epoch FROM producers WHERE id = ?", (producer,)).fetchone()
    if row != (epoch,):
        raise ProducerFencedError(
            f"a later writer with transactional id {producer!r} has started, or a transaction timed out"
        )


def begin_transaction(db: sqlite3.Connection, producer: str, epoch: int, deadline: int) -> int:
    """The number of the new transaction; `deadline` in milliseconds since the epoch."""
    cursor = db.execute(
        "INSERT INTO txns (producer, epoch, state, deadline) VALUES (?, ?, 'open', ?)",
        (producer, epoch, deadline),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def end_transaction(db: sqlite3.Connection, txn: int, *, commit: bool) -> None:
    """Commit or abort. The marker takes an offset in each partition, as in Kafka."""
    db.execute(
        "UPDATE partitions SET next_offset = next_offset + 1 "
        "WHERE id IN (SELECT partition FROM txn_partitions WHERE txn = ?)",
        (txn,),
    )
    db.execute("DELETE FROM txn_partitions WHERE txn = ?", (txn,))
    if commit:
        db.execute("DELETE FROM txns WHERE id = ?", (txn,))
    else:
        db.execute("UPDATE txns SET state = 'aborted' WHERE id = ?", (txn,))


def expired(db: sqlite3.Connection) -> bool:
    """Some open transaction is past its deadline."""
    found = db.execute("SELECT 1 FROM txns WHERE state = 'open' AND deadline < ? LIMIT 1", (now_ms(),))
    return found.fetchone() is not None


def abort_expired(db: sqlite3.Connection) -> None:
    """Abort transactions past their deadline and fence their writers: done by whoever meets them."""
    query = "SELECT id, producer FROM txns WHERE state = 'open' AND deadline < ?"
    for txn, producer in db.execute(query, (now_ms(),)).fetchall():
        end_transaction(db, txn, commit=False)
        db.execute("UPDATE producers SET epoch = epoch + 1 WHERE id = ?", (producer,))
