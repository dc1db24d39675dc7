"""What a SQLite log forgets: superseded records of compacted topics, and records past their retention.

Like Kafka's cleaner it reads the dirty end of a partition, up to the last stable offset, and remembers the
offset of the latest record per key; work and locks are one small chunk at a time. The last record per key
stays, a tombstone for `delete.retention.ms`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .sqlite_file import now_ms, writing

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

CHUNK = 1000  # records per write transaction


class Cleaning(NamedTuple):
    """A topic's configuration as far as it says what may be deleted; None where nothing may."""

    dirty_ratio: float | None
    tombstones_ms: int
    retention_ms: int | None


def cleaning_of(config: Mapping[str, str]) -> Cleaning:
    """From Kafka's configuration names. Without `retention.ms` records of a SQLite log stay."""
    policy = config.get("cleanup.policy", "delete")
    retention = int(config.get("retention.ms", -1))
    return Cleaning(
        float(config.get("min.cleanable.dirty.ratio", 0.5)) if "compact" in policy else None,
        int(config.get("delete.retention.ms", 86_400_000)),
        retention if "delete" in policy and retention >= 0 else None,
    )


def clean(db: sqlite3.Connection, partition: int, cleaning: Cleaning) -> None:
    """Clean a partition until it is clean enough."""
    if cleaning.dirty_ratio is not None:
        while _clean_chunk(db, partition, cleaning.dirty_ratio, cleaning.tombstones_ms):
            pass
    if cleaning.retention_ms is not None:
        while _retain_chunk(db, partition, now_ms() - cleaning.retention_ms):
            pass


def delete_before(db: sqlite3.Connection, partition: int, offset: int) -> None:
    """Delete the records below an offset, which becomes the first one."""
    with writing(db):
        db.execute(
            "UPDATE partitions SET first_offset = max(first_offset, ?) WHERE id = ?", (offset, partition)
        )
    deleted = CHUNK
    while deleted == CHUNK:
        with writing(db):
            deleted = db.execute(
                "DELETE FROM records WHERE partition = ?1 AND offset IN "
                "(SELECT offset FROM records WHERE partition = ?1 AND offset < ?2 ORDER BY offset LIMIT ?3)",
                (partition, offset, CHUNK),
            ).rowcount


def last_stable_offset(db: sqlite3.Connection, partition: int) -> int:
    """The first offset of the first open transaction, or the next offset."""
    query = (
        "SELECT coalesce((SELECT min(first_offset) FROM txn_partitions WHERE partition = p.id), next_offset) "
        "FROM partitions p WHERE id = ?"
    )
    return int(db.execute(query, (partition,)).fetchone()[0])


def _clean_chunk(db: sqlite3.Connection, partition: int, dirty_ratio: float, tombstones_ms: int) -> bool:
    """True when a chunk was cleaned and there may be another."""
    with writing(db):
        cleaned_to, cleaned = db.execute(
            "SELECT cleaned_to, cleaned_records FROM partitions WHERE id = ?", (partition,)
        ).fetchone()
        dirty = last_stable_offset(db, partition) - cleaned_to
        if dirty < CHUNK or dirty <= dirty_ratio * (dirty + cleaned):
            return False
        upper = cleaned_to + CHUNK
        deleted, kept = _supersede(db, partition, cleaned_to, upper, tombstones_ms)
        deleted += _drop_tombstones(db, partition)
        db.execute(
            "UPDATE partitions SET cleaned_to = ?, cleaned_records = ? WHERE id = ?",
            (upper, cleaned + kept - deleted, partition),
        )
    return True


def _supersede(
    db: sqlite3.Connection, partition: int, lower: int, upper: int, tombstones_ms: int
) -> tuple[int, int]:
    """Fold the records of [lower, upper) into `latest`: (older ones deleted, records now clean)."""
    db.execute(
        "DELETE FROM records WHERE partition = ? AND offset >= ? AND offset < ? "
        "AND txn IN (SELECT id FROM txns WHERE state = 'aborted')",
        (partition, lower, upper),
    )
    rows = db.execute(
        "SELECT key, offset, CASE WHEN value IS NULL THEN timestamp + ? END FROM records "
        "WHERE partition = ? AND offset >= ? AND offset < ? ORDER BY offset",
        (tombstones_ms, partition, lower, upper),
    ).fetchall()
    deleted = 0
    for key, offset, expires in rows:
        deleted += db.execute(
            "DELETE FROM records WHERE partition = ?1 "
            "AND offset = (SELECT offset FROM latest WHERE partition = ?1 AND key = ?2)",
            (partition, key),
        ).rowcount
        db.execute(
            "INSERT INTO latest VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE "
            "SET offset = excluded.offset, expires = excluded.expires",
            (partition, key, offset, expires),
        )
    return deleted, len(rows)


def _drop_tombstones(db: sqlite3.Connection, partition: int) -> int:
    gone = db.execute(
        "SELECT partition, offset, key FROM latest WHERE partition = ? AND expires < ? LIMIT ?",
        (partition, now_ms(), CHUNK),
    ).fetchall()
    db.executemany("DELETE FROM records WHERE partition = ? AND offset = ?", [row[:2] for row in gone])
    db.executemany("DELETE FROM latest WHERE partition = ? AND key = ?", [(row[0], row[2]) for row in gone])
    return len(gone)


def _retain_chunk(db: sqlite3.Connection, partition: int, oldest: int) -> bool:
    """Delete up to CHUNK records older than `oldest` (ms) from the front: True when there may be more."""
    front = db.execute(
        "SELECT offset, timestamp FROM records WHERE partition = ? AND offset < ? ORDER BY offset LIMIT ?",
        (partition, last_stable_offset(db, partition), CHUNK),
    ).fetchall()
    old = 0
    while old < len(front) and front[old][1] < oldest:
        old += 1
    if old:
        delete_before(db, partition, front[old - 1][0] + 1)
    return old == CHUNK
