"""docs/benchmarks.md, made of the results that are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .registry import NAMES

RESULTS = Path(__file__).parent / "results"
HEAD = """\
# Benchmarks

<!-- Made by `make docs`, of benchmarks/results: change it there. -->

    make bench ARGS="kernel --json"

runs one of them and prints one JSON object: figures with their spread, the baseline of the same run, and `goals`, each
with its figure, what was wanted and whether it `holds`; the exit code is 1 when one does not. What is compared takes
turns in one run, on the same events. `--quick` shrinks everything until it says nothing, but runs. The figures below are
those of the files in `benchmarks/results`, each written by

    python -m benchmarks NAME --json > benchmarks/results/NAME.json

or, with other arguments than those that stand there anyway, as `NAME-WHAT.json`.

A cell with two numbers below the first is a median, with the least and the largest that was seen. A failed goal stays in
the table.
"""
TORCH = """\
`--torch-python PATH` names an interpreter that has torch (and PyG, for APPNP), `--instantgnn DIR` a checkout of InstantGNN
at commit c9fc32b, `--eigen DIR` the folder that holds `Eigen/Dense`. A full recompute starts at X and takes as many steps
as lead to the measured error of what our consumers hold. InstantGNN diffuses with D^-1/2 A D^-1/2 and knows no weights:
each side is measured against its own exact answer, after the same inserts into the same graph, each from its own solve;
its threshold is set by trial until the errors are equal. In its matrix what the neighbours of a hub may keep can add up
at the hub, by up to the root of its degree, and the largest error over all nodes sees it: part of the distance comes from
the target, not from the code. It may use both cores; the kernels use one.
"""
KERNEL = """\
The roofline is the rate at which rows of R, drawn at random, can be read, changed and written with the same vector code
and the same prefetch. A push has more to fetch: for each neighbour its weight sum (a line of the cache beside the two or
four of its row), for itself its record, its H and R and its list. An event is more than its pushes, too: it looks up both
ends in each other's list, repairs two rows, and copies out what it moved. So the share grows with the width, with a finer
accuracy and with a graph that does not fit in the last cache; where R fits, as that of 100k nodes may, the rows are
cheap and the rest shows. `largest difference` is between the two tables after the same events.
"""
MEMORY = """\
The raw arrays are X, H, R and P, and eight bytes for each arc. Beside them stand the interpreter with its libraries, what
is known of each row, the ids, and the pool of arcs: lists have room to grow, that of a hub its index, and regions that
lists grew out of wait for others. A process that had to compile its kernels itself keeps what the compiler took: that is
the largest figure, where the kernels were new.
"""
NOTES = {"kernel": KERNEL, "memory": MEMORY, "peers": TORCH}
RULE = "---"


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for name, run in NAMES.items():
        parts.append(f"## {name}\n\n{(run.__doc__ or '').strip()}\n")
        if name in NOTES:
            parts.append(NOTES[name])
        kept = sorted(path for path in RESULTS.glob("*.json") if _is_of(path, name))
        for path in kept:
            parts += [f"### {path.name}\n"] if len(kept) > 1 else []
            parts += _result(json.loads(path.read_text()))
        parts += [] if kept else ["No result is kept.\n"]
    return "\n".join(parts).rstrip() + "\n"


def _is_of(path: Path, name: str) -> bool:
    return path.stem == name or (path.stem.startswith(f"{name}-") and path.stem not in NAMES)


def _result(found: dict[str, Any]) -> list[str]:
    """The machine, the goals, the figures."""
    assert not found["quick"], "a quick run says nothing: it is not to be kept"
    rows = [
        [
            name,
            _number(one["figure"]),
            f"{'≥' if one['at_least'] else '≤'} {_number(one['goal'])}",
            _word(one["holds"]),
        ]
        for name, one in found["goals"].items()
    ]
    rest = {k: v for k, v in found.items() if k not in {"benchmark", "quick", "machine", "goals", "holds"}}
    cases = rest.pop("cases", None)
    parts = [_machine(found["machine"]), *_table(["goal", "figure", "wanted", "holds"], rows)]
    if cases:
        heads = list(next(iter(cases.values())))
        lines = [[name, *(_cell(case[head]) for head in heads)] for name, case in cases.items()]
        parts += _table(["", *(head.replace("_", " ") for head in heads)], lines)
    return parts + _table(["figure", ""], [[name, _cell(value)] for name, value in _flat(rest)])


def _machine(machine: dict[str, Any]) -> str:
    caches, versions = (
        ", ".join(machine["caches"]),
        [f"{n} {machine[n]}" for n in ("numpy", "numba", "scipy")],
    )
    return (
        f"On {machine['cores']} cores of {machine['cpu']} ({caches}), {machine['memory_gb']} GB, {machine['system']}, "
        f"Python {machine['python']}, {', '.join(versions)}.\n"
    )


def _flat(value: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """What is no spread is a path of names."""
    found: list[tuple[str, Any]] = []
    for name, one in value.items():
        path = f"{before}{name.replace('_', ' ')}"
        if isinstance(one, dict) and "median" not in one:
            found += _flat(one, f"{path}: ")
        else:
            found.append((path, one))
    return found


def _cell(value: Any) -> str:
    if isinstance(value, dict) and {"median", "min", "max"} <= value.keys():
        return f"{_number(value['median'])}<br>{_number(value['min'])} … {_number(value['max'])}"
    if isinstance(value, dict):
        return "<br>".join(f"{name.replace('_', ' ')} {_number(one)}" for name, one in value.items())
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"{len(value)}, in the file"
    if isinstance(value, list):
        return "<br>".join(map(str, value)) or "—"
    return _number(value) if isinstance(value, int | float) else "—" if value is None else str(value)


def _number(value: float) -> str:
    """Four digits, and large numbers in threes."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _word(holds: bool) -> str:
    return "yes" if holds else "**no**"


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    lines = [heads, [RULE] * len(heads), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""] if rows else []
