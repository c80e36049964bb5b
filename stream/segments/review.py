"""A review: from the panel and the learner to a candidate version, and from that to the version that is published.

Pure functions of their arguments. Who is who is decided on the panel's people, labelled by the last and by the new
version at one instant (identity.py); what a new segment needs, by evidence.py; what it is called, by names.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from schemas.model import ExpectedMove, ModelQuality, OutlierThresholds, SegmentProfile
from stream.anomalies.forest import Forest
from stream.anomalies.training import Trainer
from stream.segments.evidence import Separation, evident, kept, separation
from stream.segments.identity import Matching, first, match
from stream.segments.learner import Prototypes
from stream.segments.names import name_segments
from stream.segments.profiles import profiles, radii, thresholds, widest
from stream.segments.promotion import Moves, Ruling, expected_moves
from stream.segments.prototypes import Model, segment_id
from stream.segments.refit import inertia_of, silhouette
from stream.segments.scaling import FeatureInfo, Scaler
from stream.segments.settings import IdentitySettings, ModellerSettings, ReviewSettings

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]
SegmentArray = NDArray[np.int32]


class People(NamedTuple):
    """The panel as arrays."""

    features: FloatArray
    """(m, F)"""
    weight: FloatArray
    """(m,)"""
    recent: FloatArray
    """(r, F) the last observations as they came"""


class Candidate(NamedTuple):
    """A version that could be published."""

    scaler: Scaler
    centres: FloatArray
    """(p, d)"""
    segments: SegmentArray
    """(p,) the segment number of each prototype"""
    radii: FloatArray | None
    """(p,) borders to noise; None where they are only described, from the panel"""
    prototype: IndexArray
    """(m,) nearest prototype of each panel row"""
    matching: Matching
    steady: NDArray[np.int64]
    """(p,) reviews over which each prototype kept its people"""
    moved: float
    """share of the people whose segment it would change"""
    gain: float
    """share by which it lowers the last version's inertia on the panel; infinite where they cannot be compared"""

    @property
    def events(self) -> bool:
        """Whether any segment was born, split, merged or died."""
        return any(line.kind != "survived" for line in self.matching.lineage)


def propose(
    people: People,
    scaler: Scaler,
    prototypes: Prototypes,
    last: Model | None,
    steady: NDArray[np.int64],
    next_number: int,
    settings: IdentitySettings,
    rescaled: bool = False,
) -> Candidate:
    """What the learner has found, with identities. `steady` (p,) is the last review's count. Where the axes were
    `rescaled`, the last version's borders are no yardstick of steadiness: then size is evidence enough."""
    z = scaler.transform(people.features)
    prototype: IndexArray = cdist(z, prototypes.centres, "sqeuclidean").argmin(axis=1)
    count = len(prototypes.centres)
    if last is None:
        found = separation(z, prototypes.groups[prototype], _groups(prototypes.groups), people.weight)
        matching = first(found.size, found.size >= settings.birth_share, found.neighbour, next_number, settings)
        segments = matching.segments[prototypes.groups]
        steady = np.zeros(count, np.int64)
        return Candidate(
            scaler, prototypes.centres, segments, prototypes.radii, prototype, matching, steady, 1.0, np.inf
        )

    before = last.nearest(last.scale(_columns(people.features, scaler.features, last.features))).prototype
    comparable = prototypes.lasting and len(last.segments) == count == len(steady)
    if comparable:
        stayed = kept(before, prototype, count, people.weight) >= settings.steady
        steady = np.where(stayed, steady + 1, 0)
    else:
        steady = np.zeros(count, np.int64)
    groups = prototypes.groups
    found = separation(z, groups[prototype], _groups(groups), people.weight)
    if prototypes.evident is None:
        evidence = (
            found.size >= settings.birth_share if rescaled else evident(found, _of_groups(steady, groups), settings)
        )
    else:
        # A crescent lies between another one and its centre: valleys on the way between centres say nothing of it.
        evidence = prototypes.evident & (found.size >= settings.birth_share)
    if comparable:
        joined = _rejoin(groups, last.segments, found, evidence)
        if _groups(joined) < _groups(groups):
            groups = joined
            found = separation(z, groups[prototype], _groups(groups), people.weight)
            evidence = evident(found, _of_groups(steady, groups), settings)
    old = last.segments[before]
    matching = match(
        old, groups[prototype], people.weight, last.segment_ids, evidence, found.neighbour, next_number, settings
    )
    segments = matching.segments[groups]
    moved = float(people.weight[segments[prototype] != old].sum() / people.weight.sum())
    gain = _gain(z, last, scaler, prototypes.centres)
    return Candidate(scaler, prototypes.centres, segments, prototypes.radii, prototype, matching, steady, moved, gain)


def shadow(candidate: Candidate, people: People, last: Model, margin: float) -> tuple[Moves, float]:
    """What the candidate would move, and how much worse than it the last version now separates the people."""
    before = last.scale(_columns(people.features, candidate.scaler.features, last.features))
    z = candidate.scaler.transform(people.features)
    numbers = np.unique(candidate.segments)
    squared = cdist(z, candidate.centres, "sqeuclidean")
    after = np.sqrt(np.stack([squared[:, candidate.segments == n].min(axis=1) for n in numbers], axis=1))
    moves = expected_moves(last, before, after, numbers, people.weight, margin)
    old = silhouette(z, last.segments[last.nearest(before).prototype].astype(np.intp))
    new = silhouette(z, candidate.segments[candidate.prototype].astype(np.intp))
    return moves, (new or 0.0) - (old or 0.0)


def worth(
    candidate: Candidate, people: People, last: Model | None, calibration: FloatArray, settings: ReviewSettings
) -> bool:
    """Whether it serves the people better than the last version, and not merely differently: the learner's centres
    always tremble a little, and every version moves people. Or whether the last version has to be replaced: too many
    are outliers to it, or people have come to stay longer or shorter than its confidence says."""
    if last is None or candidate.events or uncovered(candidate.scaler.features, people, last, settings):
        return True
    # By chance alone, p new prototypes fit m people better than p old ones by about 2p/m.
    chance = 2.0 * len(candidate.centres) / len(people.features)
    if candidate.gain > settings.gain + chance and candidate.moved > settings.moved:
        return True
    then = np.asarray(last.calibration)
    return len(then) != len(calibration) or float(np.abs(calibration - then).mean()) > settings.confidence


def uncovered(features: tuple[str, ...], people: People, last: Model, settings: ReviewSettings) -> bool:
    """Whether too many people are outliers to the last version, or it is of other features than theirs."""
    if last.features != features or last.thresholds is None:
        return True
    beyond = last.nearest(last.scale(people.features)).distance > last.thresholds.distance
    return float(people.weight[beyond].sum()) > settings.outliers * float(people.weight.sum())


def build(
    candidate: Candidate,
    people: People,
    features: Sequence[FeatureInfo],
    last: Model | None,
    *,
    version: int,
    created_at: int,
    observations: int,
    drift: bool,
    ruling: Ruling,
    moves: Moves,
    trainer: Trainer,
    calibration: FloatArray,
    settings: ModellerSettings,
) -> Model:
    """The version to publish: radii, profiles, names, forest and thresholds, all measured on the panel."""
    scaler, weight = candidate.scaler, people.weight
    z = scaler.transform(people.features)
    rows = np.arange(len(z))
    squared = cdist(z, candidate.centres, "sqeuclidean")
    distance = np.sqrt(squared[rows, candidate.prototype])
    segment = candidate.segments[candidate.prototype]
    forest = trainer.train(z, scaler.weight)
    people_of = np.bincount(candidate.prototype, weight, len(candidate.centres))
    return Model(
        version=version,
        created_at=created_at,
        algorithm=settings.learner.algorithm,
        observations=observations,
        scaler=scaler,
        centres=candidate.centres,
        weights=people_of / people_of.sum(),
        segments=candidate.segments,
        radii=_radii(candidate, distance, weight, settings),
        thresholds=_thresholds(candidate, people, distance, forest, settings),
        quality=ModelQuality(
            panel=len(z),
            inertia=float(np.average(squared[rows, candidate.prototype], weights=weight)),
            silhouette=silhouette(z, segment.astype(np.intp)),
            moved=moves.share,
            drift=drift,
            promoted_by=ruling,
            expected_moves=tuple(
                ExpectedMove(from_=segment_id(a), to=segment_id(b), share=share)
                for (a, b), share in moves.by_pair.items()
            ),
        ),
        calibration=tuple(calibration.tolist()),
        profiles=_describe(candidate, people, segment, features, last, version, settings.names),
        lineage=candidate.matching.lineage,
        forest=forest,
    )


def _radii(candidate: Candidate, distance: FloatArray, weight: FloatArray, settings: ModellerSettings) -> FloatArray:
    if candidate.radii is not None:
        return candidate.radii
    quantile = settings.outliers.radius_quantile
    return radii(distance, candidate.prototype, weight, len(candidate.centres), quantile)


def _thresholds(
    candidate: Candidate, people: People, distance: FloatArray, forest: Forest | None, settings: ModellerSettings
) -> OutlierThresholds:
    """An outlier is one to the population as it stands, and to people at the moments at which they are looked at."""

    def measured(x: FloatArray, away: FloatArray, weight: FloatArray) -> OutlierThresholds:
        score = np.zeros(len(x)) if forest is None else forest.score(candidate.scaler.transform(x))
        return thresholds(score, away, weight, settings.outliers)

    recent = people.recent
    away = cdist(candidate.scaler.transform(recent), candidate.centres).min(axis=1)
    return widest(measured(people.features, distance, people.weight), measured(recent, away, np.ones(len(recent))))


def _describe(
    candidate: Candidate,
    people: People,
    segment: SegmentArray,
    features: Sequence[FeatureInfo],
    last: Model | None,
    version: int,
    own_names: Mapping[str, str],
) -> tuple[SegmentProfile, ...]:
    numbers = np.unique(candidate.segments)
    told = profiles(people.features, candidate.scaler, segment, people.weight, numbers)
    unchanged = {line.segment for line in candidate.matching.lineage if line.kind == "survived"}
    # The largest is named first, and gets the plainer of two names that are alike.
    order = np.argsort(-told.size, kind="stable")
    fixed: dict[int, str] = {}
    for place, i in enumerate(order.tolist()):
        identifier = segment_id(int(numbers[i]))
        if identifier in own_names:
            fixed[place] = own_names[identifier]
        elif last is not None and identifier in unchanged:
            fixed[place] = last.names[int(numbers[i])]
    names = dict(zip(order.tolist(), name_segments(told.z[order], features, fixed), strict=True))
    return tuple(
        SegmentProfile(
            id=segment_id(int(number)),
            name=names[i],
            born_version=_born(int(number), last, version),
            size=min(1.0, float(told.size[i])),
            means={f.name: _known(v) for f, v in zip(features, told.means[i].tolist(), strict=True)},
            z={f.name: v for f, v in zip(features, told.z[i].tolist(), strict=True)},
        )
        for i, number in enumerate(numbers.tolist())
    )


def _born(number: int, last: Model | None, version: int) -> int:
    profile = None if last is None else last.profile.get(number)
    return version if profile is None else profile.born_version


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _groups(groups: IndexArray) -> int:
    return int(groups.max()) + 1


def _of_groups(steady: NDArray[np.int64], groups: IndexArray) -> NDArray[np.int64]:
    """A group is as steady as its least steady prototype."""
    least = np.full(_groups(groups), np.iinfo(np.int64).max)
    np.minimum.at(least, groups, steady)
    return least


def _rejoin(groups: IndexArray, before: SegmentArray, found: Separation, evidence: NDArray[np.bool_]) -> IndexArray:
    """Groups that were one segment in the last version stay one, except those that have evidence of their own.

    `before` (p,) is each prototype's segment in the last version.
    """
    leader = np.arange(len(evidence))
    segment_of = np.zeros(len(evidence), np.int64)
    segment_of[groups] = before
    for segment in np.unique(segment_of).tolist():
        members = np.flatnonzero(segment_of == segment)
        largest = members[found.size[members].argmax()]
        leader[members[~evidence[members]]] = largest
    _, joined = np.unique(leader[groups], return_inverse=True)
    return joined.astype(np.intp)


def _gain(z: FloatArray, last: Model, scaler: Scaler, centres: FloatArray) -> float:
    if last.features != scaler.features:
        return np.inf
    before = inertia_of(z, last.scaler.map_to(scaler)(last.centres))
    return 1.0 - inertia_of(z, centres) / before if before > 0 else 0.0


def _columns(x: FloatArray, have: Sequence[str], want: Sequence[str]) -> FloatArray:
    """The columns `want` of features (m, F); one that is not there is unknown."""
    if tuple(have) == tuple(want):
        return x
    position = {name: j for j, name in enumerate(have)}
    result = np.full((len(x), len(want)), np.nan)
    for j, name in enumerate(want):
        if name in position:
            result[:, j] = x[:, position[name]]
    return result
