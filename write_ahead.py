"""Write-ahead logging of a SQLite file that several processes may open first."""

from __future__ import annotations

import sqlite3
import time

PAUSE = 0.01  # seconds between two attempts


def use_write_ahead_log(db: sqlite3.Connection, timeout: float) -> None:
    """It stays set in the file. SQLite waits for no lock here: of two first openers one has to try again.

    Raises sqlite3.OperationalError, of a lock after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE)
        else:
            return
