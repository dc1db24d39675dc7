"""Mistakes in `diffusion/`: repair, push, the vector code of both, upkeep, adjacency."""

from __future__ import annotations

from mutant import Mutant

STREAM = "tests/streaming/test_stream_equals_oracle.py"
PROMISES = "tests/state/test_graph_promises.py"
COLLECT = "tests/state/test_graph_collect.py"

KERNELS = [
    Mutant("skip θ", "diffusion/local.py", "u, v, alpha, change / total)", "u, v, alpha, 0.0)", STREAM),
    Mutant(
        "forget W_ref",
        "diffusion/local.py",
        "g.rows.length[u] <= 1 or total < g.weight_ref[u] / 2",
        "g.rows.length[u] <= 1",
        f"{STREAM}::test_a_heavy_edge_that_comes_and_goes_leaves_no_error",
    ),
    Mutant(
        "lose half a push",
        "diffusion/vector.py",
        "builder.fadd(code.load(vector, at), moved, flags=FLAGS)",
        "builder.fadd(code.load(vector, at), builder.fmul(moved, ir.Constant(VECTOR, [0.5] * LANES)))",
        STREAM,
    ),
    Mutant(
        "push without clearing the residual",
        "diffusion/vector.py",
        "            code.stored(ir.Constant(VECTOR, [0.0] * LANES), residual, at)\n",
        "",
        "tests/diffusion/test_push.py::test_one_push_is_the_push_of_the_twin",
    ),
    Mutant(
        "ignore the self loop in a push",
        "diffusion/local.py",
        "np.float32(1 / (1 - (1 - alpha) * own))",
        "np.float32(1)",
        STREAM,
    ),
    Mutant(
        "a row that moves is never looked at again",
        "diffusion/marks.py",
        "    g.leeway[u] -= distance\n",
        "",
        "tests/diffusion/test_upkeep.py::test_what_is_published_and_acknowledged",
    ),
    Mutant(
        "forget that a push is rounded",
        "diffusion/upkeep.py",
        "UNROUNDED = 0.875",
        "UNROUNDED = 1.0",
        "tests/diffusion/test_upkeep.py::test_rounding_takes_no_vector_further_than_is_allowed_unseen",
    ),
    Mutant(
        "the way a row has moved already is forgotten",
        "diffusion/upkeep.py",
        "UNROUNDED * (tau - gap)",
        "tau",
        "tests/diffusion/test_upkeep.py::test_what_is_published_and_acknowledged",
    ),
    Mutant(
        "cut off what lists of rows hold",
        "diffusion/compaction.py",
        "give_back(rows, int(g.sizes[size]), len(rows))",
        "give_back(rows, 0, len(rows))",
        "tests/diffusion/test_compaction.py::test_lists_of_rows_keep_what_they_hold_and_give_the_rest_back",
    ),
    Mutant(
        "find arcs behind the end of a list",
        "diffusion/vector.py",
        'with builder.if_then(builder.icmp_signed("<", at, end)):',
        "with builder.if_then(BOOL(1)):",
        "tests/diffusion/test_adjacency.py",
    ),
    Mutant(
        "push with one's own weight sum in place of the neighbour's",
        "diffusion/local.py",
        "_share(g, t, a.weight[k])",
        "_share(g, u, a.weight[k])",
        STREAM,
    ),
    Mutant(
        "scrub without writing back",
        "diffusion/local.py",
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
        "g.announced[u] == 0 or g.unknown[u] != 0 or largest_difference(",
        "g.unknown[u] != 0 or largest_difference(",
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
        "diffusion/local.py",
        "    g.generation[v] += 1\n",
        "",
        f"{PROMISES}::test_an_acknowledgement_is_for_the_node_that_was_sent_not_for_its_row",
    ),
    Mutant(
        "acknowledge what is, not what was sent",
        "diffusion/upkeep.py",
        "g.P[u, f] = vectors[i, f]",
        "g.P[u, f] = g.H[u, f]",
        f"{PROMISES}::test_what_moves_between_sending_and_acknowledgement_is_sent_again",
    ),
    Mutant("reuse a row without reset", "diffusion/local.py", "    g.announced[u] = 0\n", "", STREAM),
    Mutant(
        "leave a removed node in the lists of its targets",
        "diffusion/local.py",
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
        "diffusion/local.py",
        "        a.weight[k] = w\n        touch(a, u, k)\n",
        "        a.weight[k] = w\n",
        COLLECT,
    ),
]
