"""The command line."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn

from . import model_commands, tpu_commands
from .log.interface import LogError
from .settings import Settings
from .state.store import StoreError

T = TypeVar("T")
out, err = Console(), Console(stderr=True)
app = typer.Typer(
    help="Embeddings of a moving graph, always fresh, with a proven error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
topics = typer.Typer(help="Create or check the topics of a graph.", no_args_is_help=True)
app.add_typer(topics, name="topics")
app.add_typer(model_commands.app, name="model")
app.add_typer(tpu_commands.app, name="tpu")

LogUrl = Annotated[str | None, typer.Option("--log", help="kafka://host:port or sqlite:///path [DGDM_LOG]")]
StoreUrl = Annotated[
    str | None, typer.Option("--store", help="redis://host:port/0 or sqlite:///path [DGDM_STORE]")
]
Graph = Annotated[str | None, typer.Option("--graph", help="name of the graph [DGDM_GRAPH]")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="any other setting: NAME=VALUE, may be repeated")
]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object, for scripts")]


def fail(message: str, code: int = 2) -> typer.Exit:
    """Say what is wrong and end."""
    err.print(f"dgdm: {message}", style="red", markup=False, highlight=False)
    return typer.Exit(code)


def load(given: dict[str, Any], extra: list[str] | None) -> Settings:
    """Settings from flags over environment over file; a mistake ends with a sentence."""
    flags = {name: value for name, value in given.items() if value is not None}
    for item in extra or []:
        name, separator, value = item.partition("=")
        if not separator or name not in Settings.model_fields:
            raise fail(f"--set {item!r}: write NAME=VALUE with a name of docs/settings.md")
        flags[name] = value
    try:
        return Settings(**flags)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']} (got {e['input']!r})"
            for e in error.errors()
        ]
        raise fail("; ".join(lines)) from None
    except ValueError as error:
        raise fail(str(error)) from None


def run(main: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine; what the log or the store refuses is a sentence, not a traceback."""
    try:
        return asyncio.run(main())  # type: ignore[arg-type]
    except (LogError, StoreError) as error:
        raise fail(str(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@app.command()
def worker(
    log: LogUrl = None,
    store: StoreUrl = None,
    graph: Graph = None,
    features: Annotated[int | None, typer.Option(help="feature columns per node")] = None,
    accuracy: Annotated[
        str | None, typer.Option(help="largest error: a number, or one per column: 0.1,0.2")
    ] = None,
    extra: Set = None,
) -> None:
    """The service: events in, embeddings out. A second one on the same graph stands by."""
    from .telemetry import configure_logging
    from .worker import Worker

    given = {"log": log, "store": store, "graph": graph, "features": features, "accuracy": accuracy}
    settings = load(given, extra)
    configure_logging(settings.log_level, settings.log_format)

    async def main() -> int:
        return int(await Worker(settings).run())

    raise typer.Exit(run(main))


@app.command()
def up(
    log: LogUrl = None,
    store: StoreUrl = None,
    graph: Graph = None,
    features: Annotated[int | None, typer.Option(help="feature columns per node")] = None,
    accuracy: Annotated[str | None, typer.Option(help="largest error: a number, or one per column")] = None,
    extra: Set = None,
) -> None:
    """Everything in one place: topics made when missing, then a worker; embedded unless addresses are given."""
    settings = load({"log": log, "store": store, "graph": graph}, extra)
    run(lambda: _create(settings, 1))
    out.print(
        f"events go to {settings.log} {settings.events_topic}; embeddings come from {settings.embeddings_topic}"
    )
    worker(log, store, graph, features, accuracy, extra)


async def _create(settings: Settings, partitions: int) -> list[tuple[str, bool]]:
    from .connections import connect_log
    from .log.topics import create_topics

    log = connect_log(settings)
    try:
        return await create_topics(log, _plans(settings, partitions))
    finally:
        await log.close()


def _plans(settings: Settings, partitions: int) -> list[Any]:
    from .log.topics import plans

    names = (
        settings.events_topic,
        settings.embeddings_topic,
        settings.progress_topic,
        settings.dead_letters_topic,
    )
    return plans(*names, partitions)


@topics.command("create")
def topics_create(
    log: LogUrl = None,
    partitions: Annotated[
        int, typer.Option(min=1, help="of the events topic; more than 1 weakens the order")
    ] = 1,
    extra: Set = None,
) -> None:
    """Create what is missing, with the right clean-up policies."""
    settings = load({"log": log}, extra)
    for name, created in run(lambda: _create(settings, partitions)):
        out.print(f"{name}: {'created' if created else 'was there'}")


@topics.command("check")
def topics_check(log: LogUrl = None, extra: Set = None) -> None:
    """Say what is missing or wrong; exit code 1 when something is."""
    from .connections import connect_log
    from .log.topics import check_topics

    settings = load({"log": log}, extra)

    async def main() -> list[str]:
        connected = connect_log(settings)
        try:
            return await check_topics(connected, _plans(settings, 1))
        finally:
            await connected.close()

    problems = run(main)
    for problem in problems:
        out.print(problem, markup=False)
    if problems:
        raise typer.Exit(1)
    out.print("all topics are as they should be")


@app.command()
def produce(
    files: Annotated[list[str], typer.Argument(help="files, .gz too; - is standard input")],
    log: LogUrl = None,
    graph: Graph = None,
    kind: Annotated[
        str | None, typer.Option("--format", help="jsonl, csv or msgpack; by extension otherwise")
    ] = None,
    wait: Annotated[bool, typer.Option(help="wait until the embeddings reflect all of it")] = False,
    extra: Set = None,
) -> None:
    """Events from JSON lines, CSV edge lists, MessagePack streams; bad lines are counted and shown."""
    from .producers.files import BadLine
    from .producing import Sent, send_files

    settings = load({"log": log, "graph": graph}, extra)
    if kind not in (None, "jsonl", "csv", "msgpack"):
        raise fail(f"--format {kind!r} is none of jsonl, csv, msgpack")

    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=err, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("")

        def tell(path: str, sent: Sent, bad: BadLine | None) -> None:
            bar.update(task, description=f"{path}: {sent.events} events, {sent.bad} bad lines")
            if bad is not None and sent.bad <= 10:
                err.print(f"{path}:{bad.number}: {bad.reason}: {bad.text}", markup=False, highlight=False)

        try:
            sent = run(lambda: send_files(settings, files, kind, wait=wait, tell=tell))
        except (OSError, ValueError) as error:
            raise fail(str(error)) from None
    out.print(f"{sent.events} events sent, {sent.bad} bad lines")
    if sent.bad:
        raise typer.Exit(1)


@app.command()
def tail(
    log: LogUrl = None,
    beginning: Annotated[bool, typer.Option(help="from the beginning of the topic")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="stop after so many changes")] = None,
    as_json: AsJson = False,
    extra: Set = None,
) -> None:
    """Embeddings as they change."""
    from .connections import connect_log
    from .consumers.embeddings import EmbeddingStream
    from .schemas.embeddings import Embedding

    settings = load({"log": log}, extra)

    async def main() -> None:
        connected = connect_log(settings)
        seen = 0
        try:
            start: Any = "beginning" if beginning else "now"
            async with EmbeddingStream(connected, settings.embeddings_topic, start=start) as stream:
                async for change in stream:
                    vector = change.vector.tolist() if isinstance(change, Embedding) else None
                    if as_json:
                        typer.echo(json.dumps({"id": change.id, "vector": vector}))
                    else:
                        shown = "removed" if vector is None else " ".join(f"{x:.4g}" for x in vector[:8])
                        out.print(f"{change.id}  {shown}", markup=False, highlight=False)
                    seen += 1
                    if limit is not None and seen >= limit:
                        return
        finally:
            await connected.close()

    run(main)


@app.command()
def certify(
    log: LogUrl = None,
    store: StoreUrl = None,
    graph: Graph = None,
    from_log: Annotated[
        bool, typer.Option(help="rebuild the graph from the log alone, ask no store")
    ] = False,
    as_json: AsJson = False,
    extra: Set = None,
) -> None:
    """Solve the graph exactly and compare with what the topic holds; exit code 1 when the promise is broken."""
    from .audit import NothingToCertifyError, audit

    settings = load({"log": log, "store": store, "graph": graph}, extra)
    try:
        found = run(lambda: audit(settings, from_log=from_log))
    except (NothingToCertifyError, ValueError) as error:
        raise fail(str(error)) from None
    certificate = found.certificate
    report = {
        "holds": found.holds,
        "error": certificate.error,
        "bound": certificate.bound,
        "sequence": found.progress.sequence,
        "nodes": len(found.exact),
        "missing": found.missing[:10],
        "extra": found.extra[:10],
        "unchecked": found.unchecked,
        "worst": certificate.worst,
    }
    if as_json:
        typer.echo(json.dumps(report))
    else:
        for name, value in report.items():
            out.print(f"{name:>10}  {value}", markup=False)
    if not found.holds:
        raise typer.Exit(1)


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="a .npz or .parquet file")],
    log: LogUrl = None,
    extra: Set = None,
) -> None:
    """Embeddings as the topic holds them: ids and a matrix."""
    from .exporting import export_table

    settings = load({"log": log}, extra)
    try:
        out.print(f"{run(lambda: export_table(settings, path))} embeddings written to {path}")
    except (OSError, ValueError) as error:
        raise fail(str(error)) from None


@app.command()
def doctor(
    log: LogUrl = None,
    store: StoreUrl = None,
    graph: Graph = None,
    ready: Annotated[bool, typer.Option("--ready", help="only: does a worker serve this graph?")] = False,
    as_json: AsJson = False,
    extra: Set = None,
) -> None:
    """What is reachable, what is wrong, what to do; exit code 1 when something is wrong."""
    from .doctor import diagnose, is_ready

    settings = load({"log": log, "store": store, "graph": graph}, extra)
    if ready:
        serving, state = run(lambda: is_ready(settings))
        out.print(state)
        raise typer.Exit(0 if serving else 1)
    findings = run(lambda: diagnose(settings, _plans(settings, 1)))
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings]))
    else:
        for finding in findings:
            out.print(f"{'ok ' if finding.ok else 'BAD'}  {finding.what}: {finding.message}", markup=False)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
def demo(
    broker: Annotated[str | None, typer.Option(help="kafka://host:port instead of the embedded log")] = None,
    store: Annotated[
        str | None, typer.Option(help="redis://host:port/0 instead of the embedded store")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=365, help="how much of the year")] = 365,
    as_json: AsJson = False,
) -> None:
    """A year of flights through the whole pipeline, a kill -9 in the middle, a certificate at the end."""
    from .examples.demo import run_demo

    run(lambda: run_demo(log=broker, store=store, days=days, as_json=as_json))


@app.command("warm-up", hidden=True)
def warm_up() -> None:
    """Compile the kernels, so that no event waits for it."""
    from .state.graph import warm_up as compile_kernels

    for directed in (False, True):
        compile_kernels(directed)
    out.print("kernels compiled")


def main() -> None:
    """The entry point."""
    app()
