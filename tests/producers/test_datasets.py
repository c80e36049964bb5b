"""The readers on real data sets, counted once more with the standard library's csv."""

from __future__ import annotations

import csv
import gc
import gzip
import io
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from producers.readers import open_source
from producers.source import Source, SourceRow
from stream.features.events import IngestSettings, decode
from stream.transport.base import Headers

pytestmark = [pytest.mark.data, pytest.mark.usefixtures("few_collections")]

DATA = Path(os.environ.get("RESEGMENT_DATA", Path(__file__).parents[3] / "shared" / "data"))


class Received(NamedTuple):
    """A record as a transport would hand it on."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@pytest.fixture
def few_collections() -> Iterator[None]:
    """Half a million rows are no garbage: looking through them again and again takes most of the time."""
    gc.disable()
    yield
    gc.enable()


def open_data(format: str, name: str) -> Source:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there; set RESEGMENT_DATA to the folder that has the data sets")
    return open_source(format, path)


def table(name: str) -> list[dict[str, str]]:
    with io.TextIOWrapper(gzip.open(DATA / name), "utf-8", newline="") as file:
        return list(csv.DictReader(file))


def parsed(rows: list[SourceRow]) -> list[dict[str, Any]]:
    return [orjson.loads(row.value or b"null") for row in rows]


def refused(rows: list[SourceRow]) -> Counter[str]:
    """What the decoder refuses, by reason and field."""
    received = [Received("events", 0, at, row.timestamp, row.key, row.value) for at, row in enumerate(rows)]
    accepted, rejected = decode(received, None, IngestSettings())
    assert len(accepted) + len(rejected) == len(rows)
    return Counter(f"{one.reason} {one.field}" for one in rejected)


def check_common(source: Source, rows: list[SourceRow], events: list[dict[str, Any]], expected: int) -> None:
    assert len(rows) == expected == source.total
    times = [row.timestamp for row in rows]
    assert times == sorted(times)
    assert [event["occurred_at"] for event in events] == times  # sorted by time: each arrives when it happens
    for start in (1, expected // 3, expected - 1):
        assert list(islice(source.rows(start), 50)) == rows[start : start + 50]


def test_taobao() -> None:
    source = open_data("taobao", "taobao.csv.gz")
    rows, expected = list(source.rows()), table("taobao.csv.gz")
    events = parsed(rows)
    check_common(source, rows, events, len(expected))
    names = {"pv": "browse", "cart": "add_to_cart", "fav": "favourite", "buy": "purchase"}
    for event, row in zip(events, expected, strict=True):
        assert event["type"] == names[row["behavior"]]
        assert event["user_id"] == row["user_id"]
        assert event["category"] == row["category_id"]
        assert event["occurred_at"] == int(row["unix_ts"]) * 1000
    assert len({event["event_id"] for event in events}) == len({tuple(row.values()) for row in expected})
    assert not refused(rows)


def test_rees46() -> None:
    source = open_data("rees46", "rees46.csv.gz")
    rows, expected = list(source.rows()), table("rees46.csv.gz")
    events = parsed(rows)
    check_common(source, rows, events, len(expected))
    assert len(events) - len({event["event_id"] for event in events}) == 5
    assert Counter(event["type"] for event in events) == {
        "browse": sum(row["event_type"] == "view" for row in expected),
        "add_to_cart": sum(row["event_type"] == "cart" for row in expected),
        "purchase": sum(row["event_type"] == "purchase" for row in expected),
    }
    spent = sum(float(row["price"]) for row in expected if row["event_type"] == "purchase")
    assert sum(event.get("amount", 0) for event in events) == pytest.approx(spent)
    assert not refused(rows)


@pytest.mark.slow
def test_online_retail() -> None:
    source = open_data("online_retail", "online_retail.csv.gz")
    rows, expected = list(source.rows()), table("online_retail.csv.gz")
    events = parsed(rows)
    check_common(source, rows, events, len(expected))
    assert sum("user_id" not in event for event in events) == 135_080
    assert len(events) - len({event["event_id"] for event in events}) == 5_268
    spent: dict[str, float] = defaultdict(float)
    for row in expected:
        spent[row["CustomerID"].removesuffix(".0")] += float(row["Quantity"]) * float(row["UnitPrice"])
    found: dict[str, float] = defaultdict(float)
    for event in events:
        found[event.get("user_id", "")] += event["amount"]
        assert event["quantity"] > 0
    assert found == pytest.approx(spent, abs=1e-3)
    refunds = sum(row["InvoiceNo"].startswith("C") for row in expected if row["CustomerID"])
    assert sum(event["amount"] < 0 for event in events if "user_id" in event) == refunds
    assert refused(rows) == {"no_user user_id": 135_080}


def test_cdnow() -> None:
    source = open_data("cdnow", "cdnow.txt.gz")
    rows = list(source.rows())
    with gzip.open(DATA / "cdnow.txt.gz", "rt") as file:
        expected = [line.split() for line in file][1:]
    events = parsed(rows)
    check_common(source, rows, events, len(expected))
    ordered = sorted(expected, key=lambda row: row[1])  # stable
    for event, (customer, day, pieces, value) in zip(events, ordered, strict=True):
        midnight = datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC)
        assert event["occurred_at"] == midnight.timestamp() * 1000
        assert (event["user_id"], event["quantity"], event["amount"]) == (customer, float(pieces), float(value))
    assert sum(event["amount"] == 0 for event in events) == 80
    assert len({row.value for row in rows}) == len({tuple(row) for row in expected})
    assert not refused(rows)
