"""One example a message: in the generated schemas, in the documentation, and valid by test."""

from __future__ import annotations

from typing import Any

from schemas.cloudevents import CHANGE_TYPE, CONTENT_TYPE

_SHOPPER: dict[str, Any] = {"user_id": "u-1042", "session_id": "s-77", "channel": "web"}
_NEWCOMERS = {"id": "newcomer", "name": "Newcomers"}
_HUNTERS = {"id": "seg-3", "name": "Bargain hunters"}
_POSITION = {"topic": "events", "partition": 2, "offset": 48_213}
_WHY = [
    {"feature": "discount_share", "value": 0.41, "segment_mean": 0.38, "z": 2.1},
    {"feature": "average_order_value", "value": 23.9, "segment_mean": 27.5, "z": -1.2},
]

EVENTS: dict[str, dict[str, Any]] = {
    "browse": {
        "type": "browse",
        "event_id": "e-1",
        "occurred_at": "2026-03-01T09:30:00.250Z",
        **_SHOPPER,
        "item_id": "sku-9",
        "category": "shoes",
        "dwell_ms": 12_500,
    },
    "click": {"type": "click", "event_id": "e-2", "occurred_at": 1_772_357_405_000, **_SHOPPER, "item_id": "sku-9"},
    "purchase": {
        "type": "purchase",
        "event_id": "e-3",
        "occurred_at": "2026-03-01T10:31:00+01:00",
        **_SHOPPER,
        "item_id": "sku-9",
        "category": "shoes",
        "amount": 59.9,
        "currency": "EUR",
        "quantity": 1,
        "order_id": "o-501",
        "discount": 10,
    },
    "search": {
        "type": "search",
        "event_id": "e-4",
        "occurred_at": 1_772_357_465_000,
        **_SHOPPER,
        "query": "running shoes",
    },
    "add_to_cart": {
        "type": "add_to_cart",
        "event_id": "e-5",
        "occurred_at": 1_772_357_470_000,
        **_SHOPPER,
        "item_id": "sku-9",
    },
    "favourite": {
        "type": "favourite",
        "event_id": "e-6",
        "occurred_at": 1_772_357_480_000,
        **_SHOPPER,
        "item_id": "sku-9",
    },
    "review": {
        "type": "review",
        "event_id": "e-7",
        "occurred_at": 1_772_443_880_000,
        **_SHOPPER,
        "item_id": "sku-9",
        "rating": 4,
        "text": "Light, and a little narrow.",
    },
    "share": {
        "type": "share",
        "event_id": "e-8",
        "occurred_at": 1_772_443_900_000,
        **_SHOPPER,
        "item_id": "sku-9",
    },
}

CHANGE: dict[str, Any] = {
    "id": "6c1f0a5d4e2b48d7a0f3c9b17e58d2a4",
    "user_id": "u-1042",
    "sequence": 2,
    "from": _NEWCOMERS,
    "to": _HUNTERS,
    "cause": "behaviour",
    "occurred_at": 1_772_357_460_000,
    "detected_at": 1_772_357_460_180,
    "model_version": 17,
    "confidence": 0.83,
    "why": _WHY,
    "source": _POSITION,
    "event_id": "e-3",
}

CHANGE_HEADERS: dict[str, str] = {
    "ce_specversion": "1.0",
    "ce_id": CHANGE["id"],
    "ce_type": CHANGE_TYPE,
    "ce_source": "/resegment",
    "ce_time": "2026-03-01T09:31:00.000Z",
    "ce_subject": "u-1042",
    "content-type": CONTENT_TYPE,
}

MEMBERSHIP: dict[str, Any] = {
    "user_id": "u-1042",
    "segment": _HUNTERS,
    "since": 1_772_357_460_000,
    "sequence": 2,
    "cause": "behaviour",
    "model_version": 17,
    "confidence": 0.83,
}

_VIPS = {"id": "rule:vip", "name": "VIPs"}

RULE_CHANGE: dict[str, Any] = {
    "id": "e41d3b6fd95c2c07a7b1f08c64d2905b",
    "user_id": "u-1042",
    "sequence": 3,
    "from": None,
    "to": _VIPS,
    "cause": "behaviour",
    "occurred_at": 1_772_357_460_000,
    "detected_at": 1_772_357_460_180,
    "model_version": 17,
    "confidence": 1.0,
    "why": [
        {"feature": "purchases_30d", "value": 3.0, "segment_mean": None, "z": None},
        {"feature": "recency_days", "value": 0.0, "segment_mean": None, "z": None},
    ],
    "source": _POSITION,
    "event_id": "e-3",
}

RULE_MEMBERSHIP: dict[str, Any] = {
    "user_id": "u-1042",
    "segment": _VIPS,
    "since": 1_772_357_460_000,
    "sequence": 3,
    "cause": "behaviour",
    "model_version": 17,
    "confidence": 1.0,
}

MODEL: dict[str, Any] = {
    "version": 17,
    "created_at": 1_772_350_000_000,
    "algorithm": "kmeans",
    "observations": 40_000,
    "clip": 4.0,
    "scales": [
        {"feature": "discount_share", "log": False, "centre": 0.1, "spread": 0.12, "weight": 1.0},
        {"feature": "spend_30d", "log": True, "centre": 3.2, "spread": 1.1, "weight": 1.0},
    ],
    "prototypes": {
        "centres": [[2.0, -0.4], [-0.5, 0.9]],
        "weights": [0.3, 0.7],
        "segments": ["seg-3", "seg-1"],
        "radii": [3.1, 2.8],
    },
    "profiles": [
        {
            "id": "seg-1",
            "name": "Big spenders",
            "born_version": 1,
            "size": 0.7,
            "means": {"discount_share": 0.04, "spend_30d": 180.0},
            "z": {"discount_share": -0.5, "spend_30d": 0.9},
        },
        {
            "id": "seg-3",
            "name": "Bargain hunters",
            "born_version": 9,
            "size": 0.3,
            "means": {"discount_share": 0.38, "spend_30d": 31.0},
            "z": {"discount_share": 2.0, "spend_30d": -0.4},
        },
    ],
    "lineage": [
        {"kind": "survived", "segment": "seg-1", "parents": ["seg-1"], "overlap": 0.97},
        {"kind": "survived", "segment": "seg-3", "parents": ["seg-3"], "overlap": 0.94},
    ],
    "thresholds": {"score": 0.98, "score_release": 0.96, "distance": 6.2, "distance_release": 5.4},
    "quality": {
        "panel": 5_000,
        "inertia": 1.4,
        "silhouette": 0.35,
        "moved": 0.012,
        "drift": False,
        "promoted_by": "budget",
        "expected_moves": [{"from": "seg-1", "to": "seg-2", "share": 0.012}],
    },
    "calibration": [0.5, 0.62, 0.81, 0.97],
    "forest": None,
}

ANOMALY: dict[str, Any] = {
    "id": "0d9b6f2f8e3c4f65b7b0b9a3d4c1e2f3",
    "user_id": "u-666",
    "kind": "entered",
    "occurred_at": 1_772_357_500_000,
    "detected_at": 1_772_357_500_090,
    "model_version": 17,
    "score": 0.995,
    "score_threshold": 0.98,
    "distance": 9.4,
    "distance_threshold": 6.2,
    "why": [{"feature": "clicks_1h", "value": 4_100.0, "segment_mean": None, "z": 11.8}],
    "source": _POSITION,
}

DEAD_LETTER: dict[str, Any] = {
    "reason": "invalid_field",
    "field": "amount",
    "detail": "Input should be a valid number",
    "original": "eyJ0eXBlIjoicHVyY2hhc2UifQ==",
    "key": "dS0xMDQy",
    "source": _POSITION,
    "rejected_at": 1_772_357_500_100,
}

ACTION: dict[str, Any] = {
    "id": "act_8fc31eeb76678d625b7ae9a95e58f82a",
    "campaign": "first-impression",
    "user_id": "u-1042",
    "trigger": "transition",
    "change_id": CHANGE["id"],
    "sequence": 2,
    "from": _NEWCOMERS,
    "to": _HUNTERS,
    "cause": "behaviour",
    "action": "webhook",
    "target": "https://crm.example.com/hooks/segments",
    "parameters": {"template": "getting-to-know-you"},
    "occurred_at": 1_772_357_460_000,
    "decided_at": 1_772_357_460_210,
}

OUTCOME: dict[str, Any] = {
    "action_id": ACTION["id"],
    "campaign": "first-impression",
    "user_id": "u-1042",
    "status": "delivered",
    "attempts": 1,
    "http_status": 204,
    "detail": "",
    "finished_at": 1_772_357_460_350,
}
