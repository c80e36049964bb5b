"""A whole deployment, running or stopped, partition by partition; memory is bounded by the users of one partition,
plus eight bytes for every user there is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas import topics
from stream.config import Config
from stream.segments.packing import unpack
from stream.transport.base import TopicPartition, Transport
from stream.verify import cut
from stream.verify.campaigns import CampaignCheck
from stream.verify.models import check_models
from stream.verify.report import Report
from stream.verify.users import UserCheck

MODELLER = "modeller"
"""Its class brings River along, which costs seconds."""
_WRITTEN = (topics.SEGMENT_CHANGES, topics.CAMPAIGN_ACTIONS, topics.CAMPAIGN_OUTCOMES, topics.USER_STATE)


def verify(transport: Transport, config: Config, partitions: int, *, count_events: bool = True) -> Report:
    """Read every topic of the deployment and check the invariants.

    Parameters: how many `partitions` the event topics have; without `count_events` the events themselves are not
    read, and their number is held against the offsets from above only.
    Raises UnavailableError, TransportError where a topic cannot be read at all.
    """
    report = Report()
    ends = _ends(transport, partitions)
    segments = _check_modeller(transport, config, report)
    known: list[NDArray[np.uint64]] = []
    for partition in range(partitions):
        users = UserCheck(transport, config, partition, segments, report, count_events=count_events)
        campaigns = CampaignCheck(transport, config, partition, report)
        # Before the changes that they follow from: what was done about a change must find it.
        campaigns.read()
        users.run()
        campaigns.compare(users.trails)
        known.append(users.hashes)
    report.checked["partitions"] = partitions
    hashes, counts = np.unique(np.concatenate(known), return_counts=True)
    if several := int((counts > 1).sum()):
        what = f"{several} of {len(hashes)} users are in more than one partition: the producers' keys are not the users"
        report.add("partitions", topics.USER_STATE, what)
    if ends != _ends(transport, partitions):
        report.still = False
    if not report.still:
        report.note("events were processed meanwhile: what was under way is compared within bounds")
    return report


def _check_modeller(transport: Transport, config: Config, report: Report) -> dict[int, frozenset[str]]:
    """The models, and the state of the modeller: it stands at the newest version. Returns segments by version."""
    newest: list[int] = []

    def apply(deltas: cut.Deltas) -> None:
        newest.clear()
        last = b""
        for meta, payload in deltas:
            newest[:], last = [int(meta["version"])], payload
        if newest:
            unpack(last)

    before = max(check_models(transport, Report()), default=0)
    group = f"{config.runner.group}-{MODELLER}"
    inputs = (topics.OBSERVATIONS,)
    stands = cut.restore(transport, MODELLER, topics.MODELLER_STATE, 0, group, inputs, apply, report)
    segments = check_models(transport, report)
    after = max(segments, default=0)
    if stands is not None and newest and not before <= newest[0] <= after:
        what = f"the modeller stands at version {newest[0]}, but version {after} is published"
        report.add("models", topics.MODELLER_STATE, what)
    return segments


def _ends(transport: Transport, partitions: int) -> list[int]:
    return [transport.end_offset(TopicPartition(topic, p)) for topic in _WRITTEN for p in range(partitions)]
