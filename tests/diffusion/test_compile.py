"""Kept machine code is that of the sources as they are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOM = Path(__file__).parents[2] / "diffusion"
PROGRAM = """
from diffusion.arrays import PENDING, allocate
from diffusion.upkeep import wake_all
graph = allocate(4, 1, False)
graph.alive[:] = graph.R[:] = 1
wake_all(graph, 4, 0.1)
print(graph.sizes[PENDING])
"""


def run(folder: Path) -> str:
    """What a fresh process, with the kept machine code of the ones before, says."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(folder)}
    command = [sys.executable, "-P", "-c", PROGRAM]  # imported from this folder by the name given here
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=folder, env=environment, timeout=120
    )
    return done.stdout.strip()


def kept_in(folder: Path) -> dict[Path, int]:
    """Machine code, and when it was written."""
    return {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*.nbc")}


def test_a_kernel_is_compiled_again_when_one_it_calls_in_another_file_changes(tmp_path: Path) -> None:
    shutil.copytree(ROOM, tmp_path / "diffusion", ignore=shutil.ignore_patterns("__pycache__"))
    assert run(tmp_path) == "4"
    kept = kept_in(tmp_path)
    assert kept
    assert run(tmp_path) == "4"
    assert kept_in(tmp_path) == kept
    link = tmp_path / "link"
    link.symlink_to(tmp_path, target_is_directory=True)
    assert run(link) == "4"
    assert kept_in(tmp_path) == kept, "the same file by another name"
    marks = tmp_path / "diffusion" / "marks.py"
    text = marks.read_text()
    wake = "g.pending[g.sizes[PENDING]] = u\n        g.sizes[PENDING] += 1\n    g.norm"
    assert text.count(wake) == 1
    marks.write_text(text.replace(wake, wake.replace("+= 1", "+= 2")))
    assert run(tmp_path) == "8"
