"""Google's `edgetpu_compiler`, when it is on PATH, and whether it did what was asked."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from .errors import ModelError
from .model import COMPILED_SUFFIX, ModelFile
from .opcheck import CUSTOM_OP, Verdict, check

NAME = "edgetpu_compiler"


def available() -> bool:
    """Whether there is a compiler."""
    return shutil.which(NAME) is not None


def require_compiler() -> None:
    """Raises ModelError, with where to get it, when there is none."""
    if not available():
        raise ModelError(
            f"{NAME} is not on PATH: it comes from Google's coral-edgetpu-stable apt repository, for x86-64 Linux. "
            "The plain file runs on the CPU"
        )


def compile_model(content: bytes, timeout: float = 300.0) -> ModelFile:
    """The model with its compiled file. Raises ModelError when a single operator stayed behind."""
    require_compiler()
    report = check(content)
    if report.verdict is Verdict.NO:
        reasons = [f"{op.op}: {'; '.join(op.reasons)}" for op in report.ops if op.verdict is Verdict.NO]
        raise ModelError(f"the device cannot run this file: {reasons[0]}")
    with tempfile.TemporaryDirectory(prefix="dgdm-compile-") as folder:
        source = Path(folder, "model.tflite")
        source.write_bytes(content)
        command = [NAME, "-s", "-o", folder, str(source)]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout)  # noqa: S603 - the user's compiler
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ModelError(f"{NAME} did not come to an end: {error}") from None
        compiled = source.with_name(f"model{COMPILED_SUFFIX}")
        if done.returncode != 0 or not compiled.exists():
            said = (done.stderr or done.stdout).strip().splitlines()
            raise ModelError(f"{NAME} ended with {done.returncode}: {said[-1] if said else 'no word'}")
        result = compiled.read_bytes()
    verify(result)
    return ModelFile(content, result)


def verify(compiled: bytes) -> None:
    """Raises ModelError unless everything in a compiled file runs on the device."""
    ops = [op.op for op in check(compiled).ops]
    if CUSTOM_OP not in ops:
        raise ModelError(f"the compiled file has no {CUSTOM_OP}: nothing was mapped")
    left = [op for op in ops if op != CUSTOM_OP]
    if left:
        raise ModelError(f"the compiler left {len(left)} operators on the CPU: {', '.join(left)}")
