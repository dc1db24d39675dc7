"""Mistakes in `state/`: the bound, limits, checkpoints' contents, stores, lease."""

from __future__ import annotations

from mutant import Mutant

STREAM = "tests/streaming/test_stream_equals_oracle.py"
PROMISES = "tests/state/test_graph_promises.py"
COLLECT = "tests/state/test_graph_collect.py"
RESTORE = "tests/state/test_graph_restore.py"
LIMITS = "tests/state/test_graph_limits.py"
STORE = "tests/state/test_store.py"
LEASE = "tests/state/test_lease.py"
FUZZ = "tests/worker/test_fuzz_worker.py"

STATE = [
    Mutant(
        "drift is not in the bound",
        "state/graph.py",
        "self.epsilon) + self.drift + ULP",
        "self.epsilon) + ULP",
        f"{PROMISES}::test_drift_is_found_healed_and_part_of_the_bound_until_it_is_old",
    ),
    Mutant(
        "push below the float32 floor",
        "state/graph.py",
        "return max(HEADROOM * self.alpha * float(self.rules.accuracy[0]) / 2, 4 * ULP",
        "return max(HEADROOM * self.alpha * float(self.rules.accuracy[0]) / 2, 0 * ULP",
        f"{PROMISES}::test_below_the_float32_floor_the_bound_says_what_is_kept",
    ),
    Mutant(
        "promise while a vector is unknown",
        "state/graph.py",
        "return [NO_PROMISE] * self.rules.features",
        "pass",
        f"{RESTORE}::test_an_unknown_vector_is_published_again_and_until_then_nothing_is_promised",
    ),
    Mutant(
        "drop tombstones",
        "state/graph.py",
        "            self.owed_tombstones[node] = None\n            if row >= 0:",
        "            if row >= 0:",
        STREAM,
    ),
    Mutant(
        "owe no tombstone after a crash",
        "state/loading.py",
        "dict.fromkeys(meta.owed_tombstones)",
        "{}",
        f"{RESTORE}::test_owed_tombstones_survive_and_freed_rows_are_used_again",
    ),
    Mutant(
        "give a free row out twice",
        "state/staging.py",
        "                self.free.append(row)\n",
        "                self.free += [row, row]\n",
        STREAM,
    ),
    Mutant(
        "take any feature for small enough",
        "state/staging.py",
        "np.minimum(self.accuracy / FLOAT32_FLOOR, farthest)",
        "farthest",
        FUZZ,
    ),
    Mutant(
        "one edge more than max_edges",
        "state/graph.py",
        "room = None if limit is None else limit - ",
        "room = None if limit is None else 1 + limit - ",
        LIMITS,
    ),
    Mutant(
        "keep the old vector of a reused row in the store",
        "state/collecting.py",
        "freed_rows=dirty[~alive | reborn]",
        "freed_rows=dirty[~alive]",
        f"{COLLECT}::test_an_id_that_comes_back_on_its_row_leaves_no_old_vector_in_the_store",
    ),
    Mutant(
        "no compare-and-set in SQLite",
        "state/sqlite_store.py",
        "        if (header.owner if header else None) != expected:\n",
        "        if False:\n",
        STORE,
        "sqlite",
    ),
    Mutant(
        "no compare-and-set in Redis",
        "state/redis_store.py",
        "        if (header.owner if header else None) != expected:\n",
        "        if False:\n",
        STORE,
        "redis",
    ),
    Mutant(
        "Redis without WATCH",
        "state/redis_store.py",
        '[("WATCH", self._keys.meta, *more), self._read_header()]',
        '[("PING",), self._read_header()]',
        STORE,
        "redis",
    ),
    Mutant(
        "take a lease as soon as it looks free",
        "state/lease.py",
        "if free and now - answered >= ttl and store.hold(",
        "if free and store.hold(",
        LEASE,
    ),
    Mutant(
        "take a lease that another one holds",
        "state/sqlite_store.py",
        "            if held is not None and held.token != token:\n                return False\n",
        "",
        LEASE,
    ),
]
