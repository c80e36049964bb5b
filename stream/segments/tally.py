"""What operations see of the processor: the counters of its partitions, told to the metrics call by call."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from stream.runtime.metrics import Recorder
from stream.segments.assign import BUILT_IN_NAMES, QUARANTINE, segment_name
from stream.segments.population import Population
from stream.segments.prototypes import Model

MEASURE_EVERY_S = 0.5
"""Levels such as sizes cost as much as a small batch does: a processor that is at work shows them that often."""


class Tally:
    """Tells `recorder`, if there is one, what each call of the stage `name` added to its `populations`."""

    def __init__(self, name: str, populations: Mapping[int, Population], recorder: Recorder | None) -> None:
        self._name = name
        self._populations = populations
        self._recorder = recorder
        self._measured_at = float("-inf")

    def totals(self) -> Counter[str]:
        """The counters of all partitions: take them before a call."""
        return sum((population.counters for population in self._populations.values()), Counter())

    def sweep(self, seconds: float, users: int) -> None:
        """One slice of a sweep."""
        if self._recorder is not None:
            self._recorder.sweep(seconds, users)

    def tell(self, before: Counter[str], model: Model | None, *, wall_clock: bool) -> None:
        """Tell the metrics what the call added to what was `before`."""
        arrived = [at for population in self._populations.values() for at in population.arrived]
        for population in self._populations.values():
            population.arrived.clear()
        recorder = self._recorder
        if recorder is None:
            return
        added = self.totals() - before
        recorder.events("accepted", _by_type(_part(added, "accepted")))
        recorder.events("duplicate", _by_type(_part(added, "duplicate")))
        dead = _part(added, "dead")
        recorder.events("dead_lettered", {"unknown": sum(dead.values())} if dead else {})
        recorder.dead_letters(dead)
        recorder.changes(_part(added, "changes"), arrived if wall_clock else ())
        anomalies = _part(added, "anomalies")
        recorder.anomalies(anomalies.get("entered", 0), anomalies.get("released", 0))
        now = time.monotonic()
        if not wall_clock or now - self._measured_at >= MEASURE_EVERY_S:
            self._measured_at = now
            self._measure(recorder, model)

    def _measure(self, recorder: Recorder, model: Model | None) -> None:
        """What is a level and not a count."""
        sizes = sum((Counter(population.sizes()) for population in self._populations.values()), Counter[int]())
        names = model.names if model else {}
        shown = [
            (segment_name(segment) or "none", BUILT_IN_NAMES.get(segment) or names.get(segment) or "none", count)
            for segment, count in sorted(sizes.items())
        ]
        rules = sum(
            (population.rules.members() for population in self._populations.values()), Counter[tuple[str, str]]()
        )
        shown += [(identifier, name, count) for (identifier, name), count in sorted(rules.items())]
        recorder.population(sum(sizes.values()), sizes[QUARANTINE], shown)
        if model is not None:
            recorder.model(self._name, model.version, model.created_at)
        recorder.state(self._name, sum(population.table.nbytes for population in self._populations.values()))


def _part(counters: Counter[str], prefix: str) -> dict[str, int]:
    """The counters "prefix.name" by name."""
    return {name[len(prefix) + 1 :]: n for name, n in counters.items() if name.startswith(f"{prefix}.")}


def _by_type(by_kind: dict[str, int]) -> dict[str, int]:
    """Events by the type that producers know: a refund came as a purchase."""
    refunds = by_kind.pop("refund", 0)
    return {**by_kind, "purchase": by_kind.get("purchase", 0) + refunds} if refunds else by_kind
