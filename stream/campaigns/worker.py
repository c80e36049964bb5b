"""The campaign worker: segment changes in, campaign actions out.

Invariant: an action's id follows from its campaign and its change, so that a change that is read again decides the
same actions again; offsets, actions and the gates' state are one commit. Changes of one user are taken in order.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from schemas.campaign import CampaignAction
from schemas.change import SegmentChange
from schemas.topics import CAMPAIGN_ACTIONS, CAMPAIGN_STATE, SEGMENT_CHANGES
from stream.campaigns.caps import Caps, Gate
from stream.campaigns.rules import Campaign, Campaigns
from stream.campaigns.table import Row, StateTable
from stream.runtime.metrics import Recorder
from stream.runtime.stage import Output, Stage, StateDelta
from stream.transport.base import OutRecord, Record

log = logging.getLogger(__name__)


@dataclass(slots=True)
class WorkerStats:
    """Counted since the start."""

    changes: int = 0
    unreadable: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    """By campaign."""
    held: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By campaign and the name of the gate that held it back."""


class CampaignWorker(Stage):
    """Asks the rules about every change, the gates about every hit, and emits one CampaignAction for each that is left.

    Time is the wall clock where the runner gives one, else the record's own: caps and `decided_at` go by it.
    """

    name = "campaigns"
    inputs = (SEGMENT_CHANGES,)
    changelog = CAMPAIGN_STATE

    def __init__(
        self, campaigns: Campaigns, gates: Sequence[Gate] | None = None, *, recorder: Recorder | None = None
    ) -> None:
        self.campaigns = campaigns
        self._recorder = recorder
        self.stats = WorkerStats()
        self._gates = (Caps(),) if gates is None else tuple(gates)
        self._tables: dict[int, StateTable] = {}

    def restoring(self, partition: int, deltas: Iterable[tuple[dict[str, Any], bytes]]) -> Generator[None, None, None]:
        """Rows of all gates."""
        table = StateTable()
        yield from table.restoring(deltas)
        self._tables[partition] = table

    def drop(self, partition: int) -> None:
        """Forget the partition's rows."""
        self._tables.pop(partition, None)

    def process(self, batch: Mapping[int, Sequence[Record]], now_ms: int | None) -> Output:
        """Decide every change of the batch, partition by partition, in order."""
        output = Output()
        unreadable: list[str] = []
        actions, held = self.stats.actions.copy(), self.stats.held.copy()
        for partition in sorted(batch):
            table = self._tables[partition]
            now = 0
            for record in batch[partition]:
                now = record.timestamp if now_ms is None else now_ms
                change, complaint = _parse(record)
                if change is None:
                    unreadable.append(f"{record.topic}/{record.partition}@{record.offset}: {complaint}")
                    continue
                self.stats.changes += 1
                for campaign in self.campaigns.match(change):
                    if self._admitted(table, campaign, change, now):
                        output.records.append(_record(campaign, change, now, partition))
            output.state[partition] = self._delta(table, now)
        if unreadable:
            self.stats.unreadable += len(unreadable)
            log.warning("skipped %d unreadable segment changes, the first at %s", len(unreadable), unreadable[0])
        if self._recorder is not None:
            self._recorder.actions(self.stats.actions - actions)
            self._recorder.held(self.stats.held - held)
            self._recorder.unreadable(self.name, len(unreadable))
        return output

    def _admitted(self, table: StateTable, campaign: Campaign, change: SegmentChange, now: int) -> bool:
        for gate in self._gates:
            if not gate.admits(table, campaign, change, now):
                self.stats.held[campaign.name, gate.name] += 1
                return False
        for gate in self._gates:
            gate.fired(table, campaign, change, now)
        self.stats.actions[campaign.name] += 1
        return True

    def _delta(self, table: StateTable, now: int) -> StateDelta:
        def expired(key: str, row: Row) -> bool:
            return any(gate.owns(key) and gate.expired(row, now) for gate in self._gates)

        return table.delta({}, expired)


def action_id(campaign: str, change_id: str) -> str:
    """Of the action that a campaign takes on a change: "act_" and 32 hexadecimal digits.

    Cryptographic, for receivers drop what they have seen: nobody may choose a user id that collides.
    """
    digest = hashlib.blake2b(f"{len(campaign)}:{campaign}{change_id}".encode(), digest_size=16)
    return f"act_{digest.hexdigest()}"


def _parse(record: Record) -> tuple[SegmentChange | None, str]:
    """The change, or what is wrong with it, without a word of its content: that may be personal."""
    if record.value is None:
        return None, "no value"
    try:
        return SegmentChange.model_validate_json(record.value), ""
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return None, f"{'.'.join(map(str, first['loc'])) or 'value'}: {first['type']}"


def _record(campaign: Campaign, change: SegmentChange, now: int, partition: int) -> OutRecord:
    action = CampaignAction(
        id=action_id(campaign.name, change.id),
        campaign=campaign.name,
        user_id=change.user_id,
        trigger=campaign.when.trigger,
        change_id=change.id,
        sequence=change.sequence,
        from_=change.from_,
        to=change.to,
        cause=change.cause,
        action=campaign.action.name,
        target=campaign.action.sink.target,
        parameters=campaign.parameters,
        occurred_at=change.occurred_at,
        decided_at=now,
    )
    # The change's own partition, whatever partitioner put it there: what one user gets stays in order. The timestamp is
    # given so that in a replay the next stage's clock is the data's own as well.
    value = action.model_dump_json().encode()
    return OutRecord(CAMPAIGN_ACTIONS, change.user_id.encode(), value, partition, timestamp=now)
