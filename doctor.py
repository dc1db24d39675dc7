"""What is reachable, what is wrong, what to do."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.request import urlopen

from .connections import connect_log, connect_store
from .consumers.progress import read_progress, require_own_topic
from .log.interface import LogError
from .log.topics import check_topics
from .producers.embeddings import check_limits
from .state.lifecycle import WorkerState
from .state.store import StoreError
from .tpu.diagnosis import survey

if TYPE_CHECKING:
    from .settings import Settings


MEMORY = re.compile(r'^dgdm_memory_bytes\{structure="(\w+)"\} (\S+)$', re.MULTILINE)


class Finding(NamedTuple):
    """One thing looked at."""

    what: str
    ok: bool
    message: str


async def is_ready(settings: Settings) -> tuple[bool, str]:
    """Whether a worker serves the graph, and what the lease says. Raises StoreError."""
    store = connect_store(settings)
    try:
        lease = await asyncio.to_thread(store.lease)
    finally:
        store.close()
    if lease is None:
        return False, f"no worker holds graph {settings.graph!r}: start `dgdm worker`"
    return lease.state == WorkerState.SERVING.value, lease.state


async def diagnose(settings: Settings, plans: list[Any]) -> list[Finding]:
    """Look at log, topics, store, worker and freshness, and say what to do about each."""
    findings = [await _look("store", settings.store, lambda: _store(settings))]
    log = connect_log(settings)
    try:

        async def topics() -> tuple[bool, str]:
            problems = await check_topics(log, plans)
            if not problems and settings.features is not None:
                await check_limits(log, settings.embeddings_topic, settings.features, settings.encoding)
            return not problems, "; ".join(problems) or "reachable, all topics as they should be"

        findings.append(await _look("log", settings.log, topics))

        async def progress() -> tuple[bool, str]:
            await require_own_topic(log, settings.progress_topic, settings.graph)
            record = await read_progress(log, settings.progress_topic, settings.graph)
            if record is None:
                return True, "nothing published yet"
            return True, f"sequence {record.sequence}, {record.nodes} nodes, bound {max(record.bound):g}"

        if findings[-1].ok:
            findings.append(await _look("progress", settings.progress_topic, progress))
    finally:
        await log.close()
    findings.append(await _look("worker", settings.graph, lambda: is_ready(settings)))
    if settings.metrics_port is not None:
        findings.append(await asyncio.to_thread(_memory, settings.metrics_port))
    for path, found in await asyncio.to_thread(survey):
        # whoever has no device and no models misses nothing
        findings.append(Finding("tpu", found.ok or path == "cpu", f"{path}: {found.message}"))
    return findings


def _memory(port: int) -> Finding:
    """What the worker of this machine takes, as its metrics say."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
            found = MEMORY.findall(page.read().decode())
    except (OSError, ValueError) as error:
        return Finding("memory", True, f"no worker of this machine answers on metrics port {port}: {error}")
    parts = ", ".join(f"{name} {float(size) / 1e6:,.1f} MB" for name, size in found)
    return Finding("memory", True, parts or "nothing yet: no progress record was written")


async def _store(settings: Settings) -> tuple[bool, str]:
    store = connect_store(settings)
    try:
        found = await asyncio.to_thread(store.check)
        meta = await asyncio.to_thread(store.meta)
    finally:
        store.close()
    held = (
        "empty" if meta is None else f"{meta.nodes} nodes, {meta.arcs} arcs, sequence {meta.event_sequence}"
    )
    if meta is not None and meta.raw_features:
        held += "; encoded by " + ", ".join(f"{digest}: {count}" for digest, count in meta.encoders.items())
    return not any(f.fatal for f in found), "; ".join([f.message for f in found] + [held])


async def _look(what: str, where: str, ask: Any) -> Finding:
    try:
        ok, message = await ask()
    except (LogError, StoreError) as error:
        return Finding(what, False, str(error))
    return Finding(what, ok, message if what != "worker" else f"{where}: {message}")
