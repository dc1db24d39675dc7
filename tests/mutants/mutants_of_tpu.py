"""Mistakes of regions, models in service, and what comes out of a head."""

from __future__ import annotations

from mutant import Mutant

SETTLE = "tests/tpu/test_region_settle.py"
SETTLER = "tests/tpu/test_region_settler.py"
MANAGER = "tests/tpu/test_model_manager.py"
CLUSTER = "tests/tpu/test_cluster.py"
HEAD = "tests/tpu/test_head_worker.py"
RENEWAL = "tests/worker/test_model_renewal.py"
ENCODING = "tests/state/test_encoding.py"
ENCODER = "tests/worker/test_encoder_stream.py"

TPU = [
    Mutant(
        "tpu: take an answer that makes a residual larger",
        "tpu/region.py",
        "            taken = np.abs(after).max(axis=0, initial=0.0) < largest\n",
        "            taken = np.ones(f, bool)\n",
        f"{SETTLE}::test_a_pass_shrinks_what_it_takes_and_leaves_the_rest",
    ),
    Mutant(
        "tpu: one scale for all columns",
        "tpu/resolvent.py",
        "    scale = np.abs(r).max(axis=0, initial=0.0).astype(np.float32)\n",
        "    scale = np.full(r.shape[1], np.abs(r).max(initial=0.0), np.float32)\n",
        f"{SETTLE}::test_a_small_column_beside_a_large_one_is_settled_too",
    ),
    Mutant(
        "tpu: a stale region is the device's fault",
        "tpu/region.py",
        "            if off > RAW_TOLERANCE:\n",
        "            if off >= 0:\n",
        f"{SETTLE}::test_a_stale_region_is_not_held_against_the_device",
    ),
    Mutant(
        "tpu: forget the rows that point into a region",
        "tpu/settler.py",
        "                take_over(g, rows, delta, touched[live].astype(np.int32), done.residual[live], epsilon)\n",
        "                own = touched[live][: len(rows)].astype(np.int32)\n"
        "                take_over(g, rows, delta, own, done.residual[live][: len(rows)], epsilon)\n",
        f"{SETTLER}::test_any_events",
    ),
    Mutant(
        "tpu: rows that a region touched do not wake",
        "diffusion/blocks.py",
        "        look_at(g, u, largest(g.R, u), epsilon)\n",
        "",
        f"{SETTLER}::test_any_events",
    ),
    Mutant(
        "tpu: settle for a single row",
        "tpu/settler.py",
        "            if counts[number] >= SHARE * len(region.rows):\n",
        "            if counts[number]:\n",
        f"{SETTLER}::test_single_rows_are_left_to_push",
    ),
    Mutant(
        "tpu: unload a model that is still asked",
        "tpu/manager.py",
        "            idle = served.users == 0\n",
        "            idle = True\n",
        f"{MANAGER}::test_under_load_no_answer_fails_or_mixes_two_versions",
    ),
    Mutant(
        "tpu: serve what failed on the golden batch",
        "tpu/manager.py",
        "    if not error <= golden.tolerance:\n",
        "    if error < 0:\n",
        f"{MANAGER}::test_what_is_not_good_on_the_golden_batch_never_serves",
    ),
    Mutant(
        "tpu: no plain sweep where regions do not help",
        "tpu/cluster.py",
        "        if poor.any():\n",
        "        if poor.all() and not poor.any():\n",
        f"{CLUSTER}::test_one_that_lies_costs_sweeps_and_nothing_else",
    ),
    Mutant(
        "tpu: a head that speaks only of what moves",
        "worker.py",
        "            await session.predict_anew(self._held, self._stop)\n",
        "",
        f"{HEAD}::test_another_head_predicts_all_anew",
    ),
    Mutant(
        "encoder: raw features of a node's former life",
        "state/encoding.py",
        "    mine = (rows != NOBODY) & applied & (encoded.places >= began)\n",
        "    mine = (rows != NOBODY) & applied\n",
        f"{ENCODING}::test_a_node_that_comes_back_has_zeros_for_raw_features",
    ),
    Mutant(
        "encoder: an answer to what an event has changed meanwhile",
        "state/raw_features.py",
        "        same: NDArray[np.bool_] = (now == then.raw.view(np.int32)).all(axis=1)\n",
        "        same: NDArray[np.bool_] = np.ones(len(now), np.bool_)\n",
        f"{ENCODING}::test_what_an_event_changed_meanwhile_is_left_to_it",
    ),
    Mutant(
        "encoder: rows encoded anew are no news to the store",
        "state/raw_features.py",
        "        self._changed.append(rows)\n",
        "",
        f"{ENCODER}::test_another_encoder_encodes_all_anew_beside_the_stream_also_after_kills",
    ),
    Mutant(
        "worker: another head speaks only of what moves",
        "models.py",
        "            tell = graph.send_again if",
        "            tell = (lambda: None) if",
        f"{RENEWAL}::test_another_head_speaks_for_every_node_while_events_come",
    ),
    Mutant(
        "worker: a swapped encoder leaves the rows of the old one",
        "models.py",
        "        return lambda: encoding.use(zeros)\n",
        "        return lambda: None\n",
        f"{RENEWAL}::test_another_encoder_is_taken_up_while_events_come",
    ),
    Mutant(
        "encoder: all is encoded anew before an event is applied",
        "state/encoding.py",
        "        if self._asked is None and self._renewing:\n            self._finished()\n",
        "        while self._asked is not None:\n            self._apply(*self._asked.result())\n"
        "            self._asked = None\n            self.step()\n"
        "        if self._renewing:\n            self._finished()\n",
        f"{ENCODER}::test_a_backlog_does_not_wait_for_rows_that_are_encoded_anew",
    ),
    Mutant(
        "encoder: events read before a swap are left as they are",
        "state/raw_features.py",
        "        if digest != self.current:  # asked before it was swapped\n            self._stale.append(rows)\n",
        "",
        f"{ENCODING}::test_what_an_event_changed_meanwhile_is_left_to_it",
    ),
    Mutant(
        "tpu: predictions without tombstones",
        "producers/embeddings.py",
        "        await self._write(topic, ids, values, tombstones)\n",
        "        await self._write(topic, ids, values, [])\n",
        f"{HEAD}::test_every_vector_has_its_prediction",
    ),
]
