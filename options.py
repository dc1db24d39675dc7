"""What the commands share: options, settings made of them, and a user's mistake as one sentence."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

import typer
from pydantic import SecretStr, ValidationError
from rich.console import Console

from .log.interface import LogError
from .settings import Settings, allowed
from .state.store import StoreError
from .tpu.errors import TpuError

T = TypeVar("T")
out = Console(markup=False, highlight=False, emoji=False)
err = Console(markup=False, highlight=False, emoji=False, stderr=True)
PAGE = "docs/settings.md has them all"

LogUrl = Annotated[
    str | None, typer.Option("--log", metavar="URL", help="kafka://host:port or sqlite:///path [DGDM_LOG]")
]
StoreUrl = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="redis://host:port/0 or sqlite:///path [DGDM_STORE]"),
]
Graph = Annotated[str | None, typer.Option("--graph", metavar="NAME", help="name of the graph [DGDM_GRAPH]")]
Features = Annotated[
    str | None,
    typer.Option("--features", metavar="N", help="feature columns per node; needed once [DGDM_FEATURES]"),
]
Accuracy = Annotated[
    str | None,
    typer.Option(
        "--accuracy",
        metavar="NUMBERS",
        help="largest error, in feature units: one number, or one per column: 0.1,0.2 [DGDM_ACCURACY]",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="any other setting of docs/settings.md; may be repeated"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on one line, for scripts")]


def say(line: object, console: Console = out, style: str | None = None) -> None:
    """A line as long as it is: one that is cut at the width of a terminal cannot be copied or searched."""
    console.print(str(line), style=style, soft_wrap=True)


def fail(message: str, code: int = 2) -> typer.Exit:
    """Say what is wrong and end."""
    say(f"dgdm: {message}", err, "red")
    return typer.Exit(code)


def words(error: OSError | ValueError) -> str:
    """What the system refused, without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """The parser of an option that takes a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            upper = "" if most is None else f" and at most {most}"
            raise typer.BadParameter(f"{text!r} is not a whole number of at least {least}{upper}")
        return number

    return parse


def load(given: dict[str, Any], extra: list[str] | None) -> Settings:
    """Settings from flags over environment over file; a mistake ends with a sentence."""
    flags = {name: value for name, value in given.items() if value is not None}
    for item in extra or []:
        name, separator, value = item.partition("=")
        if not separator:
            raise fail(f"--set {item!r}: write NAME=VALUE")
        if name not in Settings.model_fields:
            raise fail(f"--set {item!r}: {_no_setting(name)}")
        flags[name] = value
    for variable in sorted(os.environ):
        name = variable.upper().removeprefix("DGDM_")
        if name != variable.upper() and (meant := _similar(name)) not in (None, name):
            say(f"dgdm: {variable} is no setting, so it is ignored: is DGDM_{meant} meant?", err, "yellow")
    try:
        return Settings(**flags)
    except ValidationError as error:
        raise fail("; ".join(_mistake(found, flags) for found in error.errors())) from None
    except ValueError as error:
        raise fail(str(error)) from None


def _mistake(found: Any, flags: dict[str, Any]) -> str:
    """One mistake: the setting, its value, where that came from, and what would be right."""
    message = found["msg"].removeprefix("Value error, ")
    if not found["loc"]:
        return str(message)
    name = str(found["loc"][0])
    if name not in Settings.model_fields:
        return f"the file that DGDM_CONFIG names: {_no_setting(name)}"
    secret = SecretStr in getattr(Settings.model_fields[name].annotation, "__args__", ())
    shown = "…" if secret else repr(found["input"])
    variable = next((v for v in os.environ if v.upper() == f"DGDM_{name.upper()}"), None)
    source = "" if name in flags else f" (from {variable or 'the file that DGDM_CONFIG names'})"
    right = message if found["type"] == "value_error" else f"give {allowed(name)}"
    return f"{name} = {shown}{source}: {right}"


def _no_setting(name: str) -> str:
    meant = _similar(name.upper())
    return f"{name} is no setting; " + (f"is {meant.lower()} meant? {PAGE}" if meant else PAGE)


def _similar(name: str) -> str | None:
    """The setting that was meant, when it is nearly written so."""
    return next(
        iter(get_close_matches(name, [known.upper() for known in Settings.model_fields], 1, 0.8)), None
    )


def run(main: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine; what the log or the store refuses is a sentence, not a traceback."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it says, its errors say too
    try:
        return asyncio.run(main())  # type: ignore[arg-type]
    except (LogError, StoreError) as error:
        raise fail(str(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@contextmanager
def sentences() -> Iterator[None]:
    """What a model, a device or a file refuses is a sentence, not a traceback."""
    try:
        yield
    except TpuError as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(words(error)) from None
