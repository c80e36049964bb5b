"""The records that a decision causes: the change, the membership, the anomaly. Bytes out, in one place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
import xxhash
from numpy.typing import NDArray

from schemas import topics
from schemas.cloudevents import headers as cloudevent_headers
from schemas.membership import membership_key
from schemas.types import CAUSES
from stream.segments.assign import BUILT_IN_NAMES, segment_name
from stream.segments.templates import Template
from stream.transport.base import OutRecord, out_records

WHY_FEATURES = 3

FloatArray = NDArray[np.float64]


def change_id(user_id: str, sequence: int) -> str:
    """Deterministic: the same user's same change has the same id, however often it is computed."""
    return xxhash.xxh3_128_hexdigest(f"{user_id}\x00{sequence}".encode())


class Moved(NamedTuple):
    """One user's move, with what is needed to write it down. What is bytes is JSON already: thousands share it."""

    user_id: str
    sequence: int
    left: bytes
    """A SegmentRef or null, see `reference`."""
    entered: bytes
    cause: int
    occurred_at: int
    detected_at: int
    confidence: bytes
    why: bytes
    source: bytes
    """A SourcePosition or null."""
    event_id: bytes
    """A text or null."""


class Moves(NamedTuple):
    """The moves of m users, by columns: lists of length m of what `Moved` says of one."""

    user_id: list[str]
    sequence: list[int]
    left: list[bytes]
    entered: list[bytes]
    cause: list[int]
    occurred_at: list[int]
    detected_at: list[int]
    confidence: list[bytes]
    why: list[bytes]
    source: list[bytes]
    event_id: list[bytes]

    @classmethod
    def of(cls, moves: Sequence[Moved]) -> Moves:
        """Of at least one."""
        return cls(*map(list, zip(*moves, strict=True)))

    def some(self, at: Sequence[int]) -> Moves:
        """The moves of some users."""
        columns: Iterator[Any] = ([column[i] for i in at] for column in self)
        return Moves(*columns)


class Outlying(NamedTuple):
    """Of m moves into quarantine ("entered") or out of it ("released") what was measured, and the model's limits."""

    kinds: list[str]
    scores: list[float]
    score_threshold: float
    distances: list[float]
    distance_threshold: float


NULL: Final = b"null"


def reference(segment: int, names: dict[int, str]) -> bytes:
    """A segment as a SegmentRef in JSON, or null where there is none."""
    identifier = segment_name(segment)
    if identifier is None:
        return NULL
    return orjson.dumps({"id": identifier, "name": BUILT_IN_NAMES.get(segment) or names.get(segment)})


def numbers(values: NDArray[Any]) -> list[bytes]:
    """Each of m numbers as JSON; NaN is null."""
    return orjson.dumps(values.tolist())[1:-1].split(b",") if len(values) else []


_REASON: Final = b'{"feature":%b,"value":%b,"segment_mean":%b,"z":%b}'
_REASONS: Final = [Template(b"[" + b",".join([_REASON] * count) + b"]") for count in range(WHY_FEATURES + 1)]
"""By the number of reasons that there are."""


class Reasons:
    """Says of each of many users which features speak most for the new segment against the old one.

    Parameters: the learned features, what each segment's people have of them on average, and the scale's `weight` (d,),
    without which the `z` that people read is in standard deviations.
    """

    def __init__(
        self, features: Sequence[str], means: Mapping[int, Mapping[str, float | None]], weight: FloatArray
    ) -> None:
        self._names = [orjson.dumps(name) for name in features]
        self._rows = {segment: row for row, segment in enumerate(means, start=1)}
        self._means = [NULL] * len(features)
        """Of each feature, segment by segment; first comes the row of those that have none."""
        for own in means.values():
            self._means += [orjson.dumps(own.get(name)) for name in features]
        self._weight = np.where(weight > 0, weight, 1.0)

    def of(
        self, x: FloatArray, z: FloatArray, old: FloatArray, new: FloatArray, segments: Sequence[int]
    ) -> list[bytes]:
        """The list of reasons of each user, in JSON.

        Features `x` (m, d), scaled `z` (m, d), the centres of both segments (m, d), and the new one's number. A
        feature's part in the decision is how much of the squared distance it saves: (z - old)² - (z - new)². Without an
        old segment that is the population's own place, the origin of the scaled axes. A row of NaN in `new` says that
        there is none: then the features that are furthest from the old one speak, for they gave an outlier away.
        """
        towards = (z - new) ** 2
        part = (z - old) ** 2 - np.where(np.isnan(towards), 0.0, towards)
        best = np.argsort(-part, axis=1, kind="stable")[:, :WHY_FEATURES]
        d, width = z.shape[1], best.shape[1]
        feature = best.ravel()
        at = np.repeat(np.arange(0, z.size, d), width) + feature
        speaks = (part.take(at) > 0).reshape(best.shape).sum(axis=1)
        values = numbers(x.take(at))
        deviations = numbers(np.round(z.take(at) / self._weight[feature], 3))
        rows = [self._rows.get(segment, 0) * d for segment in segments]
        means = (np.repeat(rows, width) + feature).tolist()
        columns: tuple[list[bytes], ...] = (
            list(map(self._names.__getitem__, feature.tolist())),
            values,
            list(map(self._means.__getitem__, means)),
            deviations,
        )
        found = _REASONS[width].fill(*(column[k::width] for k in range(width) for column in columns))
        for user in np.flatnonzero(speaks < width).tolist():
            own = range(user * width, user * width + int(speaks[user]))
            found[user] = _REASONS[len(own)].one(*(column[k] for k in own for column in columns))
        return found


def change_records(moves: Moves, model_version: int, source: str, partition: int) -> list[OutRecord]:
    """Of each move the change (with CloudEvents headers) and the membership that follows from it, keyed by the user.

    They go to the partition that the user's events came from, whatever partitioner the producers use.
    """
    return _records(moves, None, model_version, source, partition)


def rule_records(
    moves: Moves, segments: Sequence[str], model_version: int, source: str, partition: int
) -> list[OutRecord]:
    """The same for rule segments: a user can be in many, so the membership's key names it too (`membership_key`).

    Who leaves it leaves no record: a value of null is what compaction takes away.
    """
    return _records(moves, segments, model_version, source, partition)


_CAUSES: Final = [cause.encode() for cause in CAUSES]
_CHANGE: Final = Template(
    b'{"id":"%b","user_id":%b,"sequence":%d,"from":%b,"to":%b,"cause":"%b","occurred_at":%d,"detected_at":%d,'
    b'"model_version":%d,"confidence":%b,"why":%b,"source":%b,"event_id":%b}'
)
_ANOMALY: Final = Template(
    b'{"id":"%b","user_id":%b,"kind":"%b","occurred_at":%d,"detected_at":%d,"model_version":%d,"score":%b,'
    b'"score_threshold":%b,"distance":%b,"distance_threshold":%b,"why":%b,"source":%b}'
)
_MEMBERSHIP: Final = Template(
    b'{"user_id":%b,"segment":%b,"since":%d,"sequence":%d,"cause":"%b","model_version":%d,"confidence":%b}'
)


def _records(
    moves: Moves, rules: Sequence[str] | None, model_version: int, source: str, partition: int
) -> list[OutRecord]:
    users, since = moves.user_id, moves.occurred_at
    keys = [user.encode() for user in users]
    quoted = list(map(orjson.dumps, users))
    ids = _ids(moves)
    causes = list(map(_CAUSES.__getitem__, moves.cause))
    versions = [model_version] * len(users)
    changes = _CHANGE.fill(
        ids,
        quoted,
        moves.sequence,
        moves.left,
        moves.entered,
        causes,
        since,
        moves.detected_at,
        versions,
        moves.confidence,
        moves.why,
        moves.source,
        moves.event_id,
    )
    headers = cloudevent_headers(ids, keys, since, source)
    held: list[bytes | None] = [
        *_MEMBERSHIP.fill(quoted, moves.entered, since, moves.sequence, causes, versions, moves.confidence)
    ]
    held_under = keys
    if rules is not None:
        held_under = [membership_key(user, rule).encode() for user, rule in zip(users, rules, strict=True)]
        held = [None if to == NULL else value for to, value in zip(moves.entered, held, strict=True)]
    # The record's time is the look's too, so that a replay's later stages have the data's clock.
    change_of = out_records(topics.SEGMENT_CHANGES, keys, changes, partition, headers, moves.detected_at)
    held_of = out_records(topics.SEGMENT_MEMBERSHIP, held_under, held, partition, repeat(()), moves.detected_at)
    return list(chain.from_iterable(zip(change_of, held_of, strict=True)))


def anomaly_records(moves: Moves, outlying: Outlying, model_version: int, partition: int) -> list[OutRecord]:
    """The record of each entry into quarantine or release from it."""
    count = len(moves.user_id)
    values = _ANOMALY.fill(
        _ids(moves),
        list(map(orjson.dumps, moves.user_id)),
        [kind.encode() for kind in outlying.kinds],
        moves.occurred_at,
        moves.detected_at,
        [model_version] * count,
        list(map(orjson.dumps, outlying.scores)),
        [orjson.dumps(outlying.score_threshold)] * count,
        list(map(orjson.dumps, outlying.distances)),
        [orjson.dumps(outlying.distance_threshold)] * count,
        moves.why,
        moves.source,
    )
    keys = [user.encode() for user in moves.user_id]
    return out_records(topics.ANOMALIES, keys, values, partition, repeat(()), moves.detected_at)


def _ids(moves: Moves) -> list[bytes]:
    return [change_id(user, number).encode() for user, number in zip(moves.user_id, moves.sequence, strict=True)]
