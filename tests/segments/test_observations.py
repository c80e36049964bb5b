"""Observations on the wire, and who gets observed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xxhash
import zstandard
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from stream.segments.observations import (
    LARGEST_RECORD,
    Observations,
    Sampler,
    SamplerSettings,
    feature_fingerprint,
    panel_position,
)
from stream.segments.packing import pack, unpack

HOUR, DAY = 3_600_000, 86_400_000
NOW = 1_700_000_000_000


def observations(features: NDArray[np.float64], seed: int = 0, **columns: Any) -> Observations:
    n, rng = len(features), np.random.default_rng(seed)
    values: dict[str, Any] = {
        "fingerprint": feature_fingerprint(["a", "b"]),
        "user_hash": rng.integers(0, 2**64, n, dtype=np.uint64),
        "at_ms": NOW + rng.integers(0, DAY, n),
        "segment": rng.integers(0, 7, n).astype(np.int32),
        "flags": rng.integers(0, 2, n).astype(np.uint8),
        "weight": rng.uniform(1, 50, n),
        "features": features,
    }
    return Observations(**values | columns)


def hashes(count: int) -> NDArray[np.uint64]:
    return np.array([xxhash.xxh3_64_intdigest(f"user-{i}".encode()) for i in range(count)], np.uint64)


def assert_same(a: Observations, b: Observations) -> None:
    assert a.fingerprint == b.fingerprint
    for name in ("user_hash", "at_ms", "segment", "flags", "weight", "features"):
        mine, theirs = getattr(a, name), getattr(b, name)
        assert mine.dtype == theirs.dtype
        assert mine.tobytes() == theirs.tobytes(), name


floats = st.floats(allow_infinity=False, width=64)


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 20), st.integers(1, 6)), elements=floats), st.integers(0, 99))
def test_a_batch_comes_back_to_the_bit(features: NDArray[np.float64], seed: int) -> None:
    seen = observations(features, seed)
    (record,) = seen.encode()
    assert_same(Observations.decode(record), seen)


def test_large_batches_are_split_below_the_limit_in_order() -> None:
    rng = np.random.default_rng(1)
    seen = observations(rng.normal(size=(12_000, 20)))
    records = seen.encode()
    assert len(records) > 1
    assert max(map(len, records)) < LARGEST_RECORD * 1.01
    parts = [Observations.decode(record) for record in records]
    assert np.array_equal(np.concatenate([p.features for p in parts]), seen.features)
    assert np.array_equal(np.concatenate([p.user_hash for p in parts]), seen.user_hash)
    assert observations(np.zeros((0, 3))).encode() == []


@settings(max_examples=200)
@given(st.data())
def test_damaged_records_are_a_clear_error_and_nothing_else(data: st.DataObject) -> None:
    (record,) = observations(np.arange(12.0).reshape(4, 3)).encode()
    damaged = bytearray(record)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(record) - 1))] ^= data.draw(st.integers(1, 255))
    damaged = damaged[: data.draw(st.integers(0, len(record)))]
    assume(bytes(damaged) != record)  # the same damage twice undoes itself
    with pytest.raises(ValueError, match=r"."):
        Observations.decode(bytes(damaged))


def test_a_record_that_claims_to_be_huge_gets_no_memory() -> None:
    (record,) = observations(np.arange(12.0).reshape(4, 3)).encode()
    frame = zstandard.get_frame_parameters(record[4:])
    small = zstandard.ZstdCompressor(write_checksum=True).compress(b"x" * 70_000)
    assert zstandard.get_frame_parameters(small).content_size == 70_000 and frame.content_size < 70_000
    # A content size of four bytes follows the two of magic's descriptor and window; make it the largest there is.
    huge = bytearray(small)
    at = huge.find((70_000).to_bytes(4, "little"))
    huge[at : at + 4] = b"\xff" * 4
    assert zstandard.frame_content_size(bytes(huge)) == 2**32 - 1
    with pytest.raises(ValueError, match="claim to hold 4294967295 bytes"):
        Observations.decode(record[:4] + bytes(huge))


@pytest.mark.parametrize("value", [b"", b"{}", b"RSA1", pack({}), pack({"user": np.zeros(1, np.uint64)})])
def test_what_is_no_observation_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"packed|lacks"):
        Observations.decode(value)


def test_infinity_and_odd_lengths_never_get_on_the_wire() -> None:
    with pytest.raises(ValueError, match="infinite"):
        observations(np.array([[np.inf]]))
    with pytest.raises(ValueError, match="lengths"):
        observations(np.zeros((2, 1)), weight=np.ones(3))
    with pytest.raises(ValueError, match="weight"):
        observations(np.zeros((1, 1)), weight=np.array([np.nan]))


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.one_of(
            hnp.arrays(st.sampled_from(["<f8", "<i4", "|u1", "|b1", "<u8"]), hnp.array_shapes(max_dims=3, max_side=4)),
        ),
        max_size=5,
    )
)
def test_packing_keeps_names_types_shapes_and_bits(arrays: dict[str, NDArray[Any]]) -> None:
    again, meta = unpack(pack(arrays, {"x": [1, "two", None]}))
    assert meta == {"x": [1, "two", None]}
    assert list(again) == list(arrays)
    for name, array in arrays.items():
        assert (again[name].dtype, again[name].shape) == (array.dtype, array.shape)
        assert again[name].tobytes() == array.tobytes()


def test_packing_refuses_objects() -> None:
    with pytest.raises(ValueError, match="plain numbers"):
        pack({"x": np.array([object()])})


# -- sampling ---------------------------------------------------------------------------------------------------------


def select(
    sampler: Sampler, user_hash: NDArray[np.uint64], segment: NDArray[np.int32], observed: int = 0, seen: int = NOW
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    n = len(user_hash)
    numbers, counts = np.unique(segment, return_counts=True)
    population = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    return sampler.select(user_hash, segment, np.full(n, observed), np.full(n, seen), NOW, population)


def test_the_panel_is_about_as_large_as_asked_for_and_its_weights_add_up_to_the_population() -> None:
    users = hashes(40_000)
    segment = np.zeros(len(users), np.int32)
    chosen, weight = select(Sampler(SamplerSettings(panel=2_000), 1), users, segment)
    assert 2_000 / 2**0.25 * 0.9 < chosen.sum() <= 2_000 * 1.05
    assert abs(weight[chosen].sum() / len(users) - 1) < 0.08


def test_partitions_share_the_panel() -> None:
    users = hashes(40_000)
    total = sum(
        select(Sampler(SamplerSettings(panel=2_000), 4), users[p::4], np.zeros(10_000, np.int32))[0].sum()
        for p in range(4)
    )
    assert 1_500 < total < 2_200


def test_a_small_segment_gets_its_share_and_weights_undo_it() -> None:
    users = hashes(50_000)
    segment = np.where(np.arange(len(users)) % 100 == 0, 2, 1).astype(np.int32)
    chosen, weight = select(Sampler(SamplerSettings(panel=2_000), 1), users, segment)
    small = chosen & (segment == 2)
    assert small.sum() > 400, "1% of the people, but far more of the panel"
    assert abs(weight[small].sum() / 500 - 1) < 0.1
    assert abs(weight[chosen].sum() / len(users) - 1) < 0.1


def test_built_in_segments_are_never_observed_and_a_small_population_is_taken_whole() -> None:
    users = hashes(300)
    segment = (np.arange(300) % 4 - 2).astype(np.int32)  # -2 quarantine, -1 newcomers, 0, 1
    chosen, weight = select(Sampler(SamplerSettings(), 1), users, segment)
    assert chosen.tolist() == (segment >= 0).tolist()
    assert (weight[chosen] == 1).all()


def test_the_panel_stays_the_same_people_while_the_population_grows() -> None:
    sampler = Sampler(SamplerSettings(panel=1_000), 1)
    users = hashes(40_000)
    before, _ = select(sampler, users[:20_000], np.zeros(20_000, np.int32))
    grown, _ = select(sampler, users[:20_500], np.zeros(20_500, np.int32))
    doubled, _ = select(sampler, users, np.zeros(40_000, np.int32))
    assert (before == grown[:20_000]).mean() > 0.98
    assert not (doubled[:20_000] & ~before).any(), "a threshold that falls lets nobody new in"


@given(st.dictionaries(st.integers(-2, 12), st.integers(0, 100_000), max_size=12), st.integers(1, 64), st.floats(0, 1))
def test_shares_are_shares_and_the_quota_is_kept(population: dict[int, int], partitions: int, even: float) -> None:
    sampler = Sampler(SamplerSettings(panel=500, even=even), partitions)
    shares = sampler.share(population)
    people = {s: n for s, n in population.items() if s >= 0 and n > 0}
    assert shares.keys() == people.keys()
    assert all(0 < share <= 1 for share in shares.values())
    assert sum(share * people[s] for s, share in shares.items()) <= 500 / partitions * (1 + 1e-9)


def test_due_after_the_interval_or_with_growing_silence() -> None:
    config = SamplerSettings(interval="1h", sweep_interval="1d", backoff=0.5)
    sampler = Sampler(config, 1)

    def due(last_observed: int, last_seen: int) -> bool:
        chosen, _ = sampler.select(
            hashes(1), np.zeros(1, np.int32), np.array([last_observed]), np.array([last_seen]), NOW, {0: 1}
        )
        return bool(chosen[0])

    assert due(0, NOW)  # never observed
    assert not due(NOW - HOUR + 1, NOW)
    assert due(NOW - HOUR, NOW)  # did something since
    assert not due(NOW - HOUR, NOW - 2 * HOUR)  # nothing since
    assert due(NOW - DAY, NOW - DAY - HOUR)
    assert not due(NOW - 5 * DAY + 1, NOW - 15 * DAY)  # was silent for 10 days then: due half as much later
    assert due(NOW - 5 * DAY, NOW - 15 * DAY)


def test_a_silent_user_is_observed_a_few_dozen_times_in_years() -> None:
    sampler = Sampler(SamplerSettings(), 1)
    observed, times = 0, 0
    for at in range(NOW, NOW + 3 * 365 * DAY, 6 * HOUR):
        chosen, _ = sampler.select(hashes(1), np.zeros(1, np.int32), np.array([observed]), np.array([NOW]), at, {0: 1})
        if chosen[0]:
            observed, times = at, times + 1
    assert 10 < times < 40


def test_positions_are_uniform_lasting_and_independent_of_the_raw_hash() -> None:
    users = hashes(20_000)
    position = panel_position(users)
    assert ((position >= 0) & (position < 1)).all()
    assert np.abs(np.histogram(position, 20, (0, 1))[0] / 1_000 - 1).max() < 0.15
    raw = users.astype(np.float64) / 2.0**64
    assert abs(float(np.corrcoef(position, raw)[0, 1])) < 0.03
    # The published value of splitmix64's finaliser at 1: the panel must not change with a release.
    assert panel_position(np.array([1], np.uint64))[0] == (0x5692161D100B05E5 >> 11) / 2**53


def test_fingerprint_tells_order_and_names_apart() -> None:
    assert len({feature_fingerprint(names) for names in (["a", "b"], ["b", "a"], ["ab"], ["a"], ["a", "b", ""])}) == 5


def test_there_is_at_least_one_partition() -> None:
    with pytest.raises(ValueError, match="partition"):
        Sampler(SamplerSettings(), 0)
