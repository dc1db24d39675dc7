"""What the demo shows: a live screen on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .flight_words import moment

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from .demo_replay import Meter

REFRESH = 0.25  # seconds
LINE_EVERY = 5.0  # seconds between plain lines
RECENT = 20_000  # events the live latency looks back at


class Screen:
    """Numbers that move and messages that stay. `unit` is what the accuracy is, in % of a standard deviation."""

    def __init__(self, meter: Meter, span: tuple[int, int], unit: float, *, to_stderr: bool) -> None:
        self._meter, self._span, self._unit = meter, span, unit
        self._console = Console(stderr=to_stderr, highlight=False)
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """A message that stays."""
        self._console.print(text, markup=False, soft_wrap=self._live is None)

    async def keep_fresh(self) -> None:
        """Redraw, or print a line now and then, until cancelled."""
        printed = time.monotonic()
        while True:
            await asyncio.sleep(REFRESH)
            if self._live is not None:
                self._live.update(self._drawing(), refresh=True)
            elif time.monotonic() - printed >= LINE_EVERY and self._meter.covered:
                printed = time.monotonic()
                self._console.print(self._line(), markup=False, soft_wrap=True)

    def numbers(self) -> list[tuple[str, str]]:
        """What both kinds of screen show."""
        meter = self._meter
        bound = "-"
        if meter.progress is not None:
            p = meter.progress
            worst = max(b / a for b, a in zip(p.bound, p.accuracy, strict=True))
            bound = f"{self._unit * worst:.2f} % of a standard deviation (asked: {self._unit:g} %)"
        p50, p99 = meter.percentile(50, RECENT), meter.percentile(99, RECENT)
        nodes = (
            f"{meter.progress.nodes:,} nodes, {meter.progress.arcs // 2:,} edges" if meter.progress else "-"
        )
        return [
            ("date", moment(meter.minute) if meter.started else "-"),
            ("worker", meter.state),
            ("events", f"{meter.covered:,} at {meter.rate:,.0f}/s"),
            ("graph", nodes),
            ("event to embedding", f"p50 {p50:.0f} ms, p99 {p99:.0f} ms"),
            ("changed per event", f"{meter.published / max(1, meter.covered):.2f}"),
            ("bound", bound),
        ]

    def _line(self) -> str:
        return "; ".join(f"{name} {value}" for name, value in self.numbers() if value != "-")

    def _drawing(self) -> Panel:
        grid = Table.grid(padding=(0, 2))
        for name, value in self.numbers():
            grid.add_row(Text(name, style="dim"), Text(value, style="bold"))
        begin, end = self._span
        done = ProgressBar(total=end - begin, completed=max(0, self._meter.minute - begin), width=60)
        return Panel(Group(grid, done), title="dgdm demo: New York's flights of 2013", width=88)
