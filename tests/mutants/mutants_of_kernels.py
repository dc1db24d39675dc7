"""Mistakes in `diffusion/`: repair, push, upkeep, adjacency."""

from __future__ import annotations

from mutant import Mutant

STREAM = "tests/streaming/test_stream_equals_oracle.py"
PROMISES = "tests/state/test_graph_promises.py"
COLLECT = "tests/state/test_graph_collect.py"

KERNELS = [
    Mutant("skip θ", "diffusion/repair.py", "theta = change / total", "theta = 0.0", STREAM),
    Mutant(
        "forget W_ref",
        "diffusion/repair.py",
        "a.length[u] <= 1 or total < g.weight_ref[u] / 2",
        "a.length[u] <= 1",
        f"{STREAM}::test_a_heavy_edge_that_comes_and_goes_leaves_no_error",
    ),
    Mutant("lose half a push", "diffusion/push.py", "h[f] += d[f]", "h[f] += d[f] / 2", STREAM),
    Mutant("push without clearing the residual", "diffusion/push.py", "        r[f] = 0\n", "", STREAM),
    Mutant(
        "ignore the self loop in a push",
        "diffusion/push.py",
        "np.float32(1 / (1 - (1 - alpha) * own))",
        "np.float32(1)",
        STREAM,
    ),
    Mutant(
        "push with the neighbour's own weight sum",
        "diffusion/push.py",
        "np.float64(a.weight[k]) / g.weight_sum[t]",
        "np.float64(a.weight[k]) / g.weight_sum[u]",
        STREAM,
    ),
    Mutant(
        "scrub without writing back",
        "diffusion/repair.py",
        "        g.R[u, f] = r\n",
        "",
        f"{PROMISES}::test_drift_is_found_healed_and_part_of_the_bound_until_it_is_old",
    ),
    Mutant(
        "never scrub",
        "diffusion/upkeep.py",
        "drift = max(drift, rebuild_row(g, u, alpha))",
        "drift = max(drift, np.float32(0))",
        f"{PROMISES}::test_drift_is_found_healed_and_part_of_the_bound_until_it_is_old",
    ),
    Mutant(
        "take no node for unannounced",
        "diffusion/upkeep.py",
        "(g.announced[u] == 0 or g.unknown[u] == 1 or gap(g, u) > tau)",
        "(g.unknown[u] == 1 or gap(g, u) > tau)",
        f"{STREAM}::test_a_node_smaller_than_the_threshold_is_announced",
    ),
    Mutant(
        "acknowledge into a reused row",
        "diffusion/upkeep.py",
        "if g.alive[u] == 1 and g.generation[u] == generations[i]:",
        "if g.alive[u] == 1:",
        f"{PROMISES}::test_an_acknowledgement_is_for_the_node_that_was_sent_not_for_its_row",
    ),
    Mutant(
        "count a freed row as the same",
        "diffusion/apply.py",
        "    g.generation[v] += 1\n",
        "",
        f"{PROMISES}::test_an_acknowledgement_is_for_the_node_that_was_sent_not_for_its_row",
    ),
    Mutant(
        "acknowledge what is, not what was sent",
        "diffusion/upkeep.py",
        "g.P[u] = vectors[i]",
        "g.P[u] = g.H[u]",
        f"{PROMISES}::test_what_moves_between_sending_and_acknowledgement_is_sent_again",
    ),
    Mutant("reuse a row without reset", "diffusion/apply.py", "    g.announced[u] = 0\n", "", STREAM),
    Mutant(
        "leave a removed node in the lists of its targets",
        "diffusion/apply.py",
        "                drop(g.columns, z, find(g.columns, z, v))\n",
        "                pass\n",
        STREAM,
    ),
    Mutant(
        "do not rewrite the chunk an arc left",
        "diffusion/adjacency.py",
        "    touch(a, u, k)\n    touch(a, u, last)\n",
        "    touch(a, u, last)\n",
        COLLECT,
    ),
    Mutant(
        "do not rewrite the chunk of a new weight",
        "diffusion/apply.py",
        "        a.weight[k] = w\n        touch(a, u, k)\n",
        "        a.weight[k] = w\n",
        COLLECT,
    ),
]
