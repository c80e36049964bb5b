"""The records that a decision causes: the change, the membership, the anomaly. Bytes out, in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

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
    """One user's move, with what is needed to write it down."""

    user_id: str
    sequence: int
    left: dict[str, Any] | None
    entered: dict[str, Any] | None
    cause: int
    occurred_at: int
    detected_at: int
    confidence: float
    why: Sequence[dict[str, Any]]
    source: dict[str, Any] | None
    event_id: str | None


def reference(segment: int, names: dict[int, str]) -> dict[str, Any] | None:
    """A segment as a SegmentRef, or None where there is none."""
    identifier = segment_name(segment)
    if identifier is None:
        return None
    return {"id": identifier, "name": BUILT_IN_NAMES.get(segment) or names.get(segment)}


def reasons(
    features: Sequence[str],
    x: FloatArray,
    z: FloatArray,
    old: FloatArray,
    new: FloatArray,
    means: Sequence[Mapping[str, float | None]],
    weight: FloatArray,
) -> list[list[dict[str, Any]]]:
    """For each of m users the features that speak most for the new segment against the old one.

    Features `x` (m, d), scaled `z` (m, d), the centres of both segments (m, d), the new one's `means`, and the scale's
    `weight` (d,), without which the `z` that people read is in standard deviations. A feature's part in the decision is
    how much of the squared distance it saves: (z - old)² - (z - new)². Without an old segment that is the population's
    own place, the origin of the scaled axes. A row of NaN in `new` says that there is none: then the features that are
    furthest from the old one speak, for they gave an outlier away.
    """
    towards = (z - new) ** 2
    part = (z - old) ** 2 - np.where(np.isnan(towards), 0.0, towards)
    best = np.argsort(-part, axis=1, kind="stable")[:, :WHY_FEATURES]
    speaks = np.take_along_axis(part, best, axis=1) > 0
    values = np.take_along_axis(x, best, axis=1)
    unknown = np.isnan(values)
    columns = zip(
        best.tolist(),
        speaks.sum(axis=1).tolist(),
        values.tolist(),
        unknown.tolist(),
        np.round(np.take_along_axis(z, best, axis=1) / np.where(weight > 0, weight, 1.0)[best], 3).tolist(),
        means,
        strict=True,
    )
    return [
        [
            {
                "feature": (name := features[js[k]]),
                "value": None if nan[k] else value[k],
                "segment_mean": mean.get(name),
                "z": scaled[k],
            }
            for k in range(count)
        ]
        for js, count, value, nan, scaled, mean in columns
    ]


def change_records(moved: Moved, model_version: int, source: str, partition: int) -> list[OutRecord]:
    """The change (with CloudEvents headers) and the membership that follows from it, both keyed by the user.

    They go to the partition that the user's events came from, whatever partitioner the producers use.
    """
    change = _change(moved, model_version, source, partition)
    return [change, _membership(moved, moved.user_id, model_version, partition)]


def rule_records(moved: Moved, model_version: int, source: str, partition: int) -> list[OutRecord]:
    """The same for a rule segment: a user can be in many, so the membership's key names it too (`membership_key`).

    Who leaves it leaves no record: a value of null is what compaction takes away.
    """
    segment = moved.entered or moved.left
    assert segment is not None
    key = membership_key(moved.user_id, segment["id"])
    return [
        _change(moved, model_version, source, partition),
        _membership(moved, key, model_version, partition)
        if moved.entered is not None
        else OutRecord(topics.SEGMENT_MEMBERSHIP, key.encode(), None, partition, (), moved.detected_at),
    ]


def _change(moved: Moved, model_version: int, source: str, partition: int) -> OutRecord:
    identifier = change_id(moved.user_id, moved.sequence)
    change = {
        "id": identifier,
        "user_id": moved.user_id,
        "sequence": moved.sequence,
        "from": moved.left,
        "to": moved.entered,
        "cause": CAUSES[moved.cause],
        "occurred_at": moved.occurred_at,
        "detected_at": moved.detected_at,
        "model_version": model_version,
        "confidence": moved.confidence,
        "why": moved.why,
        "source": moved.source,
        "event_id": moved.event_id,
    }
    headers = cloudevent_headers(identifier, moved.user_id, moved.occurred_at, source)
    # The record's time is the look's too, so that a replay's later stages have the data's clock.
    key = moved.user_id.encode()
    return OutRecord(topics.SEGMENT_CHANGES, key, orjson.dumps(change), partition, headers, moved.detected_at)


def _membership(moved: Moved, key: str, model_version: int, partition: int) -> OutRecord:
    membership = {
        "user_id": moved.user_id,
        "segment": moved.entered,
        "since": moved.occurred_at,
        "sequence": moved.sequence,
        "cause": CAUSES[moved.cause],
        "model_version": model_version,
        "confidence": moved.confidence,
    }
    value = orjson.dumps(membership)
    return OutRecord(topics.SEGMENT_MEMBERSHIP, key.encode(), value, partition, (), moved.detected_at)


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
        "why": moved.why,
        "source": moved.source,
    }
    return OutRecord(topics.ANOMALIES, moved.user_id.encode(), orjson.dumps(anomaly), partition, (), moved.detected_at)
