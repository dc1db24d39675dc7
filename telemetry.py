"""Log lines and metrics."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from .state.memory import memory_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .settings import Settings
    from .state.graph import GraphState, Publication


def configure_logging(level: str, style: str) -> None:
    """Lines on stderr: a stable `event` and a sentence in `message`; JSON unless a terminal reads them."""
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.getLogger("aiokafka").setLevel(
        logging.CRITICAL
    )  # its errors reach the caller, who says them once


class Metrics:
    """What a worker counts; docs/metrics.md is made of it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.events = Counter("dgdm_graphs_processed", "Events applied.", registry=r)
        self.dead_letters = Counter(
            "dgdm_dead_letters", "Events refused, by reason: dead letters.", ["reason"], registry=r
        )
        self.published = Counter("dgdm_published", "Vectors published and acknowledged.", registry=r)
        self.tombstones = Counter("dgdm_tombstones", "Removed nodes told to consumers.", registry=r)
        self.latency = Histogram(
            "dgdm_processing_latency_seconds",
            "From the timestamp of an event's record to the acknowledgement of what it changed; of the oldest event of "
            "each publication. With read_committed its consumers see it up to a checkpoint interval later.",
            registry=r,
            buckets=(0.001, 0.002, 0.004, 0.008, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
        )
        self.lag = Gauge(
            "dgdm_lag_records",
            "Records of the events topic behind which the worker is. Growing for minutes: more events than it applies, or "
            "it is paused.",
            registry=r,
        )
        self.amplification = Gauge(
            "dgdm_amplification_ratio",
            "Vectors published per event since the start. In the thousands: events hit hubs, or the accuracy is too fine.",
            registry=r,
        )
        self.residual = Gauge(
            "dgdm_max_residual",
            "Largest residual, or ε when all are below it, in feature units of the first column.",
            registry=r,
        )
        self.bound = Gauge(
            "dgdm_bound",
            "What the last progress record promises, per feature column, in feature units. Above the accuracy for minutes: "
            "it does not catch up.",
            ["column"],
            registry=r,
        )
        self.drift = Gauge(
            "dgdm_scrub_drift",
            "Largest recent difference between a residual that was maintained and the same computed anew; part of the "
            "bound.",
            registry=r,
        )
        self.floor = Gauge(
            "dgdm_float32_floor",
            "1 while float32 cannot keep the accuracy (with allow_floor): the bound says what is kept.",
            registry=r,
        )
        self.nodes = Gauge("dgdm_nodes", "Nodes of the graph.", registry=r)
        self.arcs = Gauge(
            "dgdm_arcs", "Arcs of the graph: an undirected edge is two, a loop is one.", registry=r
        )
        self.dirty = Gauge(
            "dgdm_dirty_rows",
            "Rows changed since the last checkpoint. At dirty_rows, with the store away, the worker pauses.",
            registry=r,
        )
        self.pushes = Gauge("dgdm_pushes", "Rows pushed since the start.", registry=r)
        self.visited = Gauge(
            "dgdm_visited_rows",
            "Rows looked at since the start. Per event it does not grow with the graph, hubs aside.",
            registry=r,
        )
        self.lost_adds = Gauge(
            "dgdm_lost_adds",
            'Events with op = "add" whose weight was too small to change the edge\'s in float32.',
            registry=r,
        )
        self.no_ops = Gauge(
            "dgdm_no_ops",
            "Events that found nothing to do: removals of what was not there, AddNode without features of what was.",
            registry=r,
        )
        self.checkpoint_seconds = Histogram(
            "dgdm_checkpoint_seconds",
            "Time of one checkpoint, the store's acknowledgement included.",
            registry=r,
        )
        self.checkpoint_time = Gauge(
            "dgdm_checkpoint_timestamp_seconds",
            "When the last checkpoint was written, or nothing was to write, in seconds since the epoch. Older than ten "
            "intervals: the store is slow or away.",
            registry=r,
        )
        self.memory = Gauge(
            "dgdm_memory_bytes",
            "Memory in use, by structure: vectors (features, embeddings, residuals, published), rows (what is known of each "
            "beside those), arcs (lists with their slack and the indexes of hubs), ids, and raw (features before an encoder).",
            ["structure"],
            registry=r,
        )
        self.stages = Counter(
            "dgdm_stage_seconds",
            "CPU seconds on the graph's arrays, by stage: apply (read events, look ids up, repair), push, select (what to "
            "publish), acknowledge, gather (what to store).",
            ["stage"],
            registry=r,
        )
        self.state = Gauge(
            "dgdm_worker_state", "1 for the state the worker is in, else 0.", ["state"], registry=r
        )
        self._events = 0
        self._published = 0

    def serve(self, settings: Settings) -> tuple[Any, Any] | None:
        """Open the metrics port, if there is to be one: (server, thread)."""
        if settings.metrics_port is None:
            return None
        return start_http_server(settings.metrics_port, registry=self.registry)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the CPU time of this thread as that stage's."""
        begun = time.thread_time()
        yield
        self.stages.labels(stage).inc(time.thread_time() - begun)

    def count_events(self, applied: int) -> None:
        """Events applied."""
        self.events.inc(applied)
        self._events += applied

    def count_published(self, vectors: int, tombstones: int) -> None:
        """What one publication carried."""
        self.published.inc(vectors)
        self.tombstones.inc(tombstones)
        self._published += vectors
        self.amplification.set(self._published / max(1, self._events))

    def count_refused(self, reasons: Iterable[str]) -> None:
        """Events that became dead letters."""
        for reason in reasons:
            self.dead_letters.labels(reason).inc()

    def count_checkpoint(self, seconds: float) -> None:
        """The store has acknowledged one."""
        self.checkpoint_seconds.observe(seconds)
        self.all_is_stored()

    def all_is_stored(self) -> None:
        """A checkpoint has just been written, or there is nothing to write."""
        self.checkpoint_time.set_to_current_time()

    def enter(self, old: str, new: str) -> None:
        """The worker's state."""
        self.state.labels(old).set(0)
        self.state.labels(new).set(1)

    def look_at(self, graph: GraphState, publication: Publication) -> None:
        """Read the gauges off a graph."""
        counters = graph.counters
        self.pushes.set(counters["pushes"])
        self.visited.set(counters["visited"])
        self.lost_adds.set(counters["lost_adds"])
        self.no_ops.set(counters["no_ops"])
        self.nodes.set(graph.nodes)
        self.arcs.set(graph.arcs)
        self.drift.set(graph.drift)
        self.floor.set(graph.floor_active)
        self.residual.set(publication.residual)
        for structure, size in memory_of(graph).items():
            self.memory.labels(structure).set(size)
        for column, value in enumerate(publication.bound):
            self.bound.labels(str(column)).set(value)
