"""A backtest: a source through the live stages in one process, halted at checkpoints, where every method is judged.

Invariants. No event that arrives at or after a checkpoint has reached any stage, nor a baseline, when its picture is
taken. Rows go in by the hour at most, so that a new model is in force within the hour, as it would be within seconds
live. The same source and settings give the same result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from producers.shop import Truth
from producers.source import Source
from schemas.model import SegmentProfile
from stream.backtest import rfm
from stream.backtest.changes import ChangeReader, Changes, concatenate
from stream.backtest.gate import Gate
from stream.backtest.history import History
from stream.backtest.judge import Judge, Verdict
from stream.backtest.naive import Naive
from stream.backtest.oracle import Oracle
from stream.backtest.plan import HOUR_MS, Plan
from stream.backtest.reliability import Curve, stays
from stream.backtest.snapshot import Snapshot, take
from stream.backtest.track import Flips, Scores, Track, Window
from stream.backtest.transitions import Transitions
from stream.config import Config
from stream.ledger import Ledger
from stream.replay import Replay
from stream.segments.assign import BUILT_IN_NAMES, NONE
from stream.segments.processor import Processor

METHODS: Final = ("resegment", "oracle", "rfm8", "rfm25", "naive")
STEP_MS: Final = HOUR_MS


class Progress(NamedTuple):
    """How far a backtest is."""

    rows: int
    """Taken in."""
    at_ms: int
    """Up to this time."""
    passed: int
    """Checkpoints."""


Tell = Callable[[Progress], bool]
"""Answers whether to go on."""

Watch = Callable[[Processor], None]
"""Looks at the processor, and changes nothing."""


class BacktestInterruptedError(Exception):
    """It was asked to stop before the last checkpoint."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """What became of a segment other than that it survived."""

    version: int
    kind: str
    segment: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was seen at one time."""

    at_ms: int
    users: int
    """Known by then."""
    judged: int
    """Of them, those who were no newcomers."""
    model_version: int
    """0 before the first."""
    profiles: tuple[SegmentProfile, ...]
    sizes: dict[int, int]
    """All users by segment number; built-in ones are below 1."""
    scores: dict[str, Scores]
    """By method."""
    lineage: tuple[Lineage, ...]
    """Since the last checkpoint."""


@dataclass(frozen=True, slots=True)
class Result:
    """Everything that a backtest found."""

    plan: Plan
    history: History
    ledger: Ledger
    checkpoints: tuple[Checkpoint, ...]
    overall: dict[str, Scores]
    """By method."""
    transitions: Transitions
    stays: Curve
    stay_ms: int
    verdict: Verdict | None
    """Where the truth is known."""
    naive_changed: float | None
    """Share of the sampled events that changed the naive baseline's answer."""
    names: dict[int, str]
    """The last name of every segment that ever was."""


class Backtest:
    """Parameters: the configuration (its data directory must be empty), the source, what `scan` found in it, when to
    look, and the truth where there is one."""

    def __init__(
        self, config: Config, source: Source, history: History, plan: Plan, truth: Truth | None = None
    ) -> None:
        self._config = config
        self._gate = Gate(source)
        self._history = history
        self._plan = plan
        self._judge = None if truth is None else Judge(truth)
        self._oracle = Oracle(config.modeller.learner.segments, config.modeller.learner.seed)
        self._oracle_labels: list[NDArray[np.int64]] = []
        self._naive = Naive(config.layout(), history.sample)
        self._tracks = {name: Track(name) for name in METHODS}
        self._snapshots: list[Snapshot] = []
        self._checkpoints: list[Checkpoint] = []
        self._changes: list[Changes] = []
        self._names: dict[int, str] = {}
        self._lineage: list[Lineage] = []
        self._version = 0

    def run(self, tell: Tell = lambda progress: True, watch: Watch = lambda processor: None) -> Result:
        """All of it, up to the last checkpoint; `watch` is called after every step.

        Raises BacktestInterruptedError, SourceError, TransportError.
        """
        with Replay(self._config, self._gate) as replay:
            processor = replay.deployment.processor
            ledger = ChangeReader(replay.transport, lambda user: processor.populations[0].table.lookup(user))
            for at in self._plan.times:
                self._advance(replay, at, tell, watch)
                self._look(processor, at, ledger.read())
            return self._result(processor, replay.ledger())

    def _advance(self, replay: Replay, until_ms: int, tell: Tell, watch: Watch) -> None:
        """Feed everything that arrives before `until_ms`, an hour with rows in it at a time."""
        while (arrival := self._gate.next_arrival) is not None and arrival < until_ms:
            self._gate.until = min(until_ms, (arrival // STEP_MS + 1) * STEP_MS)
            if not (replay.run() and tell(Progress(replay.rows, self._gate.until, len(self._checkpoints)))):
                raise BacktestInterruptedError
            processor = replay.deployment.processor
            watch(processor)
            if self._judge is not None:
                self._judge.watch(processor.populations[0])
            model = processor.model
            if model is not None and model.version != self._version:
                self._version = model.version
                self._names |= model.names
                self._lineage += [
                    Lineage(model.version, line.kind, line.segment) for line in model.lineage if line.kind != "survived"
                ]

    def _look(self, processor: Processor, at: int, changes: Changes) -> None:
        """A checkpoint: take the picture and judge all methods by it."""
        snapshot = take(processor, at, self._config.decision)
        window = self._window(processor, snapshot)
        self._oracle_labels.append(self._oracle.label(snapshot.rows, snapshot.z))
        self._naive.advance(at)
        bought = self._history.rfm(self._history.numbers(snapshot.user_ids), at)
        add = {name: track.add for name, track in self._tracks.items()}
        scores = {
            "resegment": add["resegment"](
                window,
                snapshot.segment,
                segments=snapshot.segment > NONE,
                flips=Flips(changes.user[changes.between_segments]),
                causes=changes.by_cause(),
            ),
            "oracle": add["oracle"](window, self._oracle_labels[-1]),
            "rfm8": add["rfm8"](window, rfm.eight(bought)),
            "rfm25": add["rfm25"](window, rfm.twenty_five(bought)),
            "naive": add["naive"](
                window, self._naive.label(snapshot.features), flips=self._naive_flips(processor, snapshot)
            ),
        }
        model = snapshot.model
        segments, counts = np.unique(snapshot.standing, return_counts=True)
        self._checkpoints.append(
            Checkpoint(
                at_ms=at,
                users=len(snapshot.standing),
                judged=len(snapshot.rows),
                model_version=0 if model is None else model.version,
                profiles=() if model is None else model.profiles,
                sizes=dict(zip(segments.tolist(), counts.tolist(), strict=True)),
                scores=scores,
                lineage=tuple(self._lineage),
            )
        )
        self._lineage.clear()
        self._snapshots.append(snapshot)
        self._changes.append(changes)

    def _window(self, processor: Processor, snapshot: Snapshot) -> Window:
        history, last = self._history, self._snapshots[-1] if self._snapshots else None
        outcome = history.outcome(history.numbers(snapshot.user_ids), snapshot.at_ms, self._plan.horizon)
        movers = None
        if self._judge is not None and last is not None:
            movers = self._judge.movers(processor.populations[0], last, snapshot.at_ms)
        return Window(
            at_ms=snapshot.at_ms,
            since_ms=None if last is None else last.at_ms,
            rows=snapshot.rows,
            z=snapshot.z,
            log_spend=np.log1p(outcome.spend) if history.sales.priced else None,
            bought=outcome.bought,
            persona=None if self._judge is None else self._judge.persona(snapshot),
            movers=movers,
        )

    def _naive_flips(self, processor: Processor, snapshot: Snapshot) -> Flips:
        lookup = processor.populations[0].table.lookup
        known = np.zeros(len(snapshot.standing), bool)
        known[[row for user in self._naive.users if (row := lookup(user)) is not None]] = True
        rows = [row for user in self._naive.new_flips() if (row := lookup(user)) is not None]
        return Flips(np.array(rows, np.intp), known)

    def _result(self, processor: Processor, ledger: Ledger) -> Result:
        changes = concatenate(self._changes)
        stay = self._config.modeller.confidence_horizon
        verdict = None
        if self._judge is not None:
            verdict = self._judge.verdict(processor.populations[0], self._snapshots, changes, self._oracle_labels)
        return Result(
            plan=self._plan,
            history=self._history,
            ledger=ledger,
            checkpoints=tuple(self._checkpoints),
            overall={name: track.overall() for name, track in self._tracks.items()},
            transitions=Transitions.between([snapshot.standing for snapshot in self._snapshots]),
            stays=stays(changes, stay, self._plan.times[0], self._plan.times[-1]),
            stay_ms=stay,
            verdict=verdict,
            naive_changed=self._naive.changed_share,
            names={**BUILT_IN_NAMES, NONE: "Not assigned yet", **self._names},
        )
