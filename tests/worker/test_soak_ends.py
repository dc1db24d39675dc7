"""A soak that is interrupted in the midst of a fault: nothing is left, not even a frozen server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.integration
def test_interrupted_while_redis_is_frozen_it_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT / ".path")}
    command = [sys.executable, "-m", "benchmarks", "soak", "--minutes", "1", "--seed", "7"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, env=environment, text=True) as soak:
        assert soak.stderr is not None
        said = ""
        for line in soak.stderr:
            said += line
            if "redis frozen" in line:
                break
        assert "redis frozen" in said, said
        assert processes_of(tmp_path)
        soak.send_signal(signal.SIGINT)
        said += soak.stderr.read()
    assert soak.returncode == 130
    assert "seed 7" in said
    assert "Traceback" not in said
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def processes_of(folder: Path) -> list[str]:
    """What runs with a file of this folder: broker, Redis, workers."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (entry / "cmdline").read_bytes() + os.fsencode(
                (entry / "cwd").readlink()
            ):
                found.append(entry.name)
        except OSError:
            continue  # it ended meanwhile, or is not ours
    return found
