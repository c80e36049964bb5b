"""prometheus_client's own parsers and its OpenMetrics writer, with types."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, parser
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition
from prometheus_client.openmetrics import parser as openmetrics_parser

parse_text: Callable[[str], Iterable[Metric]] = parser.text_string_to_metric_families
parse_openmetrics: Callable[[str], Iterable[Metric]] = openmetrics_parser.text_string_to_metric_families


def as_openmetrics(registry: CollectorRegistry) -> str:
    """What a Prometheus that asks for OpenMetrics is sent."""
    write: Callable[[Any], bytes] = exposition.generate_latest
    return write(registry).decode()
