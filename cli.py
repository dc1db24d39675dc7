"""The command line."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn

from . import model_commands, tpu_commands
from .options import (
    Accuracy,
    AsJson,
    Features,
    Graph,
    LogUrl,
    Set,
    StoreUrl,
    err,
    fail,
    load,
    run,
    say,
    whole,
    words,
)
from .settings import DEFAULT_STORE, Settings

app = typer.Typer(
    help="Embeddings of a moving graph, always fresh, with a proven error.",
    epilog="Settings are flags, environment variables (DGDM_…) or lines of the TOML file that DGDM_CONFIG names; "
    "docs/settings.md has them all. Exit codes: 0 done, 1 no (broken, not ready, bad lines), 2 a mistake, 130 Ctrl-C.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
topics = typer.Typer(help="Create or check the topics of a graph.", no_args_is_help=True)
app.add_typer(topics, name="topics")
app.add_typer(model_commands.app, name="model")
app.add_typer(tpu_commands.app, name="tpu")


@app.command()
def worker(
    log: LogUrl = None,
    store: StoreUrl = None,
    graph: Graph = None,
    features: Features = None,
    accuracy: Accuracy = None,
    extra: Set = None,
) -> None:
    """The service: events in, embeddings out, until SIGTERM or Ctrl-C. A second one on the same graph stands by.

    The topics must be there: dgdm topics create. Exit codes: 0 stopped, 2 refused (starting again will not help),
    3 another worker owns the graph, 75 log or store stayed away (start again).
    """
    given = {"log": log, "store": store, "graph": graph, "features": features, "accuracy": accuracy}
    _serve(load(given, extra))


@app.command()
def up(
    log: LogUrl = None,
    store: StoreUrl = None,
    graph: Graph = None,
    features: Features = None,
    accuracy: Accuracy = None,
    extra: Set = None,
) -> None:
    """Everything in one place: topics made when missing, then a worker, until Ctrl-C.

    Log and store are files in .dgdm of this folder unless addresses are given; started again, it goes on where it
    was. The first time: dgdm up --features 8.
    """
    given = {"log": log, "store": store, "graph": graph, "features": features, "accuracy": accuracy}
    settings = load(given, extra)
    run(lambda: _create(settings, 1))
    say(f"graph {settings.graph}: {settings.events_topic} → {settings.embeddings_topic} in {settings.log}")
    say("In another terminal: dgdm produce FILE, dgdm tail, dgdm certify. Ctrl-C stops this one.")
    _serve(settings)


def _serve(settings: Settings) -> None:
    """A worker until it stops; ends with its exit code."""
    from .telemetry import configure_logging
    from .worker import Worker

    configure_logging(settings.log_level, settings.log_format)

    async def main() -> int:
        return int(await Worker(settings).run())

    if settings.store == DEFAULT_STORE:
        try:
            Path(DEFAULT_STORE.removeprefix("sqlite:///")).parent.mkdir(exist_ok=True)
        except OSError as error:
            raise fail(words(error)) from None
    raise typer.Exit(run(main))


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
    return plans(*names, partitions, settings.predicted_topic)


@topics.command("create")
def topics_create(
    log: LogUrl = None,
    partitions: Annotated[
        int,
        typer.Option(
            parser=whole(1), metavar="N", help="of the events topic; more than 1 gives up the total order"
        ),
    ] = 1,
    extra: Set = None,
) -> None:
    """Create the topics that are missing, with the right clean-up policies; others are left as they are."""
    settings = load({"log": log}, extra)
    for name, created in run(lambda: _create(settings, partitions)):
        say(f"{name}: {'created' if created else 'was there'}")


@topics.command("check")
def topics_check(log: LogUrl = None, extra: Set = None) -> None:
    """Say which topics are missing or have the wrong clean-up policy; exit code 1 when any has."""
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
        say(problem)
    if problems:
        raise typer.Exit(1)
    say("all topics are as they should be")


@app.command()
def produce(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="files, .gz too; - is standard input")],
    log: LogUrl = None,
    graph: Graph = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="jsonl, csv or msgpack; by the file's extension otherwise, jsonl from standard input",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="wait until the embeddings reflect all of it; needs a worker")
    ] = False,
    extra: Set = None,
) -> None:
    """Send events: JSON lines, CSV edge lists, MessagePack streams (docs/producing.md shows each).

    Bad lines are not sent but counted, the first ten are shown, and the exit code is 1. Ctrl-C writes what was sent.
    """
    from .producers.files import BadLine
    from .producing import Sent, send_files

    settings = load({"log": log, "graph": graph}, extra)
    if kind not in (None, "jsonl", "csv", "msgpack"):
        raise fail(f"--format {kind!r} is none of jsonl, csv, msgpack")

    sent = Sent()
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
    with Bar(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("")

        def tell(path: str, bad: BadLine | None) -> None:
            bar.update(task, description=f"{path}: {sent}")
            if bad is not None and sent.bad <= 10:
                say(f"{path}:{bad.number}: {bad.reason}: {bad.text}", err)

        try:
            run(lambda: send_files(settings, files, kind, sent, wait=wait, tell=tell))
        except (OSError, ValueError) as error:
            raise fail(words(error)) from None
        except typer.Exit as ended:
            if sent.events:
                written = "all written" if ended.exit_code == 130 else "the last of them perhaps not written"
                say(f"dgdm: stopped after {sent}, {written}", err)
            raise
    say(sent)
    if not (sent.events or sent.bad):
        say(f"dgdm: there is no event in {', '.join(files)}", err, "yellow")
    if sent.bad:
        raise typer.Exit(1)


@app.command()
def tail(
    log: LogUrl = None,
    beginning: Annotated[
        bool, typer.Option("--beginning", help="first what the topic holds already, then what comes")
    ] = False,
    dead_letters: Annotated[
        bool, typer.Option("--dead-letters", help="refused events with their reasons, in place of embeddings")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(parser=whole(1), metavar="N", help="stop after so many lines")
    ] = None,
    as_json: AsJson = False,
    extra: Set = None,
) -> None:
    """Embeddings as they change, from now on, until Ctrl-C: one line for each, its first eight columns.

    --json gives all columns. A removed node is a line without a vector.
    """
    from .tailing import follow

    settings = load({"log": log}, extra)

    async def main() -> None:
        seen = 0
        async with contextlib.aclosing(
            follow(settings, beginning=beginning, dead_letters=dead_letters)
        ) as lines:
            async for line in lines:
                if as_json:
                    typer.echo(json.dumps(line.fields))
                else:
                    say(line.text)
                seen += 1
                if limit is not None and seen >= limit:
                    return

    run(main)


@app.command()
def certify(
    log: LogUrl = None,
    store: StoreUrl = None,
    graph: Graph = None,
    from_log: Annotated[
        bool, typer.Option("--from-log", help="rebuild the graph from the log alone, ask no store")
    ] = False,
    as_json: AsJson = False,
    extra: Set = None,
) -> None:
    """Solve the graph exactly and compare with what the topic holds; exit code 1 when the promise is broken.

    Give it the settings of the worker. It may run beside the worker, and takes no vector from it or its store.
    """
    from .audit import NothingToCertifyError, audit

    settings = load({"log": log, "store": store, "graph": graph}, extra)
    try:
        found = run(lambda: audit(settings, from_log=from_log))
    except (NothingToCertifyError, ValueError) as error:
        raise fail(str(error)) from None
    if as_json:
        typer.echo(json.dumps(found.report()))
    else:
        for line in found.sentences():
            say(line)
    if not found.holds:
        raise typer.Exit(1)


@app.command()
def export(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="a .npz or .parquet file; written over")],
    log: LogUrl = None,
    extra: Set = None,
) -> None:
    """Embeddings as the topic holds them: ids [n] and vectors [n, columns], sorted by id."""
    from .exporting import export_table

    settings = load({"log": log}, extra)
    try:
        say(f"{run(lambda: export_table(settings, path))} embeddings written to {path}")
    except (OSError, ValueError) as error:
        raise fail(words(error)) from None


@app.command()
def doctor(
    log: LogUrl = None,
    store: StoreUrl = None,
    graph: Graph = None,
    ready: Annotated[
        bool, typer.Option("--ready", help="only: does a worker serve this graph? For probes")
    ] = False,
    as_json: AsJson = False,
    extra: Set = None,
) -> None:
    """What is reachable, what is wrong, what to do; exit code 1 when something is wrong."""
    from .doctor import diagnose, is_ready

    settings = load({"log": log, "store": store, "graph": graph}, extra)
    if ready:
        serving, state = run(lambda: is_ready(settings))
        say(state)
        raise typer.Exit(0 if serving else 1)
    findings = run(lambda: diagnose(settings, _plans(settings, 1)))
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings]))
    else:
        for finding in findings:
            say(f"{'ok ' if finding.ok else 'BAD'}  {finding.what}: {finding.message}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
def demo(
    broker: Annotated[
        str | None, typer.Option(metavar="URL", help="kafka://host:port instead of the embedded log")
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="redis://host:port/0 instead of the embedded store")
    ] = None,
    days: Annotated[
        int, typer.Option(parser=whole(2, 365), metavar="N", help="how much of the year: 2 to 365")
    ] = 365,
    as_json: AsJson = False,
) -> None:
    """A year of flights through the whole pipeline, a kill -9 in the middle, a certificate at the end."""
    from .examples.demo import run_demo

    run(lambda: run_demo(log=broker, store=store, days=days, as_json=as_json))


@app.command("warm-up", hidden=True)
def warm_up() -> None:
    """Compile the kernels, so that no event waits for it."""
    from .state.warming import warm_up as compile_kernels

    for directed in (False, True):
        compile_kernels(directed)
    say("kernels compiled")


def main() -> None:
    """The entry point."""
    app()
