"""A worker whose device fails in every way, one after the other, while events come."""

from __future__ import annotations

from mockedgetpu import Bus
from processes import WorkerProcess
from streams import some_events

from dgdm.producers.graph import GraphProducer


async def meet_every_fault(bus: Bus, worker: WorkerProcess, events: GraphProducer, features: int = 4) -> None:
    """Send events until the worker has told of each fault."""
    faults = 0
    for turn, mode in enumerate(["hang", "abort", "wrong", "error"]):
        bus.mode(mode)
        sent = 0
        while len(worker.said("tpu_fault")) <= faults:
            sent += 1
            for event in some_events(100 * turn + sent, 60, features=features):
                await events.send(event)
            await events.visible(60)
        bus.mode("ok")
        faults = len(worker.said("tpu_fault"))
