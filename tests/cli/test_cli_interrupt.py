"""Ctrl-C: at once, no traceback, and nothing that was taken is lost."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
from typing import TYPE_CHECKING

from clitools import dgdm, ended, running, up
from processes import read_all, stored_meta, until

from dgdm.docs.sources import log_lines
from dgdm.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

NODE = '{"type": "AddNode", "id": "a%d", "features": [1.0]}\n'


async def events() -> int:
    """How many stand in the events topic."""
    return len(await read_all(Settings(), "dgdm.events"))


def interrupted(command: subprocess.Popen[str]) -> tuple[int, str, str]:
    """One Ctrl-C, and how it ended."""
    command.send_signal(signal.SIGINT)
    code, out, err = ended(command)
    assert "Traceback" not in err, err
    return code, out, err


async def test_produce_sends_what_a_silent_pipe_has_said(folder: Path) -> None:
    with running("produce", "-") as command:
        assert command.stdin is not None
        for number in range(3):
            command.stdin.write(NODE % number)
            command.stdin.flush()
            await until(lambda n=number: has(n + 1), f"event {number} in the topic while the pipe is open")
        code, _, err = interrupted(command)
    assert code == 130
    assert "stopped after 3 events sent, 0 bad lines, all written" in err
    assert await events() == 3


async def has(count: int) -> bool:
    return await events() >= count


async def test_produce_interrupted_in_the_midst_of_a_file_has_written_what_it_says(folder: Path) -> None:
    (folder / "many.jsonl").write_text("".join(NODE % number for number in range(1_000_000)))
    with running("produce", "many.jsonl") as command:
        await until(lambda: has(1), "the first events")
        code, _, err = interrupted(command)
    assert code == 130
    told = re.search(r"stopped after (\d+) events sent, 0 bad lines, all written", err)
    assert told is not None, err
    assert await events() == int(told[1]) < 1_000_000


def test_produce_says_how_far_it_came_when_the_log_fails(folder: Path) -> None:
    (folder / "some.jsonl").write_text(NODE % 1)
    with running("produce", "some.jsonl", "--wait", "--set", "progress_topic=nope") as command:
        code, _, err = ended(command)
    assert code == 2
    assert "there is no topic 'nope'" in err
    assert "stopped after 1 events sent, 0 bad lines" in err


def test_tail_interrupted_or_left_by_its_reader(folder: Path) -> None:
    with up("--features", "1") as worker:
        dgdm("produce", "-", input=(NODE % 1) + (NODE % 2), catch_exceptions=False)
        with running("tail", "--beginning") as command:
            assert command.stdout is not None
            assert {command.stdout.readline(), command.stdout.readline()} == {"a1  1\n", "a2  1\n"}
            assert interrupted(command) == (130, "", "")
        with running("tail", "--beginning", "--json") as command:
            assert command.stdout is not None
            command.stdout.readline()
            command.stdout.close()
            number = 3
            while command.poll() is None:  # it notices when it writes
                dgdm("produce", "-", "--wait", input=NODE % number, catch_exceptions=False)
                number += 1
            assert command.stderr is not None
            assert command.stderr.read() == ""
        assert interrupted(worker)[0] == 0


def test_up_stops_with_a_checkpoint(folder: Path) -> None:
    with up("--features", "1") as worker:
        dgdm("produce", "-", "--wait", input=NODE % 1, catch_exceptions=False)
        code, _, err = interrupted(worker)
    assert code == 0, "it has done what it was told"
    assert '"state": "closed"' in err
    lines = [json.loads(line) for line in err.splitlines()]
    assert {line["event"] for line in lines} <= {line.event for line in log_lines()[0]}
    assert all(line["message"] for line in lines)
    meta = asyncio.run(stored_meta(Settings()))
    assert (meta.event_sequence, meta.event_offsets, meta.nodes) == (1, {0: 1}, 1)
    assert dgdm("certify").exit_code == 0
