"""A worker that says, whenever it serves, how many sessions there are in its memory."""

from __future__ import annotations

import gc
import json
import sys

from scripted import serve

from dgdm.session import Session
from dgdm.state.lifecycle import WorkerState
from dgdm.worker import Worker

enter = Worker._enter


def counted(worker: Worker, state: WorkerState) -> None:
    enter(worker, state)
    if state is WorkerState.SERVING:
        count = sum(type(one) is Session for one in gc.get_objects())
        print(json.dumps({"event": "sessions", "message": f"{count} in memory"}), file=sys.stderr, flush=True)


Worker._enter = counted  # type: ignore[method-assign]
serve()
