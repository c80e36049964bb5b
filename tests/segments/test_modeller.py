"""The modeller: batching, crashes and restarts change nothing; versions follow the people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from river.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from schemas import topics
from schemas.model import SegmentModel
from stream.anomalies.forest import ForestSettings
from stream.runtime.stage import Output
from stream.segments.modeller import Modeller
from stream.segments.observations import QUARANTINED, Observations, feature_fingerprint
from stream.segments.prototypes import Model
from stream.segments.scaling import Feature
from stream.segments.settings import LearnerSettings, ModellerSettings, ReviewSettings, WarmUpSettings
from stream.transport.base import OutRecord

FloatArray = NDArray[np.float64]
HOUR = 3_600_000
START = 1_700_000_000_000
FEATURES = [Feature("spend", "Spend", log=True), Feature("visits"), Feature("days"), Feature("constant")]
QUICK = ModellerSettings(
    learner=LearnerSettings(segments=3, restarts=3),
    warm_up=WarmUpSettings(users=80, fewest=40),
    review=ReviewSettings(observations=150, fewest=60, drift_fewest=40, drift_interval=0),
    forest=ForestSettings(trees=5, height=5, rows=200),
    buffer=200,
    checkpoint_observations=100,
)


class Given(NamedTuple):
    """A record as a transport gives it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class People:
    """A population whose kinds can be moved about: `rows(n)` observes n of its users."""

    def __init__(self, users: int = 150, kinds: int = 3, seed: int = 0, features: Sequence[Feature] = FEATURES) -> None:
        self.rng = np.random.default_rng(seed)
        self.features = features
        self.kind = self.rng.integers(0, kinds, users)
        self.centre = np.array([[2.0, 2, 2], [8, 2, 8], [2, 8, 8], [8, 8, 2], [5, -2, 12]])
        self.at = START

    def observe(self, n: int, gap: int = 60_000) -> Observations:
        user = self.rng.integers(0, len(self.kind), n)
        x = np.full((n, len(self.features)), 4.0)
        x[:, :3] = self.centre[self.kind[user]] + self.rng.normal(0, 0.7, (n, 3))
        x[:, 0] = np.exp(x[:, 0] / 2)
        x[self.rng.random(n) < 0.1, 2] = np.nan
        self.at += n * gap
        return observed(user, self.at + np.arange(n) * gap, x, self.features)


def observed(
    user: NDArray[Any], at: NDArray[Any], x: FloatArray, features: Sequence[Feature] = FEATURES, flags: int = 0
) -> Observations:
    n = len(user)
    return Observations(
        feature_fingerprint([f.name for f in features]),
        user.astype(np.uint64) + np.uint64(2**63),
        at.astype(np.int64),
        np.zeros(n, np.int32),
        np.full(n, flags, np.uint8),
        np.ones(n),
        x,
    )


def cut(seen: Observations, start: int, stop: int) -> Observations:
    part = slice(start, stop)
    return Observations(
        seen.fingerprint,
        seen.user_hash[part],
        seen.at_ms[part],
        seen.segment[part],
        seen.flags[part],
        seen.weight[part],
        seen.features[part],
    )


def records(parts: Sequence[Observations], offset: int = 0) -> list[Given]:
    values = [value for part in parts for value in part.encode()]
    return [Given(topics.OBSERVATIONS, 0, offset + i, START, None, value) for i, value in enumerate(values)]


def feed(modeller: Modeller, *parts: Observations) -> Output:
    return modeller.process({0: records(parts)}, None)


def fresh(config: ModellerSettings = QUICK, features: Sequence[Feature] = FEATURES) -> Modeller:
    modeller = Modeller(features, config)
    modeller.restore(0, ())
    return modeller


def restored(output: Output, config: ModellerSettings = QUICK, features: Sequence[Feature] = FEATURES) -> Modeller:
    """A modeller on another machine that read this output's checkpoint."""
    delta = output.state[0]
    assert delta.keeps == 1
    modeller = Modeller(features, config)
    modeller.restore(0, iter([(delta.meta, delta.payload)]))
    return modeller


def published(out: Sequence[OutRecord]) -> list[Model]:
    return [Model.from_bytes(record.value) for record in out if record.value is not None]


@pytest.fixture(scope="module")
def stream() -> Observations:
    """900 observations in which a kind is born and drift sets in, so that there are versions and lineage."""
    people = People()
    parts = [people.observe(400)]
    people.kind[people.rng.random(len(people.kind)) < 0.3] = 3
    parts.append(people.observe(300))
    people.centre += 4
    parts.append(people.observe(200))
    names = ("user_hash", "at_ms", "segment", "flags", "weight", "features")
    return Observations(parts[0].fingerprint, *(np.concatenate([getattr(p, n) for p in parts]) for n in names))


@pytest.fixture(scope="module")
def expected(stream: Observations) -> list[OutRecord]:
    """What one record with everything gives."""
    out = feed(fresh(), stream).records
    assert len(out) >= 3, "a stream without versions would prove nothing"
    return out


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_how_observations_were_batched_does_not_matter(
    stream: Observations, expected: list[OutRecord], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=25)))
    parts = [cut(stream, a, b) for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    modeller = fresh()
    out: list[OutRecord] = []
    while parts:
        n = data.draw(st.integers(1, 4))
        out += feed(modeller, *parts[:n]).records
        parts = parts[n:]
    assert out == expected


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_crashes_change_nothing(stream: Observations, expected: list[OutRecord], data: st.DataObject) -> None:
    """Records of ten rows; what was committed is the last output that asked for it. Crash wherever."""
    parts = [cut(stream, a, a + 10) for a in range(0, len(stream), 10)]
    modeller, at, committed_at = fresh(), 0, 0
    out: list[OutRecord] = []
    pending: list[OutRecord] = []
    last: Output | None = None
    crashes = set(data.draw(st.lists(st.integers(1, 150), max_size=6)))
    step = 0
    while at < len(parts):
        step += 1
        if step in crashes:
            modeller, at, pending = fresh() if last is None else restored(last), committed_at, []
        output = feed(modeller, parts[at])
        at += 1
        pending += output.records
        if output.commit:
            out += pending
            last, committed_at, pending = output, at, []
        else:
            assert not output.records, "a publish must be committed"
            assert not output.state
    assert out == expected


def test_wall_clock_decides_checkpoints_only() -> None:
    people = People()
    modeller = fresh()
    assert not modeller.process({0: records([people.observe(20)])}, 1_000).commit
    assert modeller.tick(None) is None
    assert modeller.tick(2_000) is None
    late = modeller.tick(2_000 + QUICK.checkpoint_interval)
    assert late is not None
    assert late.commit
    assert late.records == []
    assert modeller.tick(10**12) is None, "nothing new to save"
    again = restored(late)
    part = people.observe(120)
    assert feed(again, part).records == feed(modeller, part).records != []


def test_the_first_model_waits_for_users_or_patience() -> None:
    people = People(users=1_000)
    modeller = fresh()
    assert feed(modeller, observed(np.zeros(500), START + np.arange(500), people.observe(500).features)).records == []
    assert modeller.model is None, "one user is no population, however often observed"
    assert published(feed(modeller, people.observe(200)).records)[0].version == 1

    few = People(users=45)
    patient = fresh()
    assert feed(patient, few.observe(300, gap=1)).records == []
    few.at += 6 * HOUR
    assert len(feed(patient, few.observe(1)).records) == 1, "40 of 45 users are enough after three halvings"


def test_people_who_are_all_alike_give_no_model_and_no_crash() -> None:
    modeller = fresh()
    user = np.arange(2_000) % 100
    assert feed(modeller, observed(user, START + np.arange(2_000), np.full((2_000, 4), 3.0))).records == []
    assert modeller.counters["reviews"] < 30
    out = feed(modeller, People().observe(300)).records
    assert published(out)[-1].version >= 1


def test_what_is_published_scores_as_river_does() -> None:
    people = People()
    modeller = fresh()
    model = published(feed(modeller, people.observe(140)).records)[-1]
    # The centres are River's own at this moment; the shipped ones must lead to River's predict_one.
    river: Any = KMeans(n_clusters=3, halflife=0.01)
    for number, row in enumerate(model.centres.tolist()):
        river.centers[number].update(enumerate(row))
    assert modeller.learner is not None
    z = model.scale(people.observe(300).features)
    assert model.nearest(z).prototype.tolist() == [river.predict_one(dict(enumerate(row))) for row in z.tolist()]
    truth = People()
    seen = truth.observe(300)
    known = ~np.isnan(seen.features).any(axis=1)
    kinds = truth.kind[(seen.user_hash - np.uint64(2**63)).astype(np.intp)]
    found = model.segments[model.nearest(model.scale(seen.features)).prototype]
    assert adjusted_rand_score(kinds[known], found[known]) > 0.95


def test_a_published_record_is_complete_and_below_a_megabyte() -> None:
    out = feed(fresh(), People().observe(160)).records[0]
    assert (out.topic, out.key, out.partition) == (topics.SEGMENT_MODEL, b"000000000001", 0)
    assert out.value is not None
    assert len(out.value) < 1_000_000
    record = SegmentModel.model_validate_json(out.value)
    assert record.version == 1
    assert record.created_at == out.timestamp
    assert [s.feature for s in record.scales] == ["spend", "visits", "days", "constant"]
    assert [s.weight for s in record.scales] == [1, 1, 1, 0]
    assert {line.kind for line in record.lineage} == {"born"}
    assert len({p.name for p in record.profiles}) == len(record.profiles) == 3
    assert sum(p.size for p in record.profiles) == pytest.approx(1)
    assert sum(record.prototypes.weights) == pytest.approx(1)
    assert record.forest is not None
    means = [p.means["spend"] for p in record.profiles]
    assert all(m is not None and m > 0 for m in means)
    assert all(p.means["constant"] == 4.0 for p in record.profiles)


def test_a_calm_population_gets_no_new_versions() -> None:
    """River's centres tremble all the time; that is no reason to relabel anybody."""
    people = People(users=600)
    modeller = fresh(QUICK.model_copy(update={"buffer": 700, "warm_up": WarmUpSettings(users=400)}))
    out = feed(modeller, people.observe(4_500)).records
    assert modeller.counters["reviews"] >= 20
    assert len(out) <= 2


def test_ids_last_through_drift_birth_and_death() -> None:
    people = People(users=300)
    modeller = fresh(QUICK.model_copy(update={"buffer": 400}))
    feed(modeller, people.observe(600))
    assert modeller.model is not None

    def of_kind(kind: int) -> int:
        assert modeller.model is not None
        x = people.observe(600)
        users = (x.user_hash - np.uint64(2**63)).astype(np.intp)
        found = modeller.model.segments[modeller.model.nearest(modeller.model.scale(x.features)).prototype]
        return int(np.bincount(found[people.kind[users] == kind]).argmax())

    before = [of_kind(kind) for kind in range(3)]
    for _ in range(30):
        people.centre += 0.15
        feed(modeller, people.observe(150))
    assert [of_kind(kind) for kind in range(3)] == before
    lineage = []
    people.kind[people.kind == 2] = 4  # everybody of one kind turns into another, far away
    for _ in range(10):
        lineage += [line for m in published(feed(modeller, people.observe(300)).records) for line in m.lineage]
    assert [of_kind(kind) for kind in (0, 1)] == before[:2]
    born = {line.segment for line in lineage if line.kind in ("born", "split")}
    died = {line.segment for line in lineage if line.kind == "died"}
    assert not born & {f"seg-{n}" for n in before}
    assert of_kind(4) == before[2] or f"seg-{before[2]}" in died
    assert len(modeller.model.segment_ids) == 3


def test_names_stay_with_their_segments_and_yours_win() -> None:
    people = People(users=300)
    modeller = fresh(QUICK.model_copy(update={"names": {"seg-2": "VIPs"}}))
    names: dict[int, str] = {}
    for _ in range(20):
        people.centre += 0.2
        for model in published(feed(modeller, people.observe(150)).records):
            survived = {line.segment for line in model.lineage if line.kind == "survived"}
            for number, name in model.names.items():
                if f"seg-{number}" in survived:
                    assert name == names[number]
            names |= model.names
    assert names[2] == "VIPs"
    assert modeller.model is not None
    assert modeller.model.version > 2


def test_drift_asks_for_a_review_before_it_is_due() -> None:
    calm = QUICK.model_copy(
        update={"review": ReviewSettings(observations=100_000, fewest=50_000, drift_fewest=40, drift_interval=HOUR)}
    )
    people = People(users=200)
    modeller = fresh(calm)
    feed(modeller, people.observe(900))
    assert modeller.counters["drift_reviews"] == 0
    assert modeller.model is not None
    version = modeller.model.version
    people.centre += 3
    out = published(feed(modeller, people.observe(900)).records)
    assert modeller.counters["drift_reviews"] >= 1
    assert out[0].version == version + 1
    assert out[0].quality.drift


def test_quarantined_users_neither_train_nor_stay() -> None:
    people = People()
    modeller = fresh()
    feed(modeller, people.observe(400))
    held = len(modeller.panel)
    learned = modeller.counters["observations"]
    users = (modeller.panel.user_hash[:5] - np.uint64(2**63)).copy()
    feed(modeller, observed(users, np.full(5, people.at), np.full((5, 4), 1e9), flags=QUARANTINED))
    assert len(modeller.panel) == held - 5
    assert modeller.counters["observations"] == learned


def test_poison_is_passed_over_and_counted() -> None:
    modeller = fresh()
    good = People().observe(30)
    other = observed(np.arange(7), np.full(7, START), np.zeros((7, 2)), FEATURES[:2])
    poison = [Given(topics.OBSERVATIONS, 0, 1, START, None, value) for value in (b"\x00junk", None, *other.encode())]
    modeller.process({0: [*records([good]), *poison]}, None)
    assert modeller.counters["observations"] == 30
    assert modeller.counters["skipped_records"] == 2
    assert modeller.counters["skipped_rows"] == 7


def test_another_number_of_segments_takes_effect_and_keeps_ids() -> None:
    people = People(users=300)
    modeller = fresh()
    output = feed(modeller, people.observe(400))
    assert modeller.model is not None
    before = set(modeller.model.segment_ids.tolist())
    more = QUICK.model_copy(update={"learner": LearnerSettings(segments=5, restarts=3)})
    other = restored(output, more)
    out = published(feed(other, people.observe(120)).records)
    assert len(out[0].centres) == 5
    kinds = {line.segment: line.kind for line in out[0].lineage}
    assert sum(kind == "survived" for kind in kinds.values()) >= 2
    fresh_ids = set(out[0].segment_ids.tolist()) - before
    assert all(n > max(before) for n in fresh_ids)


def test_features_may_change_without_losing_identities() -> None:
    people = People(users=300)
    modeller = fresh()
    output = feed(modeller, people.observe(500))
    assert modeller.model is not None
    before = modeller.model
    changed = [FEATURES[2], Feature("new"), FEATURES[0], FEATURES[1]]
    other = restored(output, features=changed)
    seen = people.observe(200)
    x = np.column_stack([seen.features[:, 2], people.rng.normal(size=200), seen.features[:, 0], seen.features[:, 1]])
    users = seen.user_hash - np.uint64(2**63)
    out = published(feed(other, observed(users, seen.at_ms, x, changed)).records)
    assert out[0].features == ("days", "new", "spend", "visits")
    assert out[0].version == before.version + 1
    old = before.segments[before.nearest(before.scale(seen.features)).prototype]
    new = out[0].segments[out[0].nearest(out[0].scale(x)).prototype]
    assert (old == new).mean() > 0.9
    assert "survived" in {line.kind for line in out[0].lineage}


def test_state_of_another_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    output = feed(fresh(), People().observe(200))
    monkeypatch.setattr("stream.segments.modeller.STATE_FORMAT", 3)
    with pytest.raises(ValueError, match="state rebuild --stage modeller"):
        restored(output)


def test_old_versions_are_deleted() -> None:
    people = People(users=300)
    modeller = fresh(QUICK.model_copy(update={"keep_versions": 2}))
    out: list[OutRecord] = []
    while len(published(out)) < 4:
        people.centre += 1
        out += feed(modeller, people.observe(150)).records
    assert [(r.key, r.value is None) for r in out if r.value is None][:2] == [
        (b"000000000001", True),
        (b"000000000002", True),
    ]


def test_giving_up_forgets_everything() -> None:
    modeller = fresh()
    feed(modeller, People().observe(300))
    modeller.drop(0)
    assert modeller.model is None
    assert len(modeller.panel) == 0
    assert modeller.counters["observations"] == 0
