"""The whole demo, short: a real worker process, killed in the middle, and the promise kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stores import poll_until

from dgdm.consumers.embeddings import EmbeddingStream
from dgdm.examples.demo import run_demo
from dgdm.examples.flight_data import load_year
from dgdm.examples.flight_stories import stories
from dgdm.examples.flights import hourly_features, stream
from dgdm.log import LogError, open_log
from dgdm.state.store import StoreError

ROOT = Path(__file__).parents[2]


def processes_of(folder: Path) -> list[int]:
    """Workers whose log or store is in this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"DGDM_STORE=sqlite:///{folder}".encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue  # it ended meanwhile, or is not ours
    return found


async def test_a_week_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept"
    result: dict[str, Any] = await run_demo(days=7, as_json=True, keep=kept)
    printed, lines = capsys.readouterr()
    assert json.loads(printed) == result
    expected = list(stream(year := load_year(), hourly_features(year), days=7))
    assert result["events"] == len(expected)
    assert result["kills"] == 1
    assert 0 < result["max_error"] <= result["accuracy"] == 2.0
    # The control: the comparison sees a table of one day earlier.
    assert result["stale_error"] > 10 * result["accuracy"]
    assert 0 < result["p50_ms"] <= result["p99_ms"]
    assert "The promise was kept" in lines
    assert "kill -9" in lines
    assert "It is back" in lines
    assert "most alike" in lines
    assert lines.count("for the first time, where flights arrive ") == 3
    assert lines.count(" moved, ") == lines.count(" ms later.") >= 4
    assert processes_of(kept) == []

    log = open_log(f"sqlite:///{kept}/log.db")
    try:
        graph = next(json.loads(line) for line in (kept / "worker.log").read_text().splitlines())
        assert graph["event"]
        async with EmbeddingStream(log, "dgdm.embeddings") as embeddings:
            table = await embeddings.as_table()
            assert len(table) == result["vectors"] > 2_000
    finally:
        await log.close()


async def test_nothing_is_left_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late it is to listen: the worker has said all it has to say by then, and is idle."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def late(*given: Any) -> Any:
        poll_until(lambda: any('"serving"' in log.read_text() for log in tmp_path.glob("*/worker.log")), 120)
        return stories(*given)

    monkeypatch.setattr("dgdm.examples.demo.stories", late)
    await run_demo(days=2)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - no Path method in a coroutine
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_stops_its_worker_and_removes_its_files(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT / ".path")}
    command = [sys.executable, "-m", "dgdm", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "ms later" in line:  # the first story: events flow
                break
        assert len(processes_of(tmp_path)) == 1
        demo.send_signal(number)
        rest = demo.stdout.read()
    assert demo.returncode == code
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


async def test_a_mistake_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "something").touch()
    for given, message in (
        ({"keep": tmp_path}, f"{tmp_path} is not empty"),
        ({"keep": tmp_path / "something"}, "cannot be used"),
        ({"days": 1}, "choose 2 to 365"),
    ):
        with pytest.raises(SystemExit) as ended:
            await run_demo(**given)
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


async def test_a_broken_promise_is_said_and_is_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A consumer that drops one airport's updates holds something else than the truth."""
    poll, seen = EmbeddingStream.poll, set[str]()

    async def forgetful(stream: EmbeddingStream, timeout: float) -> list[Any]:  # noqa: ASYNC109 - as it is
        changes = await poll(stream, timeout)
        kept = [change for change in changes if change.id != "JFK" or "JFK" not in seen]
        seen.update(change.id for change in changes)
        return kept

    monkeypatch.setattr(EmbeddingStream, "poll", forgetful)
    with pytest.raises(SystemExit) as ended:
        await run_demo(days=3, as_json=True)
    assert ended.value.code == 1
    printed, lines = capsys.readouterr()
    result = json.loads(printed)
    assert result["max_error"] > result["accuracy"]
    assert "(at JFK)" in lines
    assert "THE PROMISE WAS BROKEN" in lines


async def test_an_address_where_nobody_answers_is_said_before_a_worker_starts(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="localhost:1"):
        await run_demo(store="redis://localhost:1/0")
    with pytest.raises(LogError, match="localhost:1"):
        await run_demo(log="kafka://localhost:1", store=f"sqlite:///{tmp_path}/store.db")


async def test_a_worker_that_ends_is_said_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DGDM_KAFKA_PROTOCOL", "SASL_SSL")  # without a username
    monkeypatch.setattr("dgdm.examples.demo.connect_log", lambda settings: open_log(settings.log))
    with pytest.raises(SystemExit) as ended:
        await run_demo(days=2)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "the worker ended with exit code 2" in said
    assert "SASL_SSL needs a username and a password" in said
