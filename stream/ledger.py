"""What became of a stream of events, counted: the numbers of a replay's summary, read from what was committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from schemas import topics
from schemas.types import CAUSES
from stream.segments.population import Population
from stream.segments.prototypes import Model
from stream.transport.base import TopicPartition, Transport


@dataclass(frozen=True, slots=True)
class Ledger:
    """Read = accepted + duplicate + dead-lettered. `seconds` is this run's own time, all else is the total."""

    events_read: int
    events_accepted: int
    events_duplicate: int
    events_dead_lettered: int
    users: int
    segments: int
    changes: int
    changes_by_cause: dict[str, int]
    anomalies: int
    campaign_actions: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """By these names."""
        return asdict(self)


def balance(
    transport: Transport,
    populations: Iterable[Population],
    model: Model | None,
    events_read: int,
    seconds: float,
) -> Ledger:
    """Add up the committed counters of all partitions, and the topics' own ends."""
    populations = list(populations)
    counters: Counter[str] = sum((population.counters for population in populations), Counter())

    def part(prefix: str) -> dict[str, int]:
        return {name.partition(".")[2]: n for name, n in counters.items() if name.startswith(f"{prefix}.")}

    causes = part("changes")
    return Ledger(
        events_read=events_read,
        events_accepted=sum(part("accepted").values()),
        events_duplicate=sum(part("duplicate").values()),
        events_dead_lettered=sum(part("dead").values()),
        users=sum(len(population) for population in populations),
        segments=0 if model is None else len(model.segment_ids),
        changes=sum(causes.values()),
        changes_by_cause={cause: causes.get(cause, 0) for cause in CAUSES},
        anomalies=part("anomalies").get("entered", 0),
        campaign_actions=written(transport, topics.CAMPAIGN_ACTIONS),
        seconds=round(seconds, 3),
    )


def written(transport: Transport, topic: str) -> int:
    """How far a topic's partitions reach, all together (on Kafka that counts transaction markers too)."""
    return sum(transport.end_offset(TopicPartition(topic, p)) for p in range(transport.partitions(topic)))
