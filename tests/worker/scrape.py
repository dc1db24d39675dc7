"""What a running worker tells Prometheus."""

from __future__ import annotations

import asyncio
import urllib.request

from prometheus_client.parser import text_string_to_metric_families


async def scrape(port: int | None) -> dict[str, float]:
    """Every sample by its name, with the values of its labels behind dots: dgdm_worker_state.serving."""

    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
            return str(reply.read().decode())

    families = text_string_to_metric_families(await asyncio.to_thread(read))
    return {
        ".".join([sample.name, *sample.labels.values()]): sample.value
        for family in families
        for sample in family.samples
    }
