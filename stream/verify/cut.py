"""The state of one stage's partition as it was committed, and the input offsets at which it stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from stream.features.state import StateError
from stream.runtime.changelog import Changelog, StateLostError
from stream.transport.base import TopicPartition, Transport
from stream.verify.report import Report

ATTEMPTS = 3
"""A running stage trims its changelog: what we were about to read may go."""
SETTLE_S = 10.0
"""So long the offsets of a transaction may take to show after its records: Kafka ends them one partition at a time."""

Deltas = Iterable[tuple[dict[str, Any], bytes]]


def restore(
    transport: Transport,
    stage: str,
    topic: str,
    partition: int,
    group: str,
    inputs: Sequence[str],
    apply: Callable[[Deltas], None],
    report: Report,
) -> Mapping[str, int | None] | None:
    """Hand the committed deltas to `apply` (which starts anew at each call); returns where they stand.

    None, with a finding, where the changelog cannot be restored. A state that stands elsewhere than the group's
    offsets is a finding too.
    """
    place = f"{topic}/{partition}"
    before = _committed(transport, group, inputs, partition)
    for attempt in range(ATTEMPTS):
        changelog = Changelog(transport, stage, topic)
        try:
            apply(changelog.restore(partition, {}))
            break
        except (StateLostError, StateError, ValueError, KeyError) as error:
            if attempt + 1 == ATTEMPTS:
                report.add("state", place, str(error))
                return None
            time.sleep(0.5)
    stands = changelog.stands_at(partition)
    after = _settled(transport, group, inputs, partition, stands)
    for name in inputs:
        low, at, high = before.get(name) or 0, stands.get(name) or 0, after.get(name) or 0
        if not low <= at <= high:
            committed = f"{low}" if low == high else f"{low} to {high}"
            report.add("state", place, f"stands at offset {at} of {name}, but {group} has committed {committed}")
        kept = transport.start_offset(TopicPartition(name, partition))
        if kept > high:
            report.add("offsets", f"{name}/{partition}", f"{group} stands at {high}, but records below {kept} are gone")
    if before != after:
        report.still = False
    return stands


def _committed(transport: Transport, group: str, inputs: Sequence[str], partition: int) -> dict[str, int | None]:
    return {name: transport.committed(group, TopicPartition(name, partition)) for name in inputs}


def _settled(
    transport: Transport, group: str, inputs: Sequence[str], partition: int, stands: Mapping[str, int | None]
) -> dict[str, int | None]:
    deadline = time.monotonic() + SETTLE_S
    while True:
        committed = _committed(transport, group, inputs, partition)
        behind = [name for name in inputs if (committed[name] or 0) < (stands.get(name) or 0)]
        if not behind or time.monotonic() > deadline:
            return committed
        time.sleep(0.1)
