"""A store that does not answer until it is told to."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable

from stores import running_redis

from dgdm.settings import Settings


class Away:
    """`settings` name the store; `go` takes it away, `come` brings it back with all it had."""

    def __init__(self, settings: Settings, stack: contextlib.ExitStack) -> None:
        self.go: Callable[[], object]
        self.come: Callable[[], object]
        if settings.store.startswith("sqlite"):
            self.settings = settings
            lock = sqlite3.connect(settings.store.removeprefix("sqlite:///"), isolation_level=None)
            stack.callback(lock.close)
            self.go, self.come = lambda: lock.execute("BEGIN IMMEDIATE"), lambda: lock.execute("ROLLBACK")
        else:
            redis = stack.enter_context(running_redis())
            self.settings = settings.model_copy(update={"store": redis.tcp_url})
            self.go, self.come = redis.kill, redis.start
