"""A worker that writes down its steps, so that a SIGKILL can be said where it struck: `traced_worker.py FILE`."""

from __future__ import annotations

import os
import sys

from scripted import serve

from dgdm.state.lifecycle import Step

file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def report(step: Step, moment: str) -> None:
    os.write(file, f"{moment} {step}\n".encode())


serve(report)
