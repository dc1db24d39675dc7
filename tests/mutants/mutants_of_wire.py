"""Mistakes in `schemas/`, `log/` and the sinks of `producers/`."""

from __future__ import annotations

from mutant import Mutant

DECODER = "tests/schemas/test_fuzz_decode_event.py"
TRANSACTIONS = "tests/log/test_log_transactions.py"
LETTERS = "tests/producers/test_dead_letter_sink.py"
EMBEDDINGS = "tests/producers/test_embedding_sink.py"

WIRE = [
    Mutant(
        "a weight of 350 digits",
        "schemas/values.py",
        "except (OverflowError, struct.error):",
        "except OverflowError:",
        DECODER,
    ),
    Mutant(
        "one level deeper", "schemas/judging.py", "in range(MAX_DEPTH):", "in range(MAX_DEPTH + 1):", DECODER
    ),
    Mutant(
        "a field given twice",
        "schemas/events.py",
        "return wire.event() if wire.given() == first & 0x0F else None",
        "return wire.event()",
        DECODER,
    ),
    Mutant(
        "lose a dead letter that was not acknowledged",
        "producers/dead_letters.py",
        "                await self._writer.append(self._topic, 0, self._waiting[:count])\n",
        "                letters, self._waiting = self._waiting, []\n"
        "                await self._writer.append(self._topic, 0, letters)\n",
        f"{LETTERS}::test_what_was_not_acknowledged_is_kept_for_the_next_flush",
    ),
    Mutant(
        "a tombstone after the vector of a node that came back",
        "producers/embeddings.py",
        "        messages = list(map(Message, keys, (*(None for _ in tombstones), *values)))\n",
        "        messages = list(map(Message, keys, (*(None for _ in tombstones), *values)))\n"
        "        messages = messages[len(tombstones) :] + messages[: len(tombstones)]\n",
        f"{EMBEDDINGS}::test_a_node_that_came_back_has_its_vector_last",
    ),
    Mutant(
        "begin nothing ahead",
        "producers/embeddings.py",
        "if more and written:",
        "if False:",
        f"{EMBEDDINGS}::test_the_next_transaction_is_begun_ahead_while_there_is_more",
    ),
    Mutant(
        "begin ahead after what held nothing",
        "producers/embeddings.py",
        "if more and written:",
        "if more:",
        f"{EMBEDDINGS}::test_the_next_transaction_is_begun_ahead_while_there_is_more",
    ),
    Mutant(
        "commit the writer whose turn begins",
        "producers/embeddings.py",
        "await writer.commit()",
        "await self._writers[0].commit()",
        f"{EMBEDDINGS}::test_one_writer_writes_while_the_other_commits",
    ),
    Mutant(
        "a zombie may write",
        "log/sqlite_records.py",
        "                require_epoch(db, self._id, self._epoch)\n                txn",
        "                txn",
        f"{TRANSACTIONS}::test_a_successor_fences_the_zombie_and_aborts_its_transaction",
    ),
    Mutant(
        "committed readers pass an open transaction",
        "log/sqlite_compaction.py",
        "SELECT coalesce((SELECT min(first_offset) FROM txn_partitions WHERE partition = p.id), next_offset) ",
        "SELECT next_offset ",
        TRANSACTIONS,
    ),
]
