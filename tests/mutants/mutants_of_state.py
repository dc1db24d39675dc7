"""Mistakes in `state/`: events as columns, ids, the bound, limits, checkpoints' contents, stores, lease."""

from __future__ import annotations

from mutant import Mutant

STREAM = "tests/streaming/test_stream_equals_oracle.py"
PROMISES = "tests/state/test_graph_promises.py"
COLLECT = "tests/state/test_graph_collect.py"
RESTORE = "tests/state/test_graph_restore.py"
LIMITS = "tests/state/test_graph_limits.py"
IDS = "tests/state/test_id_table.py::test_ids_that_come_and_go"
STORE = "tests/state/test_store.py"
LEASE = "tests/state/test_lease.py"
FUZZ = "tests/worker/test_fuzz_worker.py"

STATE = [
    Mutant(
        "a commit that is in a hurry rests",
        "state/redis_store.py",
        "last], gently=gently)",
        "last], gently=True)",
        "tests/state/test_store_redis.py::test_only_a_gentle_commit_rests_between_its_pieces",
        chosen="redis",
    ),
    Mutant(
        "forget the part that was gathered before",
        "state/checkpoint.py",
        "self._parts.append(collect(self._graph, meta))",
        "self._parts[:] = [collect(self._graph, meta)]",
        "tests/worker/test_seal.py::test_a_checkpoint_that_was_gathered_in_parts_holds_all",
    ),
    Mutant(
        "write what a later part of a checkpoint deletes",
        "state/merging.py",
        "return [latest[at] == part for",
        "return [latest[at] >= part for",
        "tests/state/test_merging.py::test_parts_as_one_are_the_parts_one_after_another",
    ),
    Mutant(
        "drift is not in the bound",
        "state/graph.py",
        "self.residual() + self.drift + ULP",
        "self.residual() + ULP",
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
        "                self.owed_tombstones[first] = None\n",
        "",
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
        "state/id_table.py",
        "        table.counts[FREE] -= 1\n        row = int(table.free[table.counts[FREE]])\n",
        "        row = int(table.free[table.counts[FREE] - 1])\n",
        IDS,
    ),
    Mutant(
        "take any feature for small enough",
        "state/rules.py",
        "np.minimum(self.accuracy / FLOAT32_FLOOR, farthest)",
        "farthest",
        FUZZ,
    ),
    Mutant(
        "one edge more than max_edges",
        "state/applying.py",
        "g.sizes[EDGES] >= terms.max_edges",
        "g.sizes[EDGES] > terms.max_edges",
        LIMITS,
    ),
    Mutant(
        "keep the old vector of a reused row in the store",
        "state/collecting.py",
        "freed_rows=dirty[~alive | born]",
        "freed_rows=dirty[~alive]",
        f"{COLLECT}::test_an_id_that_comes_back_on_its_row_leaves_no_old_vector_in_the_store",
    ),
    Mutant(
        "rows found before a removal stay sure",
        "state/applying.py",
        "            sure = False\n",
        "",
        f"{LIMITS}::test_the_split_into_batches_changes_no_arc_no_weight_and_no_count",
    ),
    Mutant(
        "leave an id behind the hole where it belongs",
        "state/id_table.py",
        ">= ((at - hole) & mask):",
        "> ((at - hole) & mask):",
        IDS,
    ),
    Mutant(
        "forget that the vector of a former life is held",
        "state/graph.py",
        "            self.arrays.unknown[row] = UNKNOWN\n\n    def _scrub",
        "            self.arrays.unknown[row] = 0\n\n    def _scrub",
        f"{PROMISES}::test_a_publication_in_portions_promises_no_more_than_consumers_hold",
    ),
    Mutant(
        "take any value for features",
        "state/columns.py",
        "good = shape == BINARY and size",
        "good = size",
        "tests/state/test_columns.py",
    ),
    Mutant(
        "a length of ten bytes with one digit",
        "state/redis_resp.py",
        "while 10**digits <= size:",
        "while 10**digits < size:",
        "tests/state/test_redis_resp.py",
        "redis",
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
        "due = now - answered >= ttl and (",
        "due = (",
        LEASE,
    ),
    Mutant(
        "take a lease before one is ready to serve",
        "state/lease.py",
        " and (ready is None or ready.is_set())",
        "",
        LEASE,
    ),
    Mutant(
        "a piece of a checkpoint is not sent",
        "state/redis_wire.py",
        "        for at in range(0, len(part), PIECE):\n",
        "        for at in range(0, min(len(part), 2 * PIECE), PIECE):\n",
        "tests/state/test_redis_resp.py",
        "sent_in_pieces",
    ),
    Mutant(
        "take a lease that another one holds",
        "state/sqlite_store.py",
        "            if held is not None and held.token != token:\n                return False\n",
        "",
        LEASE,
    ),
]
