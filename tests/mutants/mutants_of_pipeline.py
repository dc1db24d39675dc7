"""Mistakes in the order of things: recovery, commit, publication."""

from __future__ import annotations

from mutant import EMBEDDED, Mutant

WORKER = "tests/worker/test_worker.py"
RECOVERY = "tests/worker/test_recovery_promises.py"
LOG_FAULTS = "tests/worker/test_log_faults.py"
SEAL = "tests/worker/test_seal.py"
TURNS = "tests/worker/test_turns.py"

PIPELINE = [
    Mutant(
        "publish beside what is on its way",
        "pipeline.py",
        "limit is None or self._is_publishing:",
        "limit is None:",
        TURNS,
    ),
    Mutant(
        "measure by what consumers held before",
        "pipeline.py",
        "        self._follow()  # what has arrived meanwhile is what the next publication is measured by\n",
        "",
        TURNS,
    ),
    Mutant(
        "what has come since waits for another turn",
        "reading.py",
        "if self._encoding is None and 0 < len(",
        "if False and 0 < len(",
        "tests/worker/test_reading.py",
    ),
    Mutant(
        "more for what an encoder has seen",
        "reading.py",
        "if self._encoding is None and 0 < len(",
        "if 0 < len(",
        "tests/worker/test_reading.py",
    ),
    Mutant(
        "a brief one beside what runs",
        "state/kernel_thread.py",
        "if brief and not self._running:",
        "if brief:",
        "tests/state/test_kernel_thread.py",
    ),
    Mutant(
        "what waits in parts for the store does not count",
        "pipeline.py",
        "if self._checkpoint.dirty_rows < self._dirty_limit or",
        "if self._graph.dirty_count < self._dirty_limit or",
        "tests/worker/test_pace.py::test_what_waits_in_parts_for_a_store_counts_toward_the_limit",
    ),
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
        "state/checkpoint.py",
        "if not self.position.tail_owed:",
        "if True:",
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
        "session.py",
        "await self._kernel(graph.forget_published)",
        "pass",
        f"{RECOVERY}::test_an_output_that_was_lost_is_written_again",
    ),
    Mutant(
        "do not look at the last record",
        "session.py",
        "            await _require_same_log(reader, position.last_records, bounds)\n",
        "",
        f"{RECOVERY}::test_another_log_with_as_many_records_is_refused",
    ),
    Mutant(
        "read events whatever became of their transaction",
        "session.py",
        "EventSource(events, settings.events_topic, settings.isolation)",
        'EventSource(events, settings.events_topic, "read_uncommitted")',
        f"{RECOVERY}::test_events_of_an_aborted_transaction_are_not_applied",
    ),
    Mutant(
        "publish before the fence",
        "session.py",
        'events.transactional_writer(f"dgdm-{settings.graph}-{turn}", longest)',
        """events.transactional_writer(f"dgdm-{__import__('os').getpid()}-{turn}", longest)""",
        f"{RECOVERY}::test_a_zombie_writes_nothing_after_it_was_replaced",
    ),
    Mutant(
        "one token for all sessions and workers",
        "worker.py",
        "self.token = str(uuid.uuid4())",
        'self.token = "owner"',
        f"{WORKER}::test_a_standby_takes_over",
        f"frozen and {EMBEDDED}",
    ),
    Mutant(
        "commit before the dead letters are acknowledged",
        "state/checkpoint.py",
        "await self._dead_letters.flush()",
        "pass",
        f"{WORKER}::test_bad_messages_become_dead_letters_and_stop_nothing",
    ),
    Mutant(
        "keep what a burst has left",
        "state/checkpoint.py",
        "        await asyncio.to_thread(return_free_memory)\n",
        "",
        "tests/worker/test_seal.py::test_what_a_burst_took_is_given_back_with_the_next_checkpoint",
    ),
    Mutant(
        "rest while a backlog waits",
        "pipeline.py",
        "not (self._much_is_dirty or self._stop.is_set())",
        "not self._stop.is_set()",
        "tests/worker/test_pace.py::test_a_checkpoint_has_time_only_when_no_other_waits",
    ),
    Mutant(
        "rest while a stop waits",
        "pipeline.py",
        "not (self._much_is_dirty or self._stop.is_set())",
        "not self._much_is_dirty",
        "tests/worker/test_pace.py::test_a_checkpoint_has_time_only_when_no_other_waits",
    ),
    Mutant(
        "a backlog is solved all the time",
        "backlog.py",
        "SOLVE_SHARE * self._seconds",
        "0.0",
        "tests/worker/test_pace.py::test_a_large_backlog_is_solved_for_a_tenth_of_the_time",
    ),
    Mutant(
        "keep the sessions that failed",
        "worker.py",
        "        gc.collect()  # a session that failed",
        "        # a session that failed",
        "tests/worker/test_log_faults.py::test_a_session_that_failed_is_forgotten",
    ),
    Mutant(
        "store what the log has not committed",
        "state/checkpoint.py",
        "            await self._output.commit(more=more)\n",
        "            pass\n",
        f"{WORKER}::test_stop_and_start_again",
    ),
    Mutant(
        "count output offsets before the log has committed",
        "state/checkpoint.py",
        """            await self._output.commit(more=more)
        if not self.position.tail_owed:
            self.position.output_offsets = ends
""",
        """            if not self.position.tail_owed:
                self.position.output_offsets = ends
            await self._output.commit(more=more)
""",
        SEAL,
    ),
    Mutant(
        "count what the next turn wrote during a commit",
        "state/checkpoint.py",
        "            self.position.output_offsets = ends\n",
        "            self.position.output_offsets = dict(self._output.output_offsets)\n",
        SEAL,
    ),
    Mutant(
        "apply events twice",
        "pipeline.py",
        "            position.event_offsets = offsets\n",
        "",
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
        "state/graph.py",
        "refused.append((i, refusal(int(batch.outcome[i]), decode_event(values[i]), self.rules)))",
        "pass",
        f"{WORKER}::test_a_refused_event_counts_as_visible",
    ),
    Mutant(
        "progress before the vectors",
        "pipeline.py",
        "        if publication.ids or publication.tombstones:\n            self._report(Step.PUBLISH",
        "        await self._tell(publication, self._progress(publication, offsets))\n"
        "        if publication.ids or publication.tombstones:\n            self._report(Step.PUBLISH",
        "tests/worker/test_progress_truth.py",
    ),
    Mutant(
        "leave the last transaction open",
        "pipeline.py",
        "self._changed or self._sink.open or",
        "self._changed or",
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
