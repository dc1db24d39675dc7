"""What is read from the text of the code, because Python forgets it: the meaning of members, the words of a log line."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from enum import Enum
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LEVELS = ("debug", "info", "warning", "error")
OUTSIDE = ("tests", "benchmarks", "docs", "deploy", "examples", "build", "dist")


class LogLine(NamedTuple):
    """A log line of the code; what is only known when it is written is … in the message."""

    event: str
    level: str
    message: str


def members(kind: type[Enum]) -> list[tuple[str, str, str]]:
    """(name, value, the text below it) of each member."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for member, text in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(member, ast.Assign)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            (name,) = member.targets
            assert isinstance(name, ast.Name)
            texts[name.id] = " ".join(str(text.value.value).split())
    return [(one.name, str(one.value), texts[one.name]) for one in kind]


def log_lines() -> tuple[list[LogLine], list[LogLine]]:
    """(what a worker writes by structlog, what the clients write by logging), sorted by event."""
    found: tuple[set[LogLine], set[LogLine]] = set(), set()
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).parts
        if parts[0].startswith(".") or parts[0] in OUTSIDE:
            continue
        for call in ast.walk(ast.parse(path.read_text())):
            match call:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log" | "logger" as by), attr=level)) if (
                    level in LEVELS
                ):
                    worker, clients = found
                    (worker if by == "log" else clients).add(_line(call, level, by, f"{path}:{call.lineno}"))
    return sorted(found[0]), sorted(found[1])


def _line(call: ast.Call, level: str, by: str, where: str) -> LogLine:
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    event, message = (
        (call.args[0], named.get("message")) if by == "log" else (_event_of(named.get("extra")), call.args[0])
    )
    if not isinstance(event, ast.Constant) or message is None:
        raise ValueError(f"{where}: a log line has an event key that is text, and a message")
    return LogLine(str(event.value), level, re.sub(r"%[sdr]", "…", _words(message)))


def _event_of(extra: ast.expr | None) -> ast.expr | None:
    if not isinstance(extra, ast.Dict):
        return None
    return next(
        (v for k, v in zip(extra.keys, extra.values, strict=True) if ast.unparse(k or v) == "'event'"), None
    )


def _words(message: ast.expr) -> str:
    match message:
        case ast.Constant(value=text):
            return str(text)
        case ast.JoinedStr(values=parts):
            return "".join(_words(part) for part in parts)
    return "…"
