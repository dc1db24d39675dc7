"""What the pages tell people to run is run, block by block, against a real worker; what they show is what comes out."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jsonschema
import pytest
from brokers import shared_broker
from clitools import ROOT, dgdm, running, up
from processes import stored_meta, until
from stores import running_redis

from dgdm.connections import connect_store
from dgdm.schemas.events import decode_event
from dgdm.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator


WITH_A_WORKER = ["producing.md", "consuming.md"]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = re.compile(r"localhost:(9092|6379)")  # a block that talks to Kafka or Redis without dgdm


class Block(NamedTuple):
    language: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(one[1], one[2], text[: one.start()].count("\n") + 2) for one in found]


def execute(block: Block, page: str, env: dict[str, str] | None = None) -> tuple[str, dict[str, Any]]:
    """(standard output, names) of a block; the shell stops at the first failure."""
    if block.language == "python":
        names: dict[str, Any] = {"__name__": "__main__"}
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile("\n" * (block.line - 1) + block.text, page, "exec"), names)
        return out.getvalue(), names
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PATH": path, **(env or {})},
    )
    assert done.returncode == 0, f"{page}:{block.line}: {done.stderr}"
    return done.stdout, {}


async def holds_ann() -> bool:
    store = connect_store(Settings())
    try:
        return bool(await asyncio.to_thread(store.lookup, ["ann"]))
    finally:
        store.close()


@pytest.mark.parametrize("name", WITH_A_WORKER)
def test_a_page_does_what_it_says(folder: Path, name: str) -> None:
    said, told = "", ""
    with up("--features", "2", "--set", "checkpoint_interval=0.2"):
        for block in blocks_of(ROOT / "docs" / name):
            if block.language == "text":
                assert said == block.text, f"{name}:{block.line}"
            elif block.language in ("python", "sh") and not ELSEWHERE.search(block.text):
                if "open_store" in block.text:  # which shows what the last checkpoint holds
                    asyncio.run(until(holds_ann, "a checkpoint with what was published"))
                said, names = execute(block, name)
                told += said
                if "vectors" in names:
                    assert list(names["vectors"]) == ["ann"]
    if name == "consuming.md":
        assert "old is gone\n" in told
        assert re.search(
            r"^\['ann', 'bob'\] \[0\.\d+ 0\.\d+\] within \[0\.00\d+, 0\.00\d+\]$", told, re.MULTILINE
        ), told


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md"])
def test_the_first_steps_are_as_they_are_told(empty: Path, name: str) -> None:
    """`dgdm up` and `dgdm tail` stay in the foreground of their terminals; the rest is typed beside them."""
    watching: subprocess.Popen[str] | None = None
    said, shown = "", 0
    with contextlib.ExitStack() as terminals:
        for block in blocks_of(ROOT / name):
            *before, last = block.text.splitlines()
            if block.language == "text":
                said = said or lines_of(watching, len([*before, last]))
                assert said == block.text, f"{name}:{block.line}"
                shown += 1
            elif block.language == "sh" and last.startswith("dgdm up"):
                terminals.enter_context(up(*last.split()[2:]))
            elif block.language == "sh" and last.startswith("dgdm tail"):
                execute(block._replace(text="\n".join(before)), name)
                watching, said = terminals.enter_context(running(*last.split()[1:])), ""
            elif block.language == "sh":
                said, _ = execute(block, name)
                if "SetFeatures" in block.text:
                    assert lines_of(watching, 1).startswith("eve  "), "whom the event concerns"
        if not shown:
            assert [line.split()[0] for line in lines_of(watching, 3).splitlines()] == ["ann", "bob", "eve"]
        assert dgdm("certify").exit_code == 0


def lines_of(watching: subprocess.Popen[str] | None, count: int) -> str:
    """The next lines of a command in another terminal."""
    assert watching is not None
    assert watching.stdout is not None
    return "".join(watching.stdout.readline() for _ in range(count))


def test_models_are_made_as_their_page_says(empty: Path) -> None:
    ran = [execute(block, "accelerators.md") for block in blocks_of(ROOT / "docs" / "accelerators.md")]
    assert "certain: " in ran[1][0]
    assert (empty / "head.tflite").exists()


def test_every_record_a_page_shows_is_one() -> None:
    schemas = {
        name: json.loads((ROOT / "docs" / "schemas" / f"{name}.json").read_text())
        for name in ("event", "progress", "embedding")
    }
    shown = dict.fromkeys(schemas, 0)
    for page in PAGES:
        for block in blocks_of(page):
            for line in block.text.splitlines() if block.language == "json" else []:
                record = json.loads(line)
                kind = "event" if "type" in record else "progress" if "graph" in record else "embedding"
                jsonschema.validate(record, schemas[kind])
                shown[kind] += 1
                if kind == "event":
                    decode_event(line.encode())
    assert shown == {"event": 6, "progress": 1, "embedding": 1}


def test_every_block_is_run_somewhere() -> None:
    """README and quick start have a test of their own below."""
    known = {*WITH_A_WORKER, "README.md", "quickstart.md", "accelerators.md"}
    assert {
        page.name for page in PAGES if any(b.language in ("python", "sh") for b in blocks_of(page))
    } == known


@pytest.fixture
def servers(empty: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A worker on Kafka and Redis, and what the addresses of the pages are here."""
    name = f"docs{os.getpid()}"
    with running_redis() as redis:
        given = {f"{topic}_topic": f"{name}.{topic}" for topic in ("events", "embeddings", "progress")}
        given |= {"dead_letters_topic": f"{name}.dead-letters", "encoding": "json", "features": "2"}
        given |= {"log": shared_broker().url, "store": redis.url}
        for setting, value in given.items():
            monkeypatch.setenv(f"DGDM_{setting.upper()}", value)
        with up("--set", "checkpoint_interval=0.2"):
            yield {
                "localhost:9092": shared_broker().bootstrap,
                "redis://localhost:6379/0": redis.url,
                '"dgdm.e': f'"{name}.e',
            }


@pytest.mark.integration
def test_programs_without_dgdm_write_and_read(servers: dict[str, str]) -> None:
    async def stored() -> bool:
        return (meta := await stored_meta(Settings())) is not None and meta.event_sequence == 2

    found: dict[str, Any] = {}
    for name in WITH_A_WORKER:
        for block in blocks_of(ROOT / "docs" / name):
            if ELSEWHERE.search(block.text):
                text = block.text
                for theirs, ours in servers.items():
                    text = text.replace(theirs, ours)
                found |= execute(block._replace(text=text), name)[1]
        if name == "producing.md":  # its one event is in the topic, then in the table, then in the store
            other = dgdm("produce", "-", "--wait", input='{"type": "RemoveNode", "id": "x"}')
            assert other.exit_code == 0, other.output
            asyncio.run(until(stored, "a checkpoint"))
    assert found["table"] == {"ann": [0.5, 0.5]}
    assert found["vector"].tolist() == [0.5, 0.5]
