"""The live modeller and the live decision on a world of vectors, beside k-means refitted on each window.

Observations go to the Modeller stage as the processor would send them; its versions score every look with the margin
and the consecutive looks of the live decision, and everybody is relabelled when a version comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from benchmarks.quality.world import AXES, Scenario, World, make_world
from schemas.topics import OBSERVATIONS, SEGMENT_MODEL
from stream.backtest.changes import Changes
from stream.backtest.metrics import adjusted_rand, id_continuity
from stream.backtest.moves import Following, Looks, follow, homes
from stream.backtest.truth import Moves
from stream.features.spec import parse_features
from stream.segments.assign import BEHAVIOUR, MODEL, DecisionSettings, Standing, assign
from stream.segments.modeller import Modeller
from stream.segments.observations import Observations, feature_fingerprint
from stream.segments.prototypes import Model
from stream.segments.settings import ModellerSettings
from stream.transport.records import ReadRecord

IntArray = NDArray[np.int64]

BATCH: Final = 250
WINDOW: Final = 5_000
SETTLED: Final = 0.1
"""Of the looks: before that, windows and flips do not count."""
STUCK: Final = 0.9
"""At the end, below so much of the oracle."""

FEATURES: Final = parse_features(
    [{"name": f"axis_{j}", "aggregate": "count", "half_life": "1d", "log": False} for j in range(AXES)]
)


@dataclass(frozen=True, slots=True)
class Found:
    """Of one world."""

    ari: float
    """Mean over the windows, of the segments that users were in."""
    ari_argmin: float
    """The same of the nearest prototype, without hysteresis."""
    oracle: float
    """The same of k-means refitted on each window."""
    at_the_end: float
    """ARI over the oracle's, last fifth of the windows."""
    id_continuity: float
    ids: int
    """Ever given out."""
    kinds: int
    flips: int
    flips_by_model: int
    """Of them, those that a new version made."""
    flips_argmin: int
    """What the nearest prototype alone would have made."""
    moves: int
    following: Following
    versions: int

    @property
    def stuck(self) -> bool:
        """Whether it had not recovered at the end."""
        return self.at_the_end < STUCK

    @property
    def spurious(self) -> int:
        """Ids beyond one for each kind that there ever was."""
        return max(0, self.ids - self.kinds)


def run(scenario: Scenario, seed: int, settings: ModellerSettings | None = None) -> Found:
    """One world through the live code."""
    world = make_world(scenario, seed)
    live = _Live(world, settings or ModellerSettings())
    for start in range(0, len(world), BATCH):
        live.batch(start, min(start + BATCH, len(world)))
    return _judge(world, live)


class _Live:
    def __init__(self, world: World, settings: ModellerSettings) -> None:
        self.world = world
        self.modeller = Modeller(FEATURES, settings)
        self.decision = DecisionSettings()
        self.fingerprint = feature_fingerprint([feature.name for feature in FEATURES])
        self.model: Model | None = None
        n = world.users
        self.standing = Standing.nowhere(n)
        self.latest = np.zeros((n, AXES))
        self.known = np.zeros(n, bool)
        self.assigned = np.zeros(len(world), np.int64)
        self.nearest = np.zeros(len(world), np.int64)
        self.changes: list[tuple[int, int, int, int, int]] = []
        self.ids: set[int] = set()
        self.versions = 0

    def batch(self, start: int, stop: int) -> None:
        """A user may be looked at twice in a batch; then each look is decided in turn."""
        looks = np.arange(start, stop)
        users = self.world.user[looks]
        for wave in _waves(users):
            self._decide(users[wave], looks[wave], BEHAVIOUR)
        self.latest[users], self.known[users] = self.world.features[looks], True
        self._learn(looks, users)

    def _decide(self, users: IntArray, looks: IntArray, cause: int) -> None:
        if self.model is None:
            return
        x = self.latest[users] if cause == MODEL else self.world.features[looks]
        distances = self.model.segment_distances(self.model.scale(x))
        before = self.standing.take(users)
        nobody = np.zeros(len(users), bool)
        at = self.world.time(int(looks[-1]))
        decided = assign(distances, self.model.segment_ids, before, nobody, nobody, cause, at, self.decision)
        after = decided.standing
        self.standing.put(users, after)
        self.standing.since[users[after.segment != before.segment]] = at
        if cause != MODEL:
            self.assigned[looks] = after.segment
            self.nearest[looks] = self.model.segment_ids[distances.argmin(axis=1)]
        for i in np.flatnonzero(after.segment != before.segment).tolist():
            self.changes.append(
                (
                    int(users[i]),
                    int(looks[i]),
                    int(before.segment[i]),
                    int(after.segment[i]),
                    int(decided.cause[i]),
                )
            )

    def _learn(self, looks: IntArray, users: IntArray) -> None:
        observations = Observations(
            fingerprint=self.fingerprint,
            user_hash=users.astype(np.uint64) + np.uint64(1),
            at_ms=np.array([self.world.time(look) for look in looks.tolist()], np.int64),
            segment=self.standing.segment[users],
            flags=np.zeros(len(users), np.uint8),
            weight=np.ones(len(users)),
            features=self.world.features[looks],
        )
        at = self.world.time(int(looks[-1]))
        records = [ReadRecord(OBSERVATIONS, 0, int(looks[0]), at, None, value, ()) for value in observations.encode()]
        output = self.modeller.process({0: records}, None)
        for record in output.records:
            if record.topic == SEGMENT_MODEL and record.value is not None:
                self.model = Model.from_bytes(record.value)
                self.ids |= set(self.model.segment_ids.tolist())
                self.versions += 1
                everybody = np.flatnonzero(self.known)
                self._decide(everybody, np.full(len(everybody), int(looks[-1])), MODEL)


def _judge(world: World, live: _Live) -> Found:
    begin = int(SETTLED * len(world))
    windows = [slice(start, start + WINDOW) for start in range(begin, len(world), WINDOW)]
    oracle = [_refit(world, window) for window in windows]
    pairs = [(live.assigned[w], world.kind[w]) for w in windows]
    own = [_ari(*pair) for pair in pairs]
    last = -max(1, len(windows) // 5)
    ledger = np.array(live.changes, np.int64).reshape(-1, 5)
    user, at, before, after, cause = ledger.T
    changes = Changes(user, at, before, after, cause, np.ones(len(user)))
    counted = changes.between_segments & (at >= begin)
    moved = np.flatnonzero(world.moved_from >= 0)
    moved = moved[moved >= begin]
    moves = Moves(world.user[moved], moved - 1, world.moved_from[moved], world.kind[moved])
    looks = Looks()
    for look, who in enumerate(world.user.tolist()):
        looks.add(look, np.array([who]))
    home = homes(live.assigned[begin:], world.kind[begin:])
    return Found(
        ari=float(np.mean(own)),
        ari_argmin=float(np.mean([_ari(live.nearest[w], world.kind[w]) for w in windows])),
        oracle=float(np.mean(oracle)),
        at_the_end=float(np.mean(own[last:]) / np.mean(oracle[last:])),
        id_continuity=id_continuity(pairs) or 0.0,
        ids=len(live.ids),
        kinds=world.kinds,
        flips=int(counted.sum()),
        flips_by_model=int((counted & (changes.cause == MODEL)).sum()),
        flips_argmin=_flips(world.user[begin:], live.nearest[begin:]),
        moves=len(moved),
        following=follow(moves, changes, looks, home, len(world)),
        versions=live.versions,
    )


def _flips(user: IntArray, label: IntArray) -> int:
    """How often a user's label is another one than at the look before."""
    order = np.argsort(user, kind="stable")
    same_user = user[order][1:] == user[order][:-1]
    return int((same_user & (label[order][1:] != label[order][:-1])).sum())


def _refit(world: World, window: slice) -> float:
    kinds = len(np.unique(world.kind[window]))
    labels = KMeans(kinds, n_init=10, random_state=0).fit_predict(world.features[window])
    return _ari(labels, world.kind[window])


def _ari(a: IntArray, b: IntArray) -> float:
    return adjusted_rand(a, b) or 0.0


def _waves(users: IntArray) -> list[NDArray[np.intp]]:
    """Each user's first look in the batch, then each one's second, and so on."""
    order = np.argsort(users, kind="stable")
    _, first = np.unique(users[order], return_index=True)
    number = np.empty(len(users), np.int64)
    number[order] = np.arange(len(users)) - np.repeat(first, np.diff([*first, len(users)]))
    return [np.flatnonzero(number == n) for n in range(int(number.max()) + 1)]
