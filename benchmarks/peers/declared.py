"""The core's features as a configuration of ours: to run the same work, and to check that it gives the same sums."""

from __future__ import annotations

import json
from typing import Any

_METRICS: dict[str, dict[str, Any]] = {
    "activity": {"aggregate": "count"},
    "dwell": {"aggregate": "sum", "field": "dwell_seconds"},
    "clicks": {"aggregate": "count", "kinds": ["click"]},
    "carts": {"aggregate": "count", "kinds": ["add_to_cart"]},
    "spend": {"aggregate": "sum", "field": "amount", "kinds": ["purchase"]},
}
FEATURES: list[dict[str, Any]] = [
    {"name": f"{name}_{days}d", "half_life": f"{days}d", "log": True, **metric}
    for name, metric in _METRICS.items()
    for days in (1, 7, 30)
]
"""Fifteen, in the order of `core.update`."""


def toml() -> str:
    """A configuration file that declares them."""
    blocks = ("\n".join(f"{key} = {json.dumps(value)}" for key, value in feature.items()) for feature in FEATURES)
    return "\n".join(f"[[features]]\n{block}\n" for block in blocks)
