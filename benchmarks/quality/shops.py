"""The synthetic shop through the whole live chain: segments, moves and quarantine against the truth."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from producers.shop import ScenarioName, Shop, ShopSettings
from stream.backtest.backtest import Backtest, Result
from stream.backtest.history import scan
from stream.backtest.plan import make_plan
from stream.backtest.touched import Touched
from stream.backtest.truth import Personas
from stream.config import load
from stream.features.layout import EVENTS, FIRST
from stream.segments.assign import QUARANTINE, DecisionSettings
from stream.segments.processor import Processor

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Found:
    """Of one shop."""

    result: Result
    auc: float
    """Of bots against people, by the most outlying look of each."""
    bots: int
    """Looked at while there was a model."""
    caught: int
    """Of them, ever held."""
    people: int
    held_ever: int
    held_now: float
    """Mean share of people held at a checkpoint."""

    @property
    def ari_ratio(self) -> float:
        """Window ARI over the oracle's."""
        ours, oracle = (self.result.overall[name].ari_truth or 0.0 for name in ("resegment", "oracle"))
        return ours / oracle

    @property
    def new_ids(self) -> int:
        """Segments born or split off after the first checkpoint."""
        later = [line for one in self.result.checkpoints[1:] for line in one.lineage]
        return sum(line.kind in ("born", "split") for line in later)


def run(scenario: ScenarioName, seed: int, *, users: int, days: int) -> Found:
    """One shop through a backtest, watched for outliers."""
    shop = Shop(ShopSettings(users=users, days=days, seed=seed, scenario=scenario))
    with tempfile.TemporaryDirectory(prefix="resegment-quality-") as directory:
        config = load(
            None,
            {
                "transport.kind": "embedded",
                "transport.data_dir": Path(directory) / "data",
                "transport.embedded.synchronous": "normal",
            },
        )
        history = scan(shop, config.ingest)
        watch = _Outliers(config.decision)
        plan = make_plan(history.start, history.end)
        result = Backtest(config, shop, history, plan, shop.truth).run(watch=watch)
    personas = Personas(shop.truth)
    bot = personas.is_bot(watch.user_ids)
    seen = watch.most > 0
    shares = [one.sizes.get(QUARANTINE, 0) for one in result.checkpoints]
    held_bots = int((watch.held & bot).sum())
    held_people = int((watch.held & ~bot).sum())
    people_now = [one.users - int(bot[: one.users].sum()) for one in result.checkpoints]
    wrongly = [int((standing[: len(bot)] & ~bot[: len(standing)]).sum()) for standing in watch.at(plan.times)]
    assert all(wrong <= share for wrong, share in zip(wrongly, shares, strict=True))
    return Found(
        result=result,
        auc=float(roc_auc_score(bot[seen], watch.most[seen])),
        bots=int((bot & seen).sum()),
        caught=held_bots,
        people=int((~bot & seen).sum()),
        held_ever=held_people,
        held_now=float(np.mean([w / n for w, n in zip(wrongly, people_now, strict=True)])),
    )


class _Outliers:
    """After each step: how outlying those are whose events were in it, and who is held.

    Outlying is measured as quarantine does: the larger of the distance and of the forest's emptiness, -log(1 - score),
    each over its own threshold; above 1 is an outlier's look.
    """

    def __init__(self, decision: DecisionSettings) -> None:
        self._decision = decision
        self._touched = Touched()
        self._times: list[int] = []
        self._standing: list[NDArray[np.bool_]] = []
        self.user_ids: list[str] = []
        self.most: FloatArray = np.empty(0)
        self.held: NDArray[np.bool_] = np.empty(0, bool)

    def __call__(self, processor: Processor) -> None:
        population = processor.populations[0]
        table, model = population.table, processor.model
        grown = len(table) - len(self.most)
        self.most = np.append(self.most, np.zeros(grown))
        held = table.column("segment") == QUARANTINE
        self.held = np.append(self.held, np.zeros(grown, bool)) | held
        self.user_ids = table.user_ids
        self._times.append(population.clock)
        self._standing.append(held)
        rows = self._touched.since_last(population)
        if model is None:
            return
        now, decision = population.now(), self._decision
        young = now - table.column(FIRST)[rows] < decision.newcomer_period
        rows = rows[~(young & (table.column(EVENTS)[rows] < decision.newcomer_events))]
        z = model.scale(table.features(rows, now)[:, model.columns(processor.layout.names)])
        with np.errstate(divide="ignore"):
            empty = np.minimum(-np.log1p(-model.outlier_scores(z)), 700.0)
        limit = -np.log1p(-model.thresholds.score)
        outlying = np.maximum(empty / limit, model.nearest(z).distance / model.thresholds.distance)
        self.most[rows] = np.maximum(self.most[rows], outlying)

    def at(self, times: tuple[int, ...]) -> list[NDArray[np.bool_]]:
        """Who was held at these times."""
        last = np.searchsorted(self._times, times) - 1
        return [self._standing[i] for i in last.tolist()]
