"""Known mistakes, each of which must turn its named test red: `make mutants`, `make mutants ARGS="push fence"`.

A mutant is an exact replacement of text that stands once in its file; when the text has moved, this says so and the
mutant is to be anchored anew. Mutants run one after the other in a copy of the checkout, so the tree is never touched.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mutant import Mutant
from mutants_of_kernels import KERNELS
from mutants_of_pipeline import PIPELINE
from mutants_of_state import STATE
from mutants_of_tpu import TPU
from mutants_of_wire import WIRE

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240.0  # seconds: a mistake that hangs is red
MUTANTS = [*KERNELS, *STATE, *WIRE, *PIPELINE, *TPU]


class Copy:
    """A copy of the checkout. Compiled kernels are kept from mutant to mutant, but not those of changed kernels."""

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

    def survives(self, mutant: Mutant) -> bool:
        """Whether its test stays green, which is bad."""
        path = self._tree / mutant.file
        text, stamp = path.read_text(), path.stat()
        path.write_text(text.replace(mutant.right, mutant.wrong))
        try:
            return self._green(mutant)
        finally:
            path.write_text(text)
            os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # the kernels in it are what they were

    def _green(self, mutant: Mutant) -> bool:
        cache = self._folder / ("of-a-mutant" if mutant.file.startswith("diffusion/") else "kernels")
        if cache.name == "of-a-mutant":
            subprocess.run(["rm", "-rf", str(cache)], check=True)
        command = [sys.executable, "-m", "pytest", "-q", "-x", mutant.test, "-k", mutant.chosen]
        environment = {
            **os.environ,
            "HYPOTHESIS_PROFILE": "mutants",
            "NUMBA_CACHE_DIR": str(cache),
            "DGDM_OFFLINE": str(ROOT / "deploy/offline"),
        }
        try:
            done = subprocess.run(
                command, cwd=self._tree, env=environment, check=False, capture_output=True, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            return False
        if done.returncode not in (0, 1):  # not a verdict: no such test, or none chosen
            raise SystemExit(f"{mutant.name}: {mutant.test}: {done.stdout.decode()[-2000:]}")
        return done.returncode == 0


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
            lives = missing is None and copy.survives(mutant)
            alive += lives
            print(f"{'MOVED' if missing else 'ALIVE' if lives else 'red  '}  {mutant.name}", flush=True)
            if missing:
                print(f"       {missing}")
    print(
        f"{len(chosen) - alive - moved} of {len(chosen)} are found, {alive} live, {moved} are to be anchored anew"
    )
    return 1 if alive or moved else 0


if __name__ == "__main__":
    sys.exit(main())
