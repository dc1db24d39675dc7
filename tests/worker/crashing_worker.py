"""A worker that gets a signal, SIGKILL by default, at one step: `crashing_worker.py STEP MOMENT COUNT [SIGNAL]`.

At the moment "during" it comes while the step is being taken, within a few milliseconds of its begin.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading

from scripted import serve

from dgdm.state.lifecycle import Step

step, moment, left = Step(sys.argv[1]), sys.argv[2], int(sys.argv[3])
number = signal.Signals[sys.argv[4]] if len(sys.argv) > 4 else signal.SIGKILL


def report(reached: Step, when: str) -> None:
    """The signal at the given occurrence."""
    global left  # noqa: PLW0603 - one process, one signal
    if reached is step and when == ("before" if moment == "during" else moment):
        left -= 1
        if left == 0 and moment == "during":
            threading.Timer(random.uniform(0, 0.003), os.kill, (os.getpid(), number)).start()
        elif left == 0:
            os.kill(os.getpid(), number)


serve(report)
