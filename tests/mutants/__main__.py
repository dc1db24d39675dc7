"""Known mistakes, each of which must turn its named test red: `make mutants`, `make mutants ARGS="push fence"`.

A mutant is an exact replacement of text that stands once in its file; when the text has moved, this says so and the
mutant is to be anchored anew. Mutants run one after the other in a copy of the checkout, so the tree is never touched.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cached_property
from pathlib import Path

from mutant import Mutant
from mutants_of_kernels import KERNELS
from mutants_of_pipeline import PIPELINE
from mutants_of_state import STATE
from mutants_of_tpu import TPU
from mutants_of_wire import WIRE

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240.0  # seconds: a mistake that hangs is red
WARM = "from dgdm.state.warming import warm_up; warm_up(False); warm_up(True)"
MUTANTS = [*KERNELS, *STATE, *WIRE, *PIPELINE, *TPU]


class Copy:
    """A copy of the checkout. Each mutant begins with the kernels of the code as it is: what it compiles is its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tree = folder / "tree"
        self._tree.mkdir()
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        files = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True).stdout
        packed = ["tar", "-c", "--null", "-T", "-", "-f", str(folder / "tree.tar")]
        subprocess.run(packed, cwd=ROOT, check=True, input=files)
        subprocess.run(["tar", "-x", "-f", str(folder / "tree.tar"), "-C", str(self._tree)], check=True)

    def missing(self, mutant: Mutant) -> str | None:
        """Why it cannot be tried, if so."""
        path = self._tree / mutant.file
        places = path.read_text().count(mutant.right) if path.exists() else 0
        return None if places == 1 else f"{mutant.file} has {places} places like {mutant.right!r}"

    def verdict(self, mutant: Mutant) -> str | None:
        """What went red first; None when its test stays green, which is bad."""
        path = self._tree / mutant.file
        text, stamp = path.read_text(), path.stat()
        path.write_text(text.replace(mutant.right, mutant.wrong))
        try:
            return self._tried(mutant)
        finally:
            path.write_text(text)
            os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # the kernels in it are what they were

    def _tried(self, mutant: Mutant) -> str | None:
        cache = self._folder / "of-a-mutant"
        subprocess.run(["rm", "-rf", str(cache)], check=True)
        if not mutant.file.startswith("diffusion/"):  # then every kernel is another one
            subprocess.run(["cp", "-a", str(self._kernels), str(cache)], check=True)
        command = [sys.executable, "-m", "pytest", "-q", "-x", mutant.test, "-k", mutant.chosen]
        environment = {
            **os.environ,
            "HYPOTHESIS_PROFILE": "mutants",
            "NUMBA_CACHE_DIR": str(cache),
            "DGDM_OFFLINE": str(ROOT / "deploy/offline"),
            "COLUMNS": "200",
        }
        try:
            done = subprocess.run(
                command, cwd=self._tree, env=environment, check=False, capture_output=True, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            return f"not done in {PATIENCE:g} s"
        if done.returncode not in (0, 1):  # not a verdict: no such test, or none chosen
            raise SystemExit(f"{mutant.name}: {mutant.test}: {done.stdout.decode()[-2000:]}")
        words = [line for line in done.stdout.decode().splitlines() if line.startswith(("FAILED", "ERROR"))]
        return words[0] if done.returncode else None

    @cached_property
    def _kernels(self) -> Path:
        """Those of the code as it is, compiled."""
        cache = self._folder / "kernels"
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": f"{self._tree}/.path"}
        command = [sys.executable, "-c", WARM]
        subprocess.run(command, check=True, cwd=self._folder, env=environment)
        return cache


def main() -> int:
    """Try all, or those whose name has one of the words given."""
    words = sys.argv[1:]
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    alive, moved = 0, 0
    with tempfile.TemporaryDirectory(prefix="dgdm-mutants-") as folder:
        copy = Copy(Path(folder))
        for mutant in chosen:
            missing = copy.missing(mutant)
            moved += missing is not None
            red = None if missing else copy.verdict(mutant)
            alive += missing is None and red is None
            print(f"{'MOVED' if missing else 'red  ' if red else 'ALIVE'}  {mutant.name}")
            print(f"       {missing or red or mutant.test}", flush=True)
    print(
        f"{len(chosen) - alive - moved} of {len(chosen)} are found, {alive} live, {moved} are to be anchored anew"
    )
    return 1 if alive or moved else 0


if __name__ == "__main__":
    sys.exit(main())
