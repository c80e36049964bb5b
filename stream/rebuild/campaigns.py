"""The campaign stages' state of one partition: caps from the actions that were taken, and the outbox from those that
have no outcome."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import orjson

from schemas import topics
from schemas.campaign import CampaignAction
from schemas.change import SegmentChange
from stream.campaigns.caps import Caps
from stream.campaigns.file import load_campaigns
from stream.campaigns.outbox import Outbox, Route
from stream.campaigns.rules import Campaigns
from stream.campaigns.table import StateTable
from stream.config import Config
from stream.runtime.stage import StateDelta
from stream.transport.base import TopicPartition, Transport


def rebuild_caps(
    transport: Transport, config: Config, partition: int, stands: Mapping[str, int]
) -> Iterator[StateDelta]:
    """What each campaign did for each user, as far as its actions are kept."""
    file = config.campaigns.file
    campaigns = load_campaigns(file) if file else Campaigns()
    table, caps = StateTable(), Caps()
    for record in transport.read(TopicPartition(topics.CAMPAIGN_ACTIONS, partition), 0):
        action = CampaignAction.model_validate_json(record.value or b"")
        campaign = campaigns.get(action.campaign)
        if campaign is not None:
            caps.fired(table, campaign, _change(action), action.decided_at)
    yield table.delta({})


def rebuild_outbox(
    transport: Transport, config: Config, partition: int, stands: Mapping[str, int]
) -> Iterator[StateDelta]:
    """The actions that were taken in and have not ended. Attempts made so far are not known, and begin anew."""
    ended = {
        orjson.loads(record.value or b"")["action_id"]
        for record in transport.read(TopicPartition(topics.CAMPAIGN_OUTCOMES, partition), 0)
    }
    outbox = Outbox(partition, lambda campaign: Route("unknown", campaign), horizon=0)
    where = TopicPartition(topics.CAMPAIGN_ACTIONS, partition)
    clock = 0
    for record in transport.read(where, 0, stands[topics.CAMPAIGN_ACTIONS]):
        clock = max(clock, record.timestamp)
        action = CampaignAction.model_validate_json(record.value or b"")
        if action.id not in ended:
            outbox.add(action, str(record.value or b"", "utf-8"))
    yield outbox.delta({"clock": clock})


def _change(action: CampaignAction) -> SegmentChange:
    """As much of the change behind an action as a gate looks at."""
    return SegmentChange(
        id=action.change_id,
        user_id=action.user_id,
        sequence=action.sequence,
        from_=action.from_,
        to=action.to,
        cause=action.cause,
        occurred_at=action.occurred_at,
        detected_at=action.decided_at,
        model_version=0,
        confidence=1.0,
    )
