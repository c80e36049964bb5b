"""Tracks: the interval's flips and churn against counts by hand, and means over the checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from stream.backtest.track import MEASURES, Flips, Track, Window
from stream.backtest.truth import UNKNOWN

RNG = np.random.default_rng(2)
Z = RNG.normal(size=(8, 3))
SPEND = np.log1p(np.array([0.0, 0, 10, 10, 0, 0, 90, 90]))
DAY = 86_400_000


def window(
    rows: list[int], at: int, since: int | None, *, persona: list[int] | None = None, movers: list[int] | None = None
) -> Window:
    n = len(rows)
    return Window(
        at_ms=at,
        since_ms=since,
        rows=np.array(rows, np.intp),
        z=Z[:n],
        log_spend=SPEND[:n],
        bought=SPEND[:n] > 0,
        persona=None if persona is None else np.array(persona, np.int64),
        movers=None if movers is None else np.array(movers, np.intp),
    )


def labels(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_flips_and_churn_of_an_interval() -> None:
    track = Track("x")
    truth = [0, 0, 1, 1, 2, UNKNOWN]
    first = track.add(window([0, 1, 2, 3, 4, 5], DAY, None, persona=truth, movers=None), labels(1, 1, 2, 2, 3, 3))
    assert first.churn is not None and first.churn.share_moved is None
    assert first.flips_per_true_move is None and first.id_continuity is None
    assert first.ari_truth == pytest.approx(1.0)

    # 0 moved to 2; 5 (a bot) moved too; 6 is new. Two people truly moved.
    second = track.add(
        window([0, 1, 2, 3, 4, 5, 6], 3 * DAY, DAY, persona=[*truth, 0], movers=[0, 2]), labels(2, 1, 2, 2, 3, 1, 1)
    )
    assert second.churn is not None
    assert second.churn.share_moved == pytest.approx(2 / 6)
    assert second.churn.flips_per_user_day is None  # known at checkpoints only
    assert second.flips_per_true_move == pytest.approx(1 / 2)
    people = np.array(truth) != UNKNOWN
    expected = adjusted_rand_score([2, 1, 2, 2, 3, 1], [*np.array(truth)[people], 0])
    assert second.ari_truth == pytest.approx(expected)

    third = track.add(
        window([0, 1, 2, 3, 4, 5, 6], 4 * DAY, 3 * DAY, persona=[*truth, 0], movers=[]), labels(2, 1, 2, 2, 3, 1, 2)
    )
    assert third.flips_per_true_move is None  # nobody truly moved
    overall = track.overall()
    assert overall.flips_per_true_move == pytest.approx(2 / 2)
    assert overall.silhouette == pytest.approx(np.mean([s.silhouette for s in (first, second, third)]))
    assert overall.churn is not None and overall.churn.share_moved == pytest.approx(np.mean([2 / 6, 1 / 7]))
    assert overall.churn.by_cause is None
    assert set(overall.as_json()) == set(MEASURES) and len(MEASURES) == 8


def test_a_method_that_counts_its_own_flips() -> None:
    track = Track("x")
    causes = {"behaviour": 4, "model": 1}
    everybody = [0, 0, 1, 1]
    track.add(
        window([0, 1, 2, 3], DAY, None, persona=everybody),
        labels(1, 1, 2, 2),
        flips=Flips(np.array([0, 0])),
        causes=causes,
    )
    # User 1 flipped three times and is where it was; 9 was not judged before; 3 is not followed.
    known = np.array([True, True, True, False])
    scores = track.add(
        window([0, 1, 2, 3], 3 * DAY, DAY, persona=everybody, movers=[1, 3]),
        labels(1, 1, 2, 2),
        flips=Flips(np.array([1, 1, 1, 9]), known),
        causes=causes,
    )
    assert scores.churn is not None
    assert scores.churn.share_moved == 0.0
    assert scores.churn.flips_per_user_day == pytest.approx(3 / (3 * 2))
    assert scores.flips_per_true_move == pytest.approx(3 / 1)
    overall = track.overall()
    assert overall.churn is not None
    assert overall.churn.by_cause == {"behaviour": 8, "model": 2}
    assert overall.churn.flips_per_user_day == pytest.approx(3 / 6)


def test_what_the_data_cannot_say_is_none() -> None:
    track = Track("x")
    one = window([0, 1, 2, 3], DAY, None)
    silent = Window(one.at_ms, None, one.rows, one.z, None, np.zeros(4, bool), None, None)
    scores = track.add(silent, labels(0, 0, 0, 0))
    assert scores.as_json() == {**dict.fromkeys(MEASURES), "churn": scores.as_json()["churn"]}
    assert track.overall().eta2_next_spend is None
