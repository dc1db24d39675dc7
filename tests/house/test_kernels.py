"""Python calls only kernels that have a way in from Python: the others would take the process down with them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
COMPILED = {"kernel", "inner", "inline", "emitted", "straight"}
WITHOUT_DOOR = {"inner", "inline", "emitted"}
ROOMS = ("diffusion", "state", "benchmarks", "tests")
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def decorators(function: ast.FunctionDef) -> set[str]:
    return {node.id for node in function.decorator_list if isinstance(node, ast.Name)}


def closed(path: Path) -> set[str]:
    """Functions of a module that only kernels may call."""
    body = ast.parse(path.read_text()).body
    return {f.name for f in body if isinstance(f, ast.FunctionDef) and decorators(f) & WITHOUT_DOOR}


CLOSED = {path.stem: closed(path) for path in SOURCES if path.parent.name in {"diffusion", "state"}}


def plain_calls(tree: ast.AST) -> Iterator[ast.expr]:
    """What is called outside kernels."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef) and decorators(node) & COMPILED:
            continue
        if isinstance(node, ast.Call):
            yield node.func
        yield from plain_calls(node)


def mistakes(text: str, module: str) -> list[str]:
    """Calls by name or by module, under the names that the imports give."""
    tree = ast.parse(text)
    names = {name: name for name in CLOSED.get(module, ())}
    rooms: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            source = (node.module or "").split(".")[-1]
            for alias in node.names:
                if alias.name in CLOSED.get(source, ()):
                    names[alias.asname or alias.name] = alias.name
                elif alias.name in CLOSED:
                    rooms[alias.asname or alias.name] = alias.name
    found = []
    for called in plain_calls(tree):
        if isinstance(called, ast.Name) and called.id in names:
            found.append(called.id)
        elif (
            isinstance(called, ast.Attribute)
            and isinstance(called.value, ast.Name)
            and called.attr in CLOSED.get(rooms.get(called.value.id, ""), ())
        ):
            found.append(f"{called.value.id}.{called.attr}")
    return found


def test_there_are_such_functions() -> None:
    assert "change_arc" in CLOSED["local"]
    assert "find" in CLOSED["adjacency"]
    assert "push" not in CLOSED["local"]


def test_python_calls_no_kernel_without_a_way_in() -> None:
    for path in SOURCES:
        module = path.stem if path.parent.name in {"diffusion", "state"} else ""
        assert not mistakes(path.read_text(), module), path.relative_to(ROOT)


@pytest.mark.parametrize(
    "text",
    [
        "from dgdm.diffusion.local import change_arc as change\ndef f(g):\n    return change(g)",
        "from dgdm.diffusion import adjacency as lists\nlists.find(a, 1, 2)",
    ],
)
def test_a_mistake_is_found(text: str) -> None:
    assert mistakes(text, "")
