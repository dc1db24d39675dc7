"""A process that dies: `rewrite STEP` kills itself at that step; `commits` commits until it is killed."""

from __future__ import annotations

import os
import signal
import sys

from stores import changes, some_meta

from dgdm.state import open_store
from dgdm.state.store import Owner, RewriteStep


def rewrite(url: str, fatal: str) -> None:
    def on_step(step: RewriteStep) -> None:
        if step == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    store = open_store(url, "g", on_step=on_step)
    batches = [changes(features={5: [5, 5, 5]}), changes(features={6: [6, 6, 6]})]
    store.rewrite(Owner("A", 2), Owner("A", 1), batches)


def commits(url: str) -> None:
    store = open_store(url, "g")
    owner = store.take("A", store.owner())
    while True:
        owner = owner._replace(sequence=owner.sequence + 1)
        number = owner.sequence
        rows = {row: [float(number)] * 3 for row in range(50)}
        store.commit(owner, changes(some_meta(event_sequence=number), features=rows))
        sys.stdout.write(f"{number}\n")  # read by the test
        sys.stdout.flush()


if __name__ == "__main__":
    url, action, *words = sys.argv[1:]
    {"rewrite": rewrite, "commits": commits}[action](url, *words)
