"""A worker that writes down how each checkpoint goes to the store, and of how many rows: `pacing_worker.py FILE`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from scripted import serve

import dgdm.worker
from dgdm.state.store import GraphStore, Owner, StoreChanges

connect = dgdm.worker.connect_store


def noted(*arguments: Any, **options: Any) -> GraphStore:
    store = connect(*arguments, **options)
    commit = store.commit

    def note(owner: Owner, changes: StoreChanges, *, gently: bool = False) -> None:
        rows = max(len(changes.feature_rows), len(changes.vector_rows))
        with Path(sys.argv[1]).open("a") as file:
            file.write(f"{'gently' if gently else 'at once'} {rows}\n")
        commit(owner, changes, gently=gently)

    store.commit = note  # type: ignore[method-assign]
    return store


dgdm.worker.connect_store = noted
serve()
