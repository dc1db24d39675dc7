"""The topics of a graph: how they are to be, and whether they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .interface import Log


class TopicPlan(NamedTuple):
    """A topic as it should be."""

    name: str
    partitions: int
    config: Mapping[str, str]
    why: str


def plans(
    events: str,
    embeddings: str,
    progress: str,
    dead_letters: str,
    partitions: int = 1,
    predictions: str | None = None,
) -> list[TopicPlan]:
    """One partition for events: a total order, so that a replay gives the same graph. Predictions: with a head only."""
    keep = {"cleanup.policy": "delete", "retention.ms": "-1"}
    compact = {"cleanup.policy": "compact"}
    predicted = [] if predictions is None else [predictions]
    return [
        TopicPlan(events, partitions, keep, "events are the graph's history"),
        TopicPlan(embeddings, 1, compact, "the last vector of each node is what counts"),
        TopicPlan(progress, 1, compact, "the last record of each graph is what counts"),
        TopicPlan(dead_letters, 1, keep, "a refused event never vanishes"),
        *(
            TopicPlan(topic, 1, compact, "the last prediction of each node is what counts")
            for topic in predicted
        ),
    ]


async def create_topics(log: Log, wanted: list[TopicPlan]) -> list[tuple[str, bool]]:
    """Create what is missing: (name, whether it was created). Raises LogError."""
    return [(plan.name, await log.create(plan.name, plan.partitions, plan.config)) for plan in wanted]


async def check_topics(log: Log, wanted: list[TopicPlan]) -> list[str]:
    """Sentences about what is wrong; [] when all is well. Raises LogError."""
    found = await log.describe([plan.name for plan in wanted])
    problems = []
    for plan in wanted:
        info = found.get(plan.name)
        if info is None:
            problems.append(f"topic {plan.name} does not exist: `dgdm topics create`")
            continue
        policy = info.config.get("cleanup.policy")
        if policy not in (None, plan.config["cleanup.policy"]):  # None: this user may not see it
            problems.append(
                f"topic {plan.name} has cleanup.policy={policy}, not {plan.config['cleanup.policy']}: {plan.why}"
            )
    return problems
