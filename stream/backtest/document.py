"""The result as one JSON document.

`resegment`, `oracle`, `rfm8`, `rfm25` and `naive` hold the eight measures overall (`overall` holds the same five
objects), and each entry of `checkpoints` holds them at its time. null means that the data cannot say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from stream import __version__
from stream.backtest.backtest import METHODS, Checkpoint, Result
from stream.backtest.definitions import FAIRNESS, MEASURES
from stream.backtest.definitions import METHODS as METHODS_IN_WORDS
from stream.durations import format_duration
from stream.segments.assign import segment_name

FORMAT: Final = 1


def document(result: Result, source: Mapping[str, Any], segments: int) -> dict[str, Any]:
    """Plain values for orjson. `source` says what was replayed, `segments` how many were configured."""
    history, plan = result.history, result.plan
    overall = {name: result.overall[name].as_json() for name in METHODS}
    return {
        "format": FORMAT,
        "resegment_version": __version__,
        "source": {
            **source,
            "rows": history.rows,
            "events": history.events,
            "users": len(history.users),
            "start": iso(plan.start),
            "end": iso(plan.end),
        },
        "settings": {
            "horizon": format_duration(plan.horizon),
            "horizon_ms": plan.horizon,
            "segments": segments,
            "judged": FAIRNESS,
        },
        **overall,
        "overall": overall,
        "checkpoints": [_checkpoint(one, result.names) for one in result.checkpoints],
        "details": _details(result),
        "definitions": {"methods": METHODS_IN_WORDS, "measures": MEASURES},
    }


def iso(ms: int) -> str:
    """RFC 3339, UTC, to the second."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _checkpoint(one: Checkpoint, names: Mapping[int, str]) -> dict[str, Any]:
    then = {profile.id: profile.name for profile in one.profiles}
    return {
        "time": iso(one.at_ms),
        "time_ms": one.at_ms,
        "users": one.users,
        "judged": one.judged,
        "model_version": one.model_version,
        **{name: one.scores[name].as_json() for name in METHODS},
        "segments": [
            {
                "id": (identifier := segment_name(segment)),
                "name": then.get(identifier or "", names[segment]),
                "users": users,
                "share": users / one.users,
            }
            for segment, users in sorted(one.sizes.items())
        ],
        "lineage": [asdict(line) for line in one.lineage],
    }


def _details(result: Result) -> dict[str, Any]:
    """What has no place among the eight measures."""
    verdict, transitions = result.verdict, result.transitions
    details: dict[str, Any] = {
        "ledger": result.ledger.as_json(),
        "transitions": {
            "segments": [segment_name(segment) for segment in transitions.segments],
            "counts": transitions.counts.tolist(),
        },
        "confidence_stays": {"after": format_duration(result.stay_ms), **asdict(result.stays)},
        "confidence_right": None,
        "following": None,
        "following_oracle": None,
        "personas": None,
        "naive": {"share_of_users": result.history.share, "share_of_events_that_change_it": result.naive_changed},
    }
    if verdict is not None:
        details["confidence_right"] = asdict(verdict.right)
        details["following"] = {**asdict(verdict.following), "missed_share": verdict.following.missed_share}
        details["following_oracle"] = {**asdict(verdict.oracle), "missed_share": verdict.oracle.missed_share}
        details["personas"] = {
            "segments": [segment_name(segment) for segment in verdict.crosstab.segments],
            "personas": list(verdict.crosstab.personas),
            "counts": verdict.crosstab.counts.tolist(),
        }
    return details
