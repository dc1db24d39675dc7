"""A worker under load, and what every process of a benchmark costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from dgdm.settings import Settings
from dgdm.state.lifecycle import WorkerState

from .servers import free_port

TICKS = os.sysconf("SC_CLK_TCK")


class Cpu(NamedTuple):
    """CPU seconds so far."""

    loop: float  # of the worker's event loop: client libraries, encoding, the pipeline itself, stages of few events
    threads: dict[int, float]  # of its other threads: the kernel's, and those of the store's client
    stages: dict[str, float]  # as the worker counts them, in the kernel thread or in the loop
    broker: float
    redis: float
    load: float  # of this process

    def since(self, before: Cpu, events: int) -> dict[str, Any]:
        """Microseconds per event."""

        def each(now: float, then: float) -> float:
            return round((now - then) * 1e6 / max(1, events), 2)

        stages = {name: each(now, before.stages.get(name, 0.0)) for name, now in self.stages.items()}
        threads = sorted(each(now, before.threads.get(name, 0.0)) for name, now in self.threads.items())
        kernel = threads.pop()  # the busiest
        rest = each(self.loop, before.loop) + kernel - sum(stages.values())
        return {
            "worker_stages": stages,
            "worker_loop_and_client_libraries": round(rest, 2),
            "worker_store_threads": round(sum(threads), 2),
            "broker": each(self.broker, before.broker),
            "redis": each(self.redis, before.redis),
            "load": each(self.load, before.load),
        }


class Worker:
    """One worker process with a metrics port."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._port = settings, free_port()
        environment = {f"DGDM_{name.upper()}": _as_text(value) for name, value in _given(settings).items()}
        self.notes = folder / "notes"
        self.begun = time.monotonic()
        with (folder / "worker.log").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.noted_worker", str(self.notes)],
                env={**os.environ, **environment, "DGDM_METRICS_PORT": str(self._port)},
                stderr=output,
            )

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM."""
        self._process.terminate()
        self._process.wait()

    def wait(self) -> float:
        """Seconds from its start until it serves."""
        while self.metrics().get(f'dgdm_worker_state{{state="{WorkerState.SERVING}"}}') != 1:
            if self._process.poll() is not None:
                raise SystemExit("the worker ended: see its log")
            time.sleep(0.05)
        return time.monotonic() - self.begun

    def resident(self) -> int:
        """Bytes of memory."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def metrics(self) -> dict[str, float]:
        """Every sample of its metrics page, by name and labels."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as page:
                lines = page.read().decode().splitlines()
        except OSError:
            return {}
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
        }

    def cpu(self, broker: int, redis: int) -> Cpu:
        """What all have used so far."""
        threads = {}
        for task in Path(f"/proc/{self._process.pid}/task").iterdir():
            with suppress(FileNotFoundError):  # it has ended
                threads[int(task.name)] = _seconds(task / "stat")
        loop = threads.pop(self._process.pid)
        stages = {
            name.split('"')[1]: value
            for name, value in self.metrics().items()
            if name.startswith("dgdm_stage_seconds_total{")
        }
        return Cpu(
            loop,
            threads,
            stages,
            _seconds(Path(f"/proc/{broker}/stat")),
            _seconds(Path(f"/proc/{redis}/stat")),
            time.process_time(),
        )

    def one_second(self) -> dict[str, Any]:
        """Which of its two busy threads wants a core, looked at each millisecond; as text, each 10 ms a letter."""
        tasks = Path(f"/proc/{self._process.pid}/task")
        loop = tasks / str(self._process.pid) / "stat"
        others = [task / "stat" for task in tasks.iterdir() if task.name != str(self._process.pid)]
        before = [_seconds(other) for other in others]
        time.sleep(0.5)
        kernel = max(zip(others, before, strict=True), key=lambda one: _seconds(one[0]) - one[1])[0]
        looks = []
        begun = time.monotonic()
        while time.monotonic() < begun + 1:
            looks.append((_wants_a_core(loop), _wants_a_core(kernel)))
            time.sleep(0.001)
        letters = {(True, True): "B", (True, False): "L", (False, True): "K", (False, False): "."}
        shares = {
            "both": (True, True),
            "loop": (True, False),
            "kernel": (False, True),
            "neither": (False, False),
        }
        parts = [looks[at : at + len(looks) // 100] for at in range(0, len(looks), len(looks) // 100)]
        return {
            "shares": {name: round(looks.count(what) / len(looks), 3) for name, what in shares.items()},
            "each_10_ms": "".join(letters[Counter(part).most_common(1)[0][0]] for part in parts),
        }


def _wants_a_core(stat: Path) -> bool:
    return stat.read_text().rpartition(")")[2].split()[0] == "R"


def _seconds(stat: Path) -> float:
    """User and system time of a process or thread."""
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _given(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(exclude_unset=True)


def _as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
