"""Who may know whom: rooms of the house and the libraries each may touch, read from the imports."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
OUTSIDE = {"tests", "benchmarks", "docs", "deploy"}  # nothing in the house may know these

LOWER = {"schemas", "log", "diffusion", "state", "consumers", "producers", "settings"}
COMMANDS = {"audit", "producing", "tailing", "exporting", "doctor"}  # what a command does, without its words
MAY_KNOW: dict[str, set[str]] = {
    "schemas": set(),
    "log": {"write_ahead"},
    "diffusion": set(),
    "settings": set(),
    "state": {"schemas", "diffusion", "write_ahead"},
    "write_ahead": set(),
    "consumers": {"schemas", "log"},
    "producers": {"schemas", "log", "consumers"},  # a producer waits for its own events in the progress topic
    "tpu": {"diffusion"},
    "streaming": {"schemas", "state", "diffusion"},
    "connections": {"settings", "log", "state"},
    "audit": LOWER | {"connections", "models"},
    "producing": {"settings", "connections", "producers", "schemas"},
    "exporting": {"settings", "connections", "consumers"},
    "tailing": {"settings", "connections", "consumers", "log", "schemas"},
    "doctor": LOWER | {"connections", "tpu"},
    "telemetry": {"settings", "state"},
    "backlog": set(),
    "reading": {"consumers", "state"},
    "pipeline": LOWER | {"telemetry", "backlog", "reading"},
    "session": LOWER | {"connections", "telemetry", "pipeline"},
    "models": {"settings", "state", "tpu"},
    "worker": LOWER | {"connections", "telemetry", "pipeline", "session", "models"},
    "examples": LOWER | {"streaming", "connections", "tpu"},
    "options": {"settings", "log", "state", "tpu"},
    "model_commands": {"options", "telemetry", "tpu"},
    "tpu_commands": {"options", "tpu"},
    "cli": LOWER
    | COMMANDS
    | {"options", "streaming", "connections", "telemetry", "worker", "examples"}
    | {"model_commands", "tpu_commands"},
    "__main__": {"cli"},
    "__init__": LOWER | {"streaming", "tpu"},  # lazily: see the last tests
}
"""A room is a folder or a module at the root; a new one belongs into this table."""

ONLY_IN: dict[str, set[str]] = {
    "aiokafka": {"log"},
    "redis": {"state"},
    "numba": {"diffusion"},
    "scipy": {"diffusion", "examples", "tpu"},  # the demo certifies with a solution of its own
    "ai_edge_litert": {"tpu"},
    "pymetis": {"tpu"},
    "sklearn": {"examples"},
    "sqlite3": {"log", "state", "write_ahead"},
    "typer": {"cli", "options", "model_commands", "tpu_commands"},
    "rich": {"cli", "options", "examples"},
    "pydantic": {"settings", "options"},
    "pydantic_settings": {"settings"},
}
NOT_IN_KERNELS = {"asyncio", "socket", "subprocess", "threading", "os", "pathlib", "io", "structlog", "time"}


def modules() -> Iterator[tuple[str, Path]]:
    """Each module of the package with its room."""
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        if parts[0].startswith(".") or parts[0] in OUTSIDE | {"build", "dist"}:
            continue
        yield (parts[0] if len(parts) > 1 else path.stem), path


def imported(path: Path) -> Iterator[str]:
    """Absolute names of what a module imports, its own package included."""
    package = ("dgdm", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) + 1 - node.level]] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            # `from . import x`: x may be a room of its own
            yield from ([source] if node.module else [f"{source}.{alias.name}" for alias in node.names])


def test_rooms_know_only_whom_they_may() -> None:
    wrong = []
    for room, path in modules():
        assert room in MAY_KNOW, f"{path}: a new room; say in MAY_KNOW whom it may know"
        for name in imported(path):
            if name.startswith("dgdm."):
                other = name.split(".")[1]
                if other != room and other in MAY_KNOW and other not in MAY_KNOW[room]:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_every_room_of_the_table_is_there() -> None:
    assert {room for room, _ in modules()} == set(MAY_KNOW)


def test_inside_the_package_imports_are_relative() -> None:
    absolute = []
    for _, path in modules():
        nodes = ast.walk(ast.parse(path.read_text()))
        froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
        absolute += [f"{path}:{node.lineno}" for node in froms if f"{node.module}.".startswith("dgdm.")]
    assert not absolute


def test_each_library_has_its_room() -> None:
    wrong = []
    for room, path in modules():
        for name in imported(path):
            library = name.split(".")[0]
            if room not in ONLY_IN.get(library, {room}):
                wrong.append(
                    f"{path.relative_to(ROOT)} imports {library}, which belongs to {ONLY_IN[library]}"
                )
            if room == "diffusion" and library in NOT_IN_KERNELS:
                wrong.append(f"{path.relative_to(ROOT)} imports {library}: diffusion knows arrays only")
    assert not wrong


def test_the_oracle_shares_nothing_with_what_it_judges() -> None:
    oracle = list((ROOT / "tests" / "oracle").rglob("*.py"))
    assert oracle
    names = {name for path in oracle for name in imported(path) if not name.startswith("dgdm.tests.oracle")}
    assert not [name for name in names if f"{name}.".startswith("dgdm.")]


def loaded_by(statement: str) -> set[str]:
    """Names of the modules that a fresh interpreter has after a statement."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    path = str(ROOT / ".path")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path.insert(0, {path!r})\n{program}"],
        check=True,
        capture_output=True,
        text=True,
        cwd="/",
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "statement", ["import dgdm", "from dgdm import GraphProducer", "from dgdm import EmbeddingStream"]
)
def test_clients_do_not_pay_for_the_kernels(statement: str) -> None:
    heavy = {"numba", "scipy", "dgdm.diffusion", "dgdm.state", "dgdm.streaming", "pydantic", "typer", "redis"}
    assert not heavy & loaded_by(statement)


def test_every_public_name_is_there() -> None:
    import dgdm

    offered = {"StreamingDGDM", "GraphUpdate", "diffuse", "GraphProducer", "EmbeddingStream"}
    assert offered <= set(dgdm.__all__)
    assert set(dgdm.__all__) <= set(dir(dgdm))
    assert all(getattr(dgdm, name) is not None for name in dgdm.__all__)
    missing = "no_such_name"
    with pytest.raises(AttributeError, match=missing):
        getattr(dgdm, missing)
