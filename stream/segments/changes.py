"""The records that a decision causes: the change, the membership, the anomaly. Bytes out, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import xxhash
from numpy.typing import NDArray

from schemas import topics
from schemas.cloudevents import headers as cloudevent_headers
from schemas.types import CAUSES
from stream.segments.assign import BUILT_IN_NAMES, QUARANTINE, segment_name
from stream.transport.base import OutRecord

WHY_FEATURES = 3


def change_id(user_id: str, sequence: int) -> str:
    """Deterministic: the same user's same change has the same id, however often it is computed."""
    return xxhash.xxh3_128_hexdigest(f"{user_id}\x00{sequence}".encode())


@dataclass(frozen=True, slots=True)
class Moved:
    """One user's move, with what is needed to write it down."""

    user_id: str
    sequence: int
    before: int
    after: int
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
    x: NDArray[np.float64],
    z: NDArray[np.float64],
    old: NDArray[np.float64] | None,
    new: NDArray[np.float64] | None,
    means: dict[str, float | None],
) -> list[dict[str, Any]]:
    """The features that speak most for the new segment against the old one (d,), or against the population.

    A feature's part in the decision is how much of the squared distance it saves: (z - old)² - (z - new)²,
    where the population's own place is the origin of the scaled axes. Without a learned segment at either
    end the most unusual features speak.
    """
    away = np.zeros_like(z) if old is None else old
    part = np.abs(z) if new is None else (z - away) ** 2 - (z - new) ** 2
    found: list[dict[str, Any]] = []
    for j in np.argsort(-part, kind="stable")[:WHY_FEATURES]:
        if part[j] <= 0:
            break
        name = features[j]
        value = float(x[j])
        found.append(
            {
                "feature": name,
                "value": None if np.isnan(value) else value,
                "segment_mean": means.get(name),
                "z": round(float(z[j]), 3),
            }
        )
    return found


def change_records(
    moved: Moved, names: dict[int, str], model_version: int, source: str, partition: int
) -> list[OutRecord]:
    """The change (with CloudEvents headers) and the membership that follows from it, both keyed by the user.

    They go to the partition that the user's events came from, whatever partitioner the producers use.
    """
    key = moved.user_id.encode()
    identifier = change_id(moved.user_id, moved.sequence)
    to = reference(moved.after, names)
    cause = CAUSES[moved.cause]
    confidence = round(moved.confidence, 4)
    change = {
        "id": identifier,
        "user_id": moved.user_id,
        "sequence": moved.sequence,
        "from": reference(moved.before, names),
        "to": to,
        "cause": cause,
        "occurred_at": moved.occurred_at,
        "detected_at": moved.detected_at,
        "model_version": model_version,
        "confidence": confidence,
        "why": moved.why,
        "source": moved.source,
        "event_id": moved.event_id,
    }
    membership = {
        "user_id": moved.user_id,
        "segment": to,
        "since": moved.occurred_at,
        "sequence": moved.sequence,
        "cause": cause,
        "model_version": model_version,
        "confidence": confidence,
    }
    at = moved.detected_at  # also the record's time, so that a replay's later stages have the data's clock
    headers = cloudevent_headers(identifier, moved.user_id, moved.occurred_at, source)
    return [
        OutRecord(topics.SEGMENT_CHANGES, key, orjson.dumps(change), partition, headers, at),
        OutRecord(topics.SEGMENT_MEMBERSHIP, key, orjson.dumps(membership), partition, (), at),
    ]


def anomaly_record(moved: Moved, model_version: int, scores: dict[str, float], partition: int) -> OutRecord:
    """The record of one entry into quarantine or release from it."""
    anomaly = {
        "id": change_id(moved.user_id, moved.sequence),
        "user_id": moved.user_id,
        "kind": "entered" if moved.after == QUARANTINE else "released",
        "occurred_at": moved.occurred_at,
        "detected_at": moved.detected_at,
        "model_version": model_version,
        **scores,
        "why": moved.why,
        "source": moved.source,
    }
    return OutRecord(topics.ANOMALIES, moved.user_id.encode(), orjson.dumps(anomaly), partition, (), moved.detected_at)
