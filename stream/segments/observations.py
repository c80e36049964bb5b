"""Observations: which users the modeller gets to see, and how their feature vectors travel.

Invariants. Sampling is by user, not by event: whether a user is in the panel follows from a hash of the id and from
the segment alone, so that heavy users do not become the population, and the panel stays the same people. Each
observation carries the number of people it stands for (`weight`), so that population statistics can undo the
stratification. A batch decodes to the same bits that were encoded; rows hold finite values or NaN (unknown).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from stream.durations import Duration
from stream.segments.packing import pack, unpack

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

QUARANTINED: Final = 1
"""Flag: the user was put into quarantine. Not to be learned; the modeller forgets the user's earlier rows."""

# Kafka's default limit for a message is 1 MiB; float noise does not compress, so the raw size is what counts.
LARGEST_RECORD: Final = 900_000
_ROW_BYTES: Final = 8 + 8 + 4 + 1 + 8


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """n feature vectors of F features under the feature set that `fingerprint` names."""

    fingerprint: int
    """Of the declared features, 0 to 2**64 - 1."""
    user_hash: NDArray[np.uint64]
    """(n,)"""
    at_ms: NDArray[np.int64]
    """(n,) the time at which the features were evaluated"""
    segment: NDArray[np.int32]
    """(n,) the user's segment then: 0 is none"""
    flags: NDArray[np.uint8]
    """(n,)"""
    weight: FloatArray
    """(n,) how many people each row stands for, >= 1"""
    features: FloatArray
    """(n, F), NaN where unknown"""

    def __post_init__(self) -> None:
        n = len(self.user_hash)
        if self.features.ndim != 2 or len(self.features) != n:
            raise ValueError(f"{n} users, but features of shape {self.features.shape}")
        if not len(self.at_ms) == len(self.segment) == len(self.flags) == len(self.weight) == n:
            raise ValueError(f"{n} users, but columns of other lengths")
        if np.isinf(self.features).any():
            raise ValueError("a feature is infinite; unknown is NaN, and anything else must be finite")
        if not (np.isfinite(self.weight) & (self.weight > 0)).all():
            raise ValueError("every weight must be a positive number of people")

    def __len__(self) -> int:
        return len(self.user_hash)

    def encode(self) -> list[bytes]:
        """Records for the observations topic, in order, each below a broker's default size limit; none if empty."""
        rows = max(1, LARGEST_RECORD // (_ROW_BYTES + 8 * self.features.shape[1]))
        return [self._encode(slice(start, start + rows)) for start in range(0, len(self), rows)]

    def _encode(self, part: slice) -> bytes:
        return pack(
            {
                "user": self.user_hash[part],
                "at": self.at_ms[part],
                "segment": self.segment[part],
                "flags": self.flags[part],
                "weight": self.weight[part],
                # By feature: neighbours are alike, which compresses.
                "features": self.features[part].T,
            },
            {"fingerprint": self.fingerprint},
        )

    @classmethod
    def decode(cls, value: bytes) -> Observations:
        """One record of the topic. Raises ValueError where it is damaged or no observation."""
        arrays, meta = unpack(value)
        try:
            return cls(
                fingerprint=int(meta["fingerprint"]),
                user_hash=arrays["user"].astype(np.uint64),
                at_ms=arrays["at"].astype(np.int64),
                segment=arrays["segment"].astype(np.int32),
                flags=arrays["flags"].astype(np.uint8),
                weight=arrays["weight"].astype(np.float64),
                features=np.ascontiguousarray(arrays["features"].T, np.float64),
            )
        except KeyError as error:
            raise ValueError(f"an observation record lacks {error}") from error


def feature_fingerprint(names: Sequence[str]) -> int:
    """Of the features that an observation carries, by name and order."""
    return xxhash.xxh3_64_intdigest("\x00".join(names).encode())


class SamplerSettings(BaseModel):
    """Who is observed, and how often."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    panel: int = Field(default=4_000, ge=100, le=1_000_000, description="Users observed, over all partitions")
    even: float = Field(
        default=0.5, ge=0, le=1, description="Share of the panel divided equally between segments, not by their size"
    )
    interval: Duration = Field(default=3_600_000, description="A user is observed at most once in this time")
    sweep_interval: Duration = Field(default=86_400_000, description="The same for users to whom nothing happened")
    backoff: float = Field(
        default=0.5, ge=0, description="... and then again only when the silence has grown by this share"
    )


class Sampler:
    """Chooses users to observe, for one partition of `partitions`."""

    def __init__(self, settings: SamplerSettings, partitions: int) -> None:
        if partitions < 1:
            raise ValueError(f"there is at least one partition, not {partitions}")
        self.settings = settings
        self.quota = settings.panel / partitions

    def share(self, population: Mapping[int, int]) -> dict[int, float]:
        """The share of each segment's users that is in the panel, by segment number.

        `population` counts this partition's users by segment (0: unassigned), built-in segments left out. Part of
        the panel follows the segments' sizes and part is divided equally; what a small segment cannot use goes to
        the others. Shares are powers of 2**(1/4), so that the panel does not change with every newcomer.
        """
        sizes = {segment: count for segment, count in sorted(population.items()) if segment >= 0 and count > 0}
        total = sum(sizes.values())
        even = self.settings.even
        shares: dict[int, float] = {}
        quota, open_total, remaining = self.quota, total, len(sizes)
        # From the smallest: a segment that is taken whole leaves the rest of its part to the larger ones.
        for segment, count in sorted(sizes.items(), key=lambda item: (item[1], item[0])):
            wanted = quota * (even / remaining + (1.0 - even) * count / open_total)
            shares[segment] = _quantised(min(1.0, wanted / count))
            quota -= min(wanted, float(count))
            open_total -= count
            remaining -= 1
        return shares

    def select(
        self,
        user_hash: NDArray[np.uint64],
        segment: NDArray[np.int32],
        last_observed_ms: NDArray[np.int64],
        last_seen_ms: NDArray[np.int64],
        at_ms: int | NDArray[np.int64],
        population: Mapping[int, int],
        changed: BoolArray | None = None,
    ) -> tuple[BoolArray, FloatArray]:
        """Which of m users to observe now, and the weight of each.

        Parameters, each (m,): hash of the user id; segment number (users in a built-in one, below 0, are never
        chosen: neither newcomers nor the quarantined); when the user was last observed (0: never) and last did
        something; `at_ms` is the time at which the features were evaluated (one, or one each); who `changed` the
        segment since the last observation, and is due at once: confidence counts from there.

        A user who did something since the last observation is due after `interval`; a silent one after
        `sweep_interval`, and later only as the silence grows in proportion: a silent user's features move on a
        logarithmic scale, so they are observed on one. That bounds the observations of a user who never
        returns to a few dozen in years.
        """
        shares = self.share(population)
        numbers = np.array(sorted(shares), np.int32)
        share = np.array([shares[s] for s in numbers.tolist()], np.float64)
        if not len(numbers) or not len(user_hash):
            return np.zeros(len(user_hash), bool), np.ones(len(user_hash))
        column = np.minimum(np.searchsorted(numbers, segment), len(numbers) - 1)
        own = np.where(numbers[column] == segment, share[column], 0.0)
        chosen = panel_position(user_hash) < own
        since = at_ms - last_observed_ms
        silence_then = last_observed_ms - last_seen_ms
        patience = np.where(
            silence_then < 0,
            float(self.settings.interval),
            np.maximum(float(self.settings.sweep_interval), self.settings.backoff * silence_then),
        )
        due = (last_observed_ms <= 0) | (since >= patience)
        chosen &= due if changed is None else due | changed
        return chosen, np.divide(1.0, own, out=np.ones(len(own)), where=own > 0)


def panel_position(user_hash: NDArray[np.uint64]) -> FloatArray:
    """(m,) in [0, 1), uniform and lasting: users below a threshold form the panel.

    The hash is mixed once more (splitmix64's finaliser), so that the panel is independent of everything else that
    is decided by the same hash, such as holdouts.
    """
    x = user_hash.astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _quantised(share: float) -> float:
    """The largest power of 2**(1/4) that is not above."""
    if share >= 1.0:
        return 1.0
    return float(2.0 ** (np.floor(4.0 * np.log2(share)) / 4.0))
