"""Mistakes in the order of things: recovery, commit, publication."""

from __future__ import annotations

from mutant import Mutant

WORKER = "tests/worker/test_worker.py"
RECOVERY = "tests/worker/test_recovery_promises.py"
FUZZ = "tests/worker/test_fuzz_worker.py"
LOG_FAULTS = "tests/worker/test_log_faults.py"

PIPELINE = [
    Mutant(
        "skip the tail",
        "session.py",
        "graph.mark_unknown(sorted(tail.keys))",
        "graph.mark_unknown([])",
        f"{WORKER}::test_what_consumers_got_after_the_last_checkpoint_is_put_right",
    ),
    Mutant(
        "the tail from the wrong offset",
        "consumers/tail.py",
        "start = {p: max(first, offsets.get(p, 0)) for p, first in begin.items()}",
        "start = {p: max(first, offsets.get(p, 0) + 1) for p, first in begin.items()}",
        "tests/consumers/test_progress_topic.py",
    ),
    Mutant(
        "forget the tail at the first checkpoint",
        "worker.py",
        "checkpoint.position.output_offsets = dict(known)",
        "checkpoint.position.output_offsets = None",
        f"{RECOVERY}::test_a_checkpoint_during_the_replay_does_not_forget_the_tail",
    ),
    Mutant(
        "publish before the tail is passed",
        "pipeline.py",
        "if self._graph.sequence >= tail.sequence or all(",
        "if True or all(",
        f"{RECOVERY}::test_consumers_never_see_time_run_backwards",
    ),
    Mutant(
        "do not notice that the output is gone",
        "worker.py",
        "await kernel(graph.forget_published)",
        "pass",
        f"{RECOVERY}::test_an_output_that_was_lost_is_written_again",
    ),
    Mutant(
        "do not look at the last record",
        "worker.py",
        "            await _require_same_log(source.reader, stored, bounds)\n",
        "",
        f"{RECOVERY}::test_another_log_with_as_many_records_is_refused",
    ),
    Mutant(
        "read events whatever became of their transaction",
        "worker.py",
        "EventSource(events, settings.events_topic, settings.isolation)",
        'EventSource(events, settings.events_topic, "read_uncommitted")',
        f"{RECOVERY}::test_events_of_an_aborted_transaction_are_not_applied",
    ),
    Mutant(
        "publish before the fence",
        "worker.py",
        'events.transactional_writer(f"dgdm-{settings.graph}", longest)',
        'events.transactional_writer(f"dgdm-{self._owner_token}", longest)',
        f"{RECOVERY}::test_a_zombie_writes_nothing_after_it_was_replaced",
    ),
    Mutant(
        "one token for all sessions and workers",
        "worker.py",
        "self._owner_token = str(uuid.uuid4())",
        'self._owner_token = "owner"',
        f"{WORKER}::test_a_frozen_worker_is_taken_over_and_fenced",
    ),
    Mutant(
        "commit before the dead letters are acknowledged",
        "state/checkpoint.py",
        "await self._dead_letters.flush()",
        "pass",
        f"{WORKER}::test_bad_messages_become_dead_letters_and_stop_nothing",
    ),
    Mutant(
        "store what the log has not committed",
        "state/checkpoint.py",
        "            await self._output.commit()\n",
        "            pass\n",
        f"{WORKER}::test_stop_and_start_again",
    ),
    Mutant(
        "apply events twice",
        "pipeline.py",
        "self._checkpoint.position.event_offsets = batch.offsets\n",
        "pass\n",
        f"{WORKER}::test_stop_and_start_again",
    ),
    Mutant(
        "the stored offset is one too small",
        "state/checkpoint.py",
        "event_offsets=dict(position.event_offsets),",
        "event_offsets={p: max(0, at - 1) for p, at in position.event_offsets.items()},",
        f"{WORKER}::test_stop_and_start_again",
    ),
    Mutant(
        "the stored offset is one too large",
        "state/recovery.py",
        "resumed[partition] = min(max(wanted, begin), bounds.end[partition])",
        "resumed[partition] = min(max(wanted + 1, begin), bounds.end[partition])",
        f"{WORKER}::test_stop_and_start_again",
    ),
    Mutant(
        "lose the letters of those the graph refuses",
        "pipeline.py",
        "for index, error in staged.rejected + ran.rejected:",
        "for index, error in staged.rejected:",
        FUZZ,
    ),
    Mutant(
        "progress before the vectors",
        "pipeline.py",
        "        if publication.ids or publication.tombstones:\n            await self._sink.publish(",
        "        await self._tell(publication, event_offsets)\n"
        "        if publication.ids or publication.tombstones:\n            await self._sink.publish(",
        "tests/worker/test_progress_truth.py",
    ),
    Mutant(
        "leave the last transaction open",
        "pipeline.py",
        "        self._changed = True  # the transaction it is in must end\n",
        "",
        "tests/worker/test_idle_worker.py",
    ),
    Mutant(
        "lose a publication that was on its way",
        "session.py",
        "        await self._kernel(graph.reconsider)\n",
        "",
        f"{LOG_FAULTS}::test_what_an_aborted_transaction_carried_is_sent_again",
    ),
    Mutant(
        "skip the tail after a fault of the log",
        "session.py",
        "graph.mark_unknown(sorted(tail.keys))",
        "graph.mark_unknown([])",
        f"{LOG_FAULTS}::test_what_an_aborted_transaction_carried_is_sent_again",
    ),
    Mutant(
        "publish an older graph when stopped early",
        "pipeline.py",
        "if not self._checkpoint.position.tail_owed:",
        "if True:",
        "tests/worker/test_stopping.py::test_before_it_serves",
    ),
]
