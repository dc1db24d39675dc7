"""What is made of the code: pages of settings, metrics, messages and benchmarks, and the JSON Schemas."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from dgdm.benchmarks.page import page as benchmarks_page
from dgdm.schemas.reasons import Reason
from dgdm.settings import Frozen, Settings, Unit, allowed
from dgdm.telemetry import Metrics
from dgdm.tpu.metrics import TpuMetrics
from dgdm.worker import Exit

from .json_schemas import json_schemas
from .sources import LogLine, log_lines, members

FOLDER: Final = Path(__file__).parent
MADE: Final = "<!-- Made by `make docs`, of the code: change it there. -->"
RULE: Final = "---"

SECTIONS: Final = {
    "graph": "The graph",
    "log": "Log, store and topics",
    "checkpoint_interval": "Work and time",
    "diffusion_backend": "Models and accelerators",
    "metrics_port": "Being watched",
    "kafka_protocol": "Security",
}
"""Headings of docs/settings.md, each before the setting that is named."""
HEADS: Final = ["setting", "takes", "default", "unit", ""]

SETTINGS: Final = """\
Every setting can be given in four ways; the first that is there counts:

1. a flag: `--log`, `--store`, `--graph`, `--features`, `--accuracy`, or `--set NAME=VALUE` for any of them;
2. an environment variable: `DGDM_` and the name in capitals, `DGDM_CHECKPOINT_INTERVAL=2`;
3. a line of a TOML file that `DGDM_CONFIG` names: `checkpoint_interval = 2`;
4. the default.

A value that cannot be right ends the command with exit code 2 and a sentence that names the value and where it came
from; so does a line of the file that is no setting. A variable that is nearly a setting is pointed out.

All commands read the same settings, so that one environment (or one file) serves a worker and the tools beside it. A
**frozen** setting cannot change once the graph is stored: with another value the worker refuses to start. Alpha,
accuracy, offset and what is below under *Work and time* may differ at each start. [Tuning](tuning.md) says which of them
matter.
"""

METRICS: Final = """\
A worker with `DGDM_METRICS_PORT` (or `--set metrics_port=9108`) answers `GET /metrics` on that port, on all addresses,
in Prometheus' format. Counters and "since the start" begin at 0 with each start of the process, or of its recovery;
`_created` beside a counter or a histogram is when that was.
[Operating](operating.md#is-it-well) says which of them are worth an alarm.
"""

REASONS: Final = """\
The header `dgdm-error` of a [dead letter](producing.md#dead-letters), the `reason` of `InvalidEvent` in Python, and the
label of the metric `dgdm_dead_letters_total`. The header `dgdm-message` says the same in a sentence with the value.
"""

LOG: Final = """\
A worker writes one line for each event of its life to standard error, as JSON (or for people, when a terminal reads
it: `DGDM_LOG_FORMAT`). The key `event` is stable; `message` is a sentence, here with … for what is only known then.
"""

CLIENTS: Final = """\
`GraphProducer` and `EmbeddingStream` write through Python's `logging`, to the loggers `dgdm.producers` and
`dgdm.consumers`, with the same key as `extra={"event": …}`.
"""

CODES: Final = [
    ["0", "Done."],
    [
        "1",
        (
            "The answer is no: the promise is broken (`certify`), something is wrong (`doctor`, `topics check`), no worker "
            "serves (`doctor --ready`), bad lines were left out (`produce`)."
        ),
    ],
    [
        "2",
        "A mistake: of an option, a setting, a file, an address; or the log or the store does not answer, or refuses.",
    ],
    ["130", "Ctrl-C; what was sent is written."],
]
WORKER: Final = "`dgdm worker`, and `dgdm up` once its topics are there, end with\n"
SECOND: Final = "A second SIGTERM or Ctrl-C ends a worker at once, with 1; that is as safe as kill -9."

WAYS: Final = {
    "encoded_anew": "Nothing.",
    "encoding_anew": "Nothing: `dgdm_encoded_nodes` says how far it is.",
    "encoding_kept": "A coarser accuracy, `allow_floor`, or another encoder. It is tried again at the next start.",
    "float32_floor": "Coarser accuracy or smaller features: [tuning](tuning.md).",
    "group_offsets": "Nothing but lag tools needs it. For them: read on the group, as [operating](operating.md) says.",
    "fenced": "Nothing, when a standby took over. Else find the second worker.",
    "lease_wait": "A standby waits with it, every start for a moment. For long: another worker serves, or the store is away.",
    "model_refused": "Nothing at once. Put a good file in its place before the next start, and send SIGHUP again.",
    "model_swapped": "Nothing.",
    "model_unchanged": "Nothing. Was the file replaced before SIGHUP was sent?",
    "outage": "The worker exits with 75: its supervisor starts it again.",
    "recovering": "Nothing when it is rare: it goes back to its last checkpoint and on from there.",
    "region_not_baked": "Nothing: the region is slower until it is baked again.",
    "regions_not_baked": "Read the message; the worker serves on without regions.",
    "regions_too_many": "Push is the right tool for a graph of this size, or give the regions that matter.",
    "refused": "Read the message: starting again will not help. [Operating](operating.md#when-it-refuses-to-start).",
    "serving": "The graph is restored and served.",
    "state": "Its field `state` is what `dgdm doctor --ready` says.",
    "stopped_early": "Nothing is lost; the next start takes longer.",
    "store_setting": "A setting of the store that can lose data after a crash of its machine: change it.",
    "store_unavailable": "It serves on, and tries again. See to the store before the changed rows reach `dirty_rows`.",
    "store_went_back": "It writes the whole graph anew. Why did the store lose what it had acknowledged?",
    "tpu_fault": "The CPU answers meanwhile. Often: [accelerators](accelerators.md#when-a-device-fails).",
    "tpu_model_refused": "The CPU runs it. `dgdm model check` says what the device does not take.",
    "warm": "",
    "warming": "",
    "worker_closed": "The last line.",
    "bad_embedding": "Somebody else writes to the embeddings topic.",
    "bad_progress_record": "Somebody else writes to the progress topic.",
    "producer_failed": "The log failed while the program was already ending with an error of its own.",
    "progress_lost": "The message says why; who waits for progress gets the same error.",
    "progress_unavailable": "The log is away. It tries again.",
    "table_lost": "The message says why; the table is not renewed any more, and whoever waits for it gets the same error.",
    "table_unavailable": "The log is away. It tries again; the table stays as it is.",
}
"""What a log line asks for, by its event."""


def generated() -> dict[str, str]:
    """Every generated file, by its path in docs."""
    pages = {
        "settings.md": settings_page(),
        "metrics.md": metrics_page(),
        "messages.md": messages_page(),
        "benchmarks.md": benchmarks_page(),
    }
    schemas = {
        f"schemas/{name}": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in json_schemas().items()
    }
    return pages | schemas


def settings_page() -> str:
    """docs/settings.md"""
    parts = [f"# Settings\n\n{MADE}\n\n{SETTINGS}".rstrip()]
    rows: list[list[str]] = []
    for name, field in Settings.model_fields.items():
        if name in SECTIONS:
            parts += _table(HEADS, rows) if rows else [""]
            parts.append(f"## {SECTIONS[name]}\n")
            rows = []
        units = [mark.name for mark in field.metadata if isinstance(mark, Unit)]
        frozen = " **Frozen.**" if any(isinstance(mark, Frozen) for mark in field.metadata) else ""
        rows.append(
            [
                f"`{name}`<br>`DGDM_{name.upper()}`",
                allowed(name),
                _default(field.get_default()),
                *(units or [""]),
                f"{field.description}{frozen}",
            ]
        )
    parts += _table(HEADS, rows)
    return "\n".join(parts)


def _default(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ",".join(f"`{number:g}`" for number in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def metrics_page() -> str:
    """docs/metrics.md"""
    metrics = Metrics()
    devices = TpuMetrics(metrics.registry)  # as a worker with regions or models has them
    labels = {
        one._name: ", ".join(f"`{label}`" for label in one._labelnames)  # noqa: SLF001 - not said in public
        for one in [*vars(metrics).values(), *vars(devices).values()]
        if hasattr(one, "_labelnames")
    }
    rows = []
    for found in metrics.registry.collect():
        name = found.name + {"counter": "_total", "histogram": "_bucket, _sum, _count"}.get(found.type, "")
        shown = (
            f"`{name}`" if found.type != "histogram" else f"`{found.name}`<br>(`{name[len(found.name) :]}`)"
        )
        rows.append([shown, found.type, labels[found.name], found.documentation])
    return "\n".join([f"# Metrics\n\n{MADE}\n\n{METRICS}", *_table(["metric", "type", "labels", ""], rows)])


def messages_page() -> str:
    """docs/messages.md"""
    worker, clients = log_lines()
    codes = [[value, f"{name}: {meaning}"] for name, value, meaning in members(Exit)]
    parts = [f"# What dgdm says\n\n{MADE}\n\n## Reasons of dead letters\n\n{REASONS}"]
    parts += _table(["reason", ""], [[f"`{reason}`", meaning] for _, reason, meaning in members(Reason)])
    parts.append(f"## Log lines of a worker\n\n{LOG}")
    parts += _events(worker)
    parts.append(f"## Log lines of the clients\n\n{CLIENTS}")
    parts += _events(clients)
    parts += [
        "## Exit codes\n",
        *_table(["code", ""], CODES),
        WORKER,
        *_table(["code", ""], codes),
        SECOND,
        "",
    ]
    return "\n".join(parts)


def _events(lines: Iterable[LogLine]) -> list[str]:
    messages: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        messages.setdefault((line.event, line.level), []).append(line.message)
    rows = [
        [f"`{event}`", level, "<br>".join(said), WAYS[event]] for (event, level), said in messages.items()
    ]
    return _table(["event", "level", "message", "what it asks for"], rows)


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    lines = [heads, [RULE] * len(heads), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return [*(f"| {' | '.join(line)} |" for line in cells), ""]
