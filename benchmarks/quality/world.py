"""A world of vectors: users of known kinds, looked at again and again, whose features are noise around a centre.

What the shop cannot give: the truth is exact, a move shows at the very next look, and the best that anybody could do is
known. Twelve standardised axes, six kinds of unequal size; plain argmin flips about twenty times for each true move.

- `static`: people move between kinds, the kinds stay where they are.
- `drift`: every centre also wanders, by 2.5 standard deviations of the noise in all.
- `birth_death`: at 40% a seventh kind is born and recruits 18% of all, at 60% the second largest dies out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

Scenario = Literal["static", "drift", "birth_death"]
SCENARIOS: Final[tuple[Scenario, ...]] = ("static", "drift", "birth_death")

AXES: Final = 12
KINDS: Final = 6
SHARES: Final = (0.28, 0.22, 0.17, 0.13, 0.11, 0.09)
SPREAD: Final = 1.05
"""Standard deviation of a centre's coordinates; the noise's is 1."""
APART: Final = 4.2
"""Centres are drawn until no two are nearer: k-means then agrees with the truth by about 0.97."""
WANDER: Final = 2.5
MOVE: Final = 0.0025
"""Probability of a true move before a look."""
RECRUITED: Final = 0.18
BORN, DIES, WITHIN = 0.4, 0.6, 0.1
DYING: Final = 1
LOOK_MS: Final = 43_200
"""Between two looks at anybody: 100,000 looks are 50 days."""


@dataclass(frozen=True, slots=True)
class World:
    """n looks in order of time."""

    user: NDArray[np.int64]
    """(n,) 0 to users - 1"""
    kind: NDArray[np.int64]
    """(n,) the truth at the look"""
    moved_from: NDArray[np.int64]
    """(n,) the kind that the user was at the look before, -1 where it is the same"""
    features: NDArray[np.float64]
    """(n, AXES)"""
    users: int
    kinds: int
    """How many there ever were."""

    def __len__(self) -> int:
        return len(self.user)

    def time(self, look: int) -> int:
        """Epoch milliseconds."""
        return 1_700_000_000_000 + look * LOOK_MS


def make_world(scenario: Scenario, seed: int, *, looks: int = 100_000, users: int = 2_000) -> World:
    """The same scenario and seed give the same world."""
    rng = np.random.default_rng([seed, SCENARIOS.index(scenario)])
    centres, heading = _centres(rng)
    user = rng.integers(0, users, looks)
    kind, moved_from = _kinds(scenario, user, users, rng)
    features = centres[kind] + rng.normal(size=(looks, AXES))
    if scenario == "drift":
        features += (np.arange(looks) / looks)[:, None] * heading[kind]
    return World(user, kind, moved_from, features, users, KINDS + (scenario == "birth_death"))


def _centres(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the kinds are at first, and which way they would wander; apart from one another at both ends."""
    while True:
        centres = SPREAD * rng.normal(size=(KINDS + 1, AXES))
        heading = rng.normal(size=(KINDS + 1, AXES))
        heading *= WANDER / np.linalg.norm(heading, axis=1, keepdims=True)
        if min(pdist(centres).min(), pdist(centres + heading).min()) >= APART:
            return centres, heading


def _kinds(
    scenario: Scenario, user: NDArray[np.int64], users: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    looks = len(user)
    present = rng.choice(KINDS, users, p=SHARES)
    wants = rng.random(looks) < MOVE
    where = rng.choice(KINDS, looks, p=SHARES)
    recruited = np.where(rng.random(users) < RECRUITED, looks * (BORN + WITHIN * rng.random(users)), np.inf)
    driven_out = looks * (DIES + WITHIN * rng.random(users))
    kind, moved_from = np.empty(looks, np.int64), np.full(looks, -1)
    changing = scenario == "birth_death"
    for look, who in enumerate(user.tolist()):
        was = now = int(present[who])
        if wants[look]:
            now = int(where[look])
        if changing and look >= recruited[who]:
            now, recruited[who] = KINDS, np.inf
        if changing and now == DYING and look >= driven_out[who]:
            now = was if was != DYING else (DYING + 1 + look) % KINDS
        if now != was:
            present[who], moved_from[look] = now, was
        kind[look] = now
    return kind, moved_from
