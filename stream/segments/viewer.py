"""Looks at users with everything that there is to see: the learned segment, rule segments, and who is observed.

Invariant: a look reads and writes the rows that it is given and no others, so what it says of a user does not depend on
who else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas import topics
from stream.anomalies.quarantine import QuarantineSettings
from stream.features.layout import EVENTS, FIRST, LAST, Layout
from stream.features.table import joint_features
from stream.segments.assign import INACTIVITY, NEWCOMER, QUARANTINE, DecisionSettings, Standing
from stream.segments.look import Judged, Look, Moment, Triggers
from stream.segments.observations import QUARANTINED, Observations, Sampler, feature_fingerprint
from stream.segments.population import Population, Rows
from stream.segments.prototypes import Model
from stream.segments.rule_book import Looked, RuleBook
from stream.segments.rules import RuleSegment
from stream.transport.base import OutRecord


@dataclass(frozen=True, slots=True)
class Glance:
    """Whom to look at in one partition, when and why, and the events behind it."""

    population: Population
    rows: Rows
    moment: Moment
    triggers: Triggers | None = None


class Viewer:
    """Looks with one version of the model; `model` is the one in use, None before the first.

    Parameters: the layout, how to decide and when to quarantine, who is sampled, the declared rules, and the
    CloudEvents source of this deployment.
    """

    def __init__(
        self,
        layout: Layout,
        decision: DecisionSettings,
        quarantine: QuarantineSettings,
        sampler: Sampler,
        rules: Sequence[RuleSegment],
        source: str,
    ) -> None:
        self.model: Model | None = None
        self._layout = layout
        self._decision = decision
        self._quarantine = quarantine
        self._sampler = sampler
        self._source = source
        self._rule_book = RuleBook(rules, layout.features, source)
        learned = [feature.name for feature in layout.features if feature.learn]
        self._learned = np.array([layout.names.index(name) for name in learned], dtype=np.intp)
        self._fingerprint = feature_fingerprint(learned)
        self._look: Look | None = None
        self._scored = self._learned
        self._wanted = self._needed()

    def use(self, model: Model) -> None:
        """Score with this version from now on. Raises ValueError where its features are not declared."""
        self._scored = model.columns(self._layout.names)
        self._wanted = self._needed()
        self.model = model
        self._look = Look(model, self._decision, self._quarantine, self._source)

    def adopt(self, population: Population) -> None:
        """Bring a restored partition under the rules of today."""
        self._rule_book.adopt(population)

    def look(
        self, population: Population, rows: Rows, moment: Moment, out: list[OutRecord], triggers: Triggers | None = None
    ) -> None:
        """Look at rows now: decide them where there is a model, and let the sampler observe some of them."""
        self.look_at([Glance(population, rows, moment, triggers)], out)

    def look_at(self, glances: Sequence[Glance], out: list[OutRecord]) -> None:
        """The same for rows of several partitions, all for one cause: measured and decided at once."""
        if not glances:
            return
        tables = [(each.population.table, each.rows, each.moment.at) for each in glances]
        features = joint_features(tables, self._wanted)
        newcomers = [self._newcomers(each.population, each.rows, each.moment.at) for each in glances]
        was_held = [each.population.held(each.rows) for each in glances]
        judged = self._judge(glances, features, newcomers)
        version = self.model.version if self.model is not None else 0
        start = 0
        for each, newcomer, held in zip(glances, newcomers, was_held, strict=True):
            population, rows, moment = each.population, each.rows, each.moment
            some = slice(start, start + len(rows))
            start = some.stop
            if self._look is not None and judged is not None:
                out += self._look.act(population, rows, judged.part(some), moment, each.triggers)
            looked = Looked(rows, features[some], held, moment, version, each.triggers)
            out += self._rule_book.at(population, looked)
            self._observe(population, rows, features[some], newcomer, moment.at, out)

    def _judge(
        self, glances: Sequence[Glance], features: NDArray[np.float64], newcomers: Sequence[NDArray[np.bool_]]
    ) -> Judged | None:
        if self._look is None:
            return None
        times = [each.moment.at for each in glances]
        return self._look.judge(
            features[:, self._scored],
            Standing.joined([each.population.standing(each.rows) for each in glances]),
            np.concatenate([each.population.table.column("streak")[each.rows] for each in glances]),
            np.concatenate(newcomers),
            glances[0].moment.cause,
            times[0] if len(times) == 1 else np.repeat(times, [len(each.rows) for each in glances]),
        )

    def _observe(
        self,
        population: Population,
        rows: Rows,
        features: NDArray[np.float64],
        newcomer: NDArray[np.bool_],
        at: int,
        out: list[OutRecord],
    ) -> None:
        """Let the modeller see those whom the sampler picks."""
        column = population.table.column
        segment, observed = column("segment")[rows], column("observed")
        standing = np.where(newcomer, NEWCOMER, segment).astype(np.int32)
        hashes = column("user_hash")[rows]
        last_seen = column(LAST)[rows]
        changed = column("since")[rows] > observed[rows]
        chosen, weight = self._sampler.select(
            hashes, standing, observed[rows], last_seen, at, population.sizes(), changed
        )
        # The newly held are told once, so that the modeller forgets their rows.
        told = (segment == QUARANTINE) & (observed[rows] > 0)
        seen = np.flatnonzero(chosen | told)
        if not len(seen):
            return
        observed[rows[seen]] = np.where(told[seen], 0, at)
        population.touch(rows[seen])
        observations = Observations(
            fingerprint=self._fingerprint,
            user_hash=hashes[seen],
            at_ms=np.full(len(seen), at, np.int64),
            segment=segment[seen],
            flags=np.where(told[seen], QUARANTINED, 0).astype(np.uint8),
            weight=np.where(told[seen], 1.0, weight[seen]),
            features=features[np.ix_(seen, self._learned)],
        )
        out += [OutRecord(topics.OBSERVATIONS, None, value, 0, (), at) for value in observations.encode()]

    def _newcomers(self, population: Population, rows: Rows, at: int) -> NDArray[np.bool_]:
        column, decision = population.table.column, self._decision
        young: NDArray[np.bool_] = at - column(FIRST)[rows] < decision.newcomer_period
        few: NDArray[np.bool_] = column(EVENTS)[rows] < decision.newcomer_events
        return young & few

    def follow_edit(self, population: Population, out: list[OutRecord]) -> bool:
        """Bring the next slice of users under rules that were edited; False where nobody is left to be."""
        rows = self._rule_book.overdue(population)
        if rows is None:
            return False
        moment = Moment(population.now(), population.clock, INACTIVITY)
        features = population.table.features(rows, moment.at, self._wanted)
        version = self.model.version if self.model is not None else 0
        out += self._rule_book.follow(population, Looked(rows, features, population.held(rows), moment, version))
        return True

    def _needed(self) -> list[int]:
        """Which features any look reads: those that are scored, observed, or spoken of by a rule."""
        return sorted({*self._scored.tolist(), *self._learned.tolist(), *self._rule_book.columns})
