"""Known mistakes, each of which must turn its named test red: `make mutants`.

Each runs in a copy of the checkout, so the tree is never touched.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
STREAM = "tests/streaming/test_stream_equals_oracle.py"
WORKER = "tests/worker/test_worker.py"
LOG_FAULTS = "tests/worker/test_log_faults.py"


class Mutant(NamedTuple):
    """One mistake: in this file, this text becomes that."""

    name: str
    file: str
    right: str
    wrong: str
    test: str


MUTANTS = [
    Mutant("skip θ", "diffusion/repair.py", "theta = change / total", "theta = 0.0", STREAM),
    Mutant(
        "forget W_ref",
        "diffusion/repair.py",
        "a.length[u] <= 1 or total < g.weight_ref[u] / 2",
        "a.length[u] <= 1",
        f"{STREAM}::test_a_heavy_edge_that_comes_and_goes_leaves_no_error",
    ),
    Mutant("lose half a push", "diffusion/push.py", "h[f] += d[f]", "h[f] += d[f] / 2", STREAM),
    Mutant(
        "take no node for unannounced",
        "diffusion/upkeep.py",
        "(g.announced[u] == 0 or g.unknown[u] == 1 or gap(g, u) > tau)",
        "(g.unknown[u] == 1 or gap(g, u) > tau)",
        f"{STREAM}::test_a_node_smaller_than_the_threshold_is_announced",
    ),
    Mutant("reuse a row without reset", "diffusion/apply.py", "    g.announced[u] = 0\n", "", STREAM),
    Mutant(
        "drop tombstones",
        "state/graph.py",
        "            self.owed_tombstones[node] = None\n            if row >= 0:",
        "            if row >= 0:",
        STREAM,
    ),
    Mutant(
        "skip the tail",
        "session.py",
        "graph.mark_unknown(sorted(tail.keys))",
        "graph.mark_unknown([])",
        f"{WORKER}::test_what_consumers_got_after_the_last_checkpoint_is_put_right",
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
    Mutant(
        "commit before the dead letters are acknowledged",
        "state/checkpoint.py",
        "await self._dead_letters.flush()",
        "pass",
        f"{WORKER}::test_bad_messages_become_dead_letters_and_stop_nothing",
    ),
    Mutant(
        "apply events twice",
        "pipeline.py",
        "self._checkpoint.position.event_offsets = batch.offsets\n",
        "pass\n",
        f"{WORKER}::test_stop_and_start_again",
    ),
]


def survives(mutant: Mutant) -> bool:
    """Whether its test stays green, which is bad."""
    with tempfile.TemporaryDirectory(prefix="dgdm-mutant-") as folder:
        files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(
            ["tar", "-c", "--null", "-T", "-", "-f", f"{folder}/tree.tar"], cwd=ROOT, check=True, input=files
        )
        subprocess.run(["tar", "-x", "-f", "tree.tar"], cwd=folder, check=True)
        path = Path(folder, mutant.file)
        text = path.read_text()
        if text.count(mutant.right) != 1:
            raise SystemExit(
                f"{mutant.name}: {mutant.file} has {text.count(mutant.right)} places like {mutant.right!r}"
            )
        path.write_text(text.replace(mutant.right, mutant.wrong))
        command = [sys.executable, "-m", "pytest", "-q", "-x", mutant.test, "-k", "not kafka"]
        return subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode == 0


def main() -> int:
    """Try all, or those whose name has one of the words given."""
    words = sys.argv[1:]
    alive = []
    for mutant in MUTANTS:
        if words and not any(word in mutant.name for word in words):
            continue
        lives = survives(mutant)
        alive += [mutant.name] if lives else []
        print(f"{'ALIVE' if lives else 'red  '}  {mutant.name}", flush=True)
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
