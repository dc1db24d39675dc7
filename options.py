"""What the commands share: options, and a user's mistake as one sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from .tpu.errors import TpuError

out = Console(markup=False, highlight=False, emoji=False)
err = Console(markup=False, highlight=False, emoji=False, stderr=True)

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


@contextmanager
def sentences() -> Iterator[None]:
    """What a model, a device or a file refuses is a sentence, not a traceback."""
    try:
        yield
    except TpuError as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(words(error)) from None
