"""What the commands say of a graph that is served."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import pytest
from clitools import dgdm, up
from processes import stored_meta, until

from dgdm.log import Message, open_log
from dgdm.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


EVENTS = """\
{"type": "AddNode", "id": "ann", "features": [1.0, 0.5]}
{"type": "AddEdge", "source": "ann", "target": "bob"}
{"type": "AddNode", "id": "gone"}
{"type": "RemoveNode", "id": "gone"}
"""


@pytest.fixture
def served(folder: Path) -> Iterator[Path]:
    """A directed graph of two nodes and one that has gone, with all of it published."""
    with up("--features", "2", "--set", "directed=true", "--set", "checkpoint_interval=0.2"):
        assert dgdm("produce", "-", "--wait", input=EVENTS).exit_code == 0
        yield folder


def lines(*args: str) -> list[Any]:
    """Every line that a command prints as JSON."""
    result = dgdm(*args, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


async def append(*values: bytes | None) -> None:
    log = open_log("sqlite:///.dgdm/log.db")
    writer = log.writer()
    await writer.start()
    await writer.append("dgdm.events", 0, [Message(b"raw", value) for value in values])
    await writer.close()
    await log.close()


def test_tail_shows_vectors_and_removals(served: Path) -> None:
    seen = lines("tail", "--beginning", "--limit", "3")
    assert {line["id"] for line in seen} == {"ann", "bob", "gone"}
    shown = dgdm("tail", "--beginning", "--limit", "3").stdout.splitlines()
    for line in seen:
        if line["vector"] is None:
            assert f"{line['id']}  removed" in shown
        else:
            assert f"{line['id']}  {line['vector'][0]:.4g} {line['vector'][1]:.4g}" in shown
            assert line["sequence"] == 4
            assert line["ts"] > 1_700_000_000_000


def test_dead_letters_can_be_read_and_sent_again(served: Path) -> None:
    bad = b'{"type": "AddEdge", "source": "ann", "target": "eve", "weight": "2"}'
    packed = msgpack.packb({"type": "AddNode", "id": "ann", "features": np.ones(3, "<f4").tobytes()})
    asyncio.run(append(bad, None, packed, b"\xc1\xff", msgpack.packb([1, 2]) + b"\xff"))
    assert dgdm("produce", "-", "--wait", input='{"type": "RemoveNode", "id": "x"}').exit_code == 0
    letters = lines("tail", "--dead-letters", "--beginning", "--limit", "5")
    found = sorted((letter["dgdm-offset"], letter["dgdm-error"]) for letter in letters)
    assert found == [
        ("4", "wrong-type"),
        ("5", "null-value"),
        ("6", "wrong-length"),
        ("7", "undecodable"),
        ("8", "undecodable"),
    ]
    letters.sort(key=lambda letter: letter["dgdm-offset"])
    assert {letter["key"] for letter in letters} == {"raw"}
    assert letters[1]["value"] is None
    assert json.loads(letters[2]["value"]) == {"type": "AddNode", "id": "ann", "features": [1, 1, 1]}
    assert base64.b64decode(letters[3]["value"]["base64"]) == b"\xc1\xff"
    shown = dgdm("tail", "--dead-letters", "--beginning", "--limit", "3").stdout.splitlines()
    assert shown[0].startswith("wrong-type  dgdm.events[0] offset 4: a weight is a number, not '2'")
    mended = letters[0]["value"].replace('"2"', "2")
    assert dgdm("produce", "-", "--wait", input=mended).exit_code == 0
    changed = {line["id"] for line in lines("tail", "--beginning", "--limit", "5")}
    assert changed == {"ann", "bob", "gone", "eve", "x"}  # removing x is told, whoever x is


def test_certify_takes_from_the_store_what_the_worker_was_told(folder: Path) -> None:
    settings = ["--set", "directed=true", "--set", "alpha=0.5"]
    with up("--features", "2", *settings, "--set", "checkpoint_interval=0.1"):
        assert dgdm("produce", "-", "--wait", input=EVENTS).exit_code == 0

        async def stored() -> bool:
            return (meta := await stored_meta(Settings())) is not None and meta.event_sequence == 4

        asyncio.run(until(stored, "a checkpoint"))
        assert dgdm("certify").exit_code == 0
        assert dgdm("certify", "--from-log", *settings).exit_code == 0
        wrong = dgdm("certify", "--from-log")
        assert wrong.exit_code == 1, "the log alone does not say how it is to be read"
        assert "THE PROMISE IS BROKEN" in wrong.stdout


def test_certify_compares_only_what_can_be_compared(served: Path) -> None:
    result = dgdm("certify", "--set", "directed=true", "--set", "unknown_nodes=reject")
    assert result.exit_code == 2
    assert "the log holds 3 events that can be applied, and the worker applied 4" in result.stderr
    assert "give certify the worker's settings" in result.stderr


def test_certify_says_what_it_found(served: Path) -> None:
    said = dgdm("certify", "--set", "directed=true").stdout
    assert "column 1: largest error " in said
    assert "the promise is kept: 2 vectors against the exact solution after 4 events" in said
    (found,) = lines("certify", "--set", "directed=true")
    assert found["holds"] is True
    assert found["accuracy"] == [0.01, 0.01]
    assert found["nodes"] == 2
    assert {node for node, _ in found["worst"]} == {"ann", "bob"}


def test_export_and_doctor(served: Path) -> None:
    assert "2 embeddings written to t.npz" in dgdm("export", "t.npz").stdout
    with np.load("t.npz") as table:
        assert table["ids"].tolist() == ["ann", "bob"]
        assert table["vectors"].shape == (2, 2)
    assert dgdm("doctor", "--ready").stdout == "serving\n"
    (findings,) = lines("doctor")
    assert [(one["what"], one["ok"]) for one in findings] == [
        ("store", True),
        ("log", True),
        ("progress", True),
        ("worker", True),
        ("tpu", True),
    ]
