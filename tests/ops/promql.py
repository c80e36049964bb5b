"""Just enough of PromQL for the tests: which metrics and labels an expression speaks of."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stream.runtime.metric_list import SPECS, Spec

SAMPLES: dict[str, Spec] = {sample: spec for spec in SPECS for sample in spec.samples}
FROM_SCRAPING = {"job", "instance", "service"}
"""Labels that Prometheus itself adds."""
_SELECTOR = re.compile(r"\b(resegment_\w+)(?:\s*\{([^}]*)\})?")
_MATCHER = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*\"([^\"]*)\"")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


def names(expression: str) -> list[str]:
    """Of our metrics, as they are written."""
    return [match[1] for match in _SELECTOR.finditer(expression)]


def complaints(expression: str) -> Iterator[str]:
    """What is wrong with the metrics and labels of an expression."""
    allowed = set(FROM_SCRAPING)
    for name, matchers in _SELECTOR.findall(expression):
        spec = SAMPLES.get(name)
        if spec is None:
            yield f"{name} is no metric of ours"
            continue
        labels = {*spec.labels, *FROM_SCRAPING, *(("le",) if spec.kind == "histogram" else ())}
        allowed |= labels
        for label, operator, text in _MATCHER.findall(matchers):
            if label not in labels:
                yield f"{name} has no label {label}"
            wanted = text.split("|") if operator in ("=~", "!~") else [text]
            for value in wanted if label in spec.values else ():
                if value not in spec.values[label]:
                    yield f"{name}: {label} is never {value}"
        if spec.kind == "counter" and not re.search(rf"\b(rate|increase)\(\s*{name}", expression):
            yield f"{name} is a counter and is not seen through rate() or increase()"
    for grouping in _GROUPING.findall(expression):
        for label in filter(None, re.split(r"[\s,]+", grouping)):
            if label not in allowed:
                yield f"grouped by {label}, which none of its metrics has"


def grouped_by(expression: str) -> set[str]:
    """Labels that the result may carry."""
    return {label for grouping in _GROUPING.findall(expression) for label in re.split(r"[\s,]+", grouping) if label}
