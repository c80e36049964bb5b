"""Campaign actions and their outcomes, one partition: each action once and for a change that is there; each that was
taken in is either pending or ended, and ended once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from schemas import topics
from stream.campaigns.delivery import Delivery
from stream.campaigns.table import StateTable
from stream.campaigns.worker import CampaignWorker, action_id
from stream.config import Config
from stream.segments.changes import change_id
from stream.transport.base import TopicPartition, Transport
from stream.verify import cut
from stream.verify.report import Report
from stream.verify.tally import Tally
from stream.verify.trails import Trails


class CampaignCheck:
    """Checks one partition, in two steps: `read`, before the changes are read, and `compare` afterwards."""

    def __init__(self, transport: Transport, config: Config, partition: int, report: Report) -> None:
        self._transport = transport
        self._config = config
        self._partition = partition
        self._report = report
        self._last: dict[tuple[str, str], int] = {}
        """By campaign and user, the sequence of the change behind the last action: they ascend, so none comes twice."""

    def read(self) -> None:
        """Everything that follows from changes, the furthest down the stream first."""
        outcomes = TopicPartition(topics.CAMPAIGN_OUTCOMES, self._partition)
        cut_of_outcomes = self._transport.end_offset(outcomes)
        stands, pending = self._restore(Delivery.name, topics.DELIVERY_STATE, topics.CAMPAIGN_ACTIONS)
        self._restore(CampaignWorker.name, topics.CAMPAIGN_STATE, topics.SEGMENT_CHANGES)
        ended = self._outcomes(outcomes, cut_of_outcomes)
        taken = self._actions((stands or {}).get(topics.CAMPAIGN_ACTIONS) or 0)
        if stands is not None and pending is not None:
            self._compare_deliveries(taken, pending, *ended)

    def compare(self, trails: Trails) -> None:
        """Every action's change is there: sequences have no gaps, so it is enough that the last one is."""
        for (campaign, user), sequence in self._last.items():
            trail = trails.users.get(user)
            if sequence > (trail.sequence if trail is not None else 0) and (trail is not None or trails.whole):
                place = f"{topics.CAMPAIGN_ACTIONS}/{self._partition}"
                what = f"{campaign!r} acts on change {sequence} of user {user!r}, which does not exist"
                self._report.add("actions", place, what)

    def _restore(self, stage: str, topic: str, source: str) -> tuple[Mapping[str, int | None] | None, list[str] | None]:
        """Where the state stands, and its keys."""
        keys: list[str] = []

        def apply(deltas: cut.Deltas) -> None:
            table = StateTable()
            table.restore(deltas)
            keys[:] = list(table.rows)

        group = f"{self._config.runner.group}-{stage}"
        stands = cut.restore(self._transport, stage, topic, self._partition, group, (source,), apply, self._report)
        return stands, None if stands is None else keys

    def _actions(self, stands: int) -> Tally:
        """Checks every action; returns those that delivery has taken in."""
        where = TopicPartition(topics.CAMPAIGN_ACTIONS, self._partition)
        taken = Tally()
        for record in self._transport.read(where, 0):
            self._report.checked["actions"] += 1
            place = f"{where.topic}/{where.partition}@{record.offset}"
            try:
                action = orjson.loads(record.value or b"")
                campaign, user, sequence = action["campaign"], action["user_id"], action["sequence"]
                if record.offset < stands:
                    taken.add(action["id"])
                self._check(place, action)
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                self._report.add("actions", place, f"is no campaign action ({type(error).__name__}: {error})")
                continue
            if record.key != user.encode():
                self._report.add("actions", place, f"is of user {user!r}, but its key is {record.key!r}")
            if sequence <= self._last.get((campaign, user), 0):
                last = self._last[campaign, user]
                what = f"{campaign!r} acts on change {sequence} of user {user!r} after change {last}"
                self._report.add("actions", place, what)
            self._last[campaign, user] = max(sequence, self._last.get((campaign, user), 0))
        return taken

    def _check(self, place: str, action: dict[str, Any]) -> None:
        change = change_id(action["user_id"], action["sequence"])
        if action["change_id"] != change:
            self._report.add("actions", place, f"names change {action['change_id']}, expected {change}")
        if action["id"] != (expected := action_id(action["campaign"], change)):
            self._report.add("actions", place, f"has id {action['id']}, expected {expected}")

    def _outcomes(self, where: TopicPartition, end: int) -> tuple[Tally, Tally]:
        """Up to the cut, and to the end."""
        at_cut, at_end = Tally(), Tally()
        for record in self._transport.read(where, 0):
            self._report.checked["outcomes"] += 1
            try:
                identifier = orjson.loads(record.value or b"")["action_id"]
                for tally in (at_end, at_cut) if record.offset < end else (at_end,):
                    tally.add(identifier)
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                place = f"{where.topic}/{where.partition}@{record.offset}"
                self._report.add("outcomes", place, f"is no outcome ({type(error).__name__}: {error})")
        return at_cut, at_end

    def _compare_deliveries(self, taken: Tally, keys: list[str], at_cut: Tally, at_end: Tally) -> None:
        """What delivery took in has ended, or is pending."""
        for topic in (topics.CAMPAIGN_ACTIONS, topics.CAMPAIGN_OUTCOMES):
            if self._transport.start_offset(TopicPartition(topic, self._partition)) > 0:
                self._report.note("older actions are deleted already: they are not held against their outcomes")
                return
        pending = Tally()
        for key in keys:
            pending.add(key)
        place = f"{topics.CAMPAIGN_OUTCOMES}/{self._partition}"
        if at_cut == at_end:
            if taken != pending + at_end:
                what = f"{taken.count} actions taken in are not {at_end.count} outcomes and {pending.count} pending"
                self._report.add("outcomes", place, what)
        elif not at_cut.count <= taken.count - pending.count <= at_end.count:
            what = f"{taken.count} actions taken in, {pending.count} pending, {at_end.count} outcomes"
            self._report.add("outcomes", place, what)
