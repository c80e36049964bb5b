"""The records that a decision causes: the change, the membership, the anomaly. Bytes out, in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import orjson
import xxhash
from numpy.typing import NDArray

from schemas import topics
from schemas.cloudevents import headers as cloudevent_headers
from schemas.membership import membership_key
from schemas.types import CAUSES
from stream.segments.assign import BUILT_IN_NAMES, segment_name
from stream.transport.base import OutRecord

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
    event_id: str | None


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


class Reasons:
    """Says of each of many users which features speak most for the new segment against the old one.

    Parameters: the learned features, what each segment's people have of them on average, and the scale's `weight` (d,),
    without which the `z` that people read is in standard deviations.
    """

    def __init__(
        self, features: Sequence[str], means: Mapping[int, Mapping[str, float | None]], weight: FloatArray
    ) -> None:
        self._names = [b'{"feature":%b,"value":' % orjson.dumps(name) for name in features]
        self._means = {
            segment: [b',"segment_mean":%b,"z":' % orjson.dumps(own.get(name)) for name in features]
            for segment, own in means.items()
        }
        self._unknown = [b',"segment_mean":null,"z":'] * len(features)
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
        speaks = (np.take_along_axis(part, best, axis=1) > 0).sum(axis=1)
        scaled = np.round(np.take_along_axis(z, best, axis=1) / self._weight[best], 3)
        values, deviations = numbers(np.take_along_axis(x, best, axis=1).ravel()), numbers(scaled.ravel())
        names, width = self._names, best.shape[1]
        found = []
        for start, (js, count, segment) in enumerate(zip(best.tolist(), speaks.tolist(), segments, strict=True)):
            means = self._means.get(segment, self._unknown)
            at = start * width
            found.append(
                b"[%b]"
                % b",".join(
                    [
                        b"%b%b%b%b}" % (names[j], values[at + k], means[j], deviations[at + k])
                        for k, j in enumerate(js[:count])
                    ]
                )
            )
        return found


def change_records(moved: Moved, model_version: int, source: str, partition: int) -> list[OutRecord]:
    """The change (with CloudEvents headers) and the membership that follows from it, both keyed by the user.

    They go to the partition that the user's events came from, whatever partitioner the producers use.
    """
    user = orjson.dumps(moved.user_id)
    key = moved.user_id.encode()
    return [
        _change(moved, key, user, model_version, source, partition),
        _membership(moved, key, user, model_version, partition),
    ]


def rule_records(moved: Moved, segment: str, model_version: int, source: str, partition: int) -> list[OutRecord]:
    """The same for a rule segment: a user can be in many, so the membership's key names it too (`membership_key`).

    Who leaves it leaves no record: a value of null is what compaction takes away.
    """
    user = orjson.dumps(moved.user_id)
    key = membership_key(moved.user_id, segment).encode()
    return [
        _change(moved, moved.user_id.encode(), user, model_version, source, partition),
        _membership(moved, key, user, model_version, partition)
        if moved.entered != NULL
        else OutRecord(topics.SEGMENT_MEMBERSHIP, key, None, partition, (), moved.detected_at),
    ]


_CAUSES: Final = [cause.encode() for cause in CAUSES]
_CHANGE: Final = (
    b'{"id":"%b","user_id":%b,"sequence":%d,"from":%b,"to":%b,"cause":"%b","occurred_at":%d,"detected_at":%d,'
    b'"model_version":%d,"confidence":%b,"why":%b,"source":%b,"event_id":%b}'
)
_MEMBERSHIP: Final = (
    b'{"user_id":%b,"segment":%b,"since":%d,"sequence":%d,"cause":"%b","model_version":%d,"confidence":%b}'
)


def _change(moved: Moved, key: bytes, user: bytes, model_version: int, source: str, partition: int) -> OutRecord:
    identifier = change_id(moved.user_id, moved.sequence)
    value = _CHANGE % (
        identifier.encode(),
        user,
        moved.sequence,
        moved.left,
        moved.entered,
        _CAUSES[moved.cause],
        moved.occurred_at,
        moved.detected_at,
        model_version,
        moved.confidence,
        moved.why,
        moved.source,
        NULL if moved.event_id is None else orjson.dumps(moved.event_id),
    )
    headers = cloudevent_headers(identifier, moved.user_id, moved.occurred_at, source)
    # The record's time is the look's too, so that a replay's later stages have the data's clock.
    return OutRecord(topics.SEGMENT_CHANGES, key, value, partition, headers, moved.detected_at)


def _membership(moved: Moved, key: bytes, user: bytes, model_version: int, partition: int) -> OutRecord:
    value = _MEMBERSHIP % (
        user,
        moved.entered,
        moved.occurred_at,
        moved.sequence,
        _CAUSES[moved.cause],
        model_version,
        moved.confidence,
    )
    return OutRecord(topics.SEGMENT_MEMBERSHIP, key, value, partition, (), moved.detected_at)


def anomaly_record(
    moved: Moved, kind: Literal["entered", "released"], model_version: int, scores: dict[str, float], partition: int
) -> OutRecord:
    """The record of one entry into quarantine or release from it."""
    anomaly = {
        "id": change_id(moved.user_id, moved.sequence),
        "user_id": moved.user_id,
        "kind": kind,
        "occurred_at": moved.occurred_at,
        "detected_at": moved.detected_at,
        "model_version": model_version,
        **scores,
        "why": orjson.Fragment(moved.why),
        "source": orjson.Fragment(moved.source),
    }
    return OutRecord(topics.ANOMALIES, moved.user_id.encode(), orjson.dumps(anomaly), partition, (), moved.detected_at)
