"""Bad input through the whole chain: each lands once in the dead letters with its reason, and the next one counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from producers.readers import open_source
from producers.source import SourceRow
from schemas import topics
from schemas.dead_letter import DeadLetter
from stream.replay import Replay
from stream.transport.base import TopicPartition
from tests.pipeline.support import configured

START = 1_767_600_000_000


def event(number: int, **changes: Any) -> bytes:
    whole = {
        "type": "browse",
        "event_id": f"e{number}",
        "user_id": f"u{number % 5}",
        "occurred_at": START + number * 1000,
    }
    return orjson.dumps({**whole, **changes})


def purchase(amount: bytes) -> bytes:
    return event(1, type="purchase", event_id="p", amount=0).replace(b'"amount":0', b'"amount":' + amount)


BAD: list[tuple[bytes, str]] = [
    (b'{"broken', "not_json"),
    (event(1, junk="x" * 1_000_000), "too_large"),
    (event(1, junk="x" * 3_000_000), "too_large"),
    (b"null", "not_an_object"),
    (b"[]", "not_an_object"),
    (b"\xff\xfe{}", "not_utf8"),
    (b'{"a":' * 5000 + b"1" + b"}" * 5000, "not_json"),
    (event(1, occurred_at=0), "too_old"),
    (event(1, occurred_at=4_070_908_800_000), "too_far_in_future"),
    (event(1, occurred_at="2026-01-05T00:00:00"), "invalid_field"),
    (event(1, type="teleport"), "unknown_type"),
    (event(1, user_id=""), "no_user"),
    (event(1, user_id=None), "no_user"),
    (event(1, user_id=7), "invalid_field"),
    (event(1, user_id="x" * 129), "invalid_field"),
    (event(1, dwell_ms=-5), "invalid_field"),
    (event(1, dwell_ms="long"), "invalid_field"),
    (event(1, type="review", rating=7), "invalid_field"),
    (event(1, type="purchase"), "missing_field"),
    (purchase(b"NaN"), "not_finite"),
    (purchase(b"-Infinity"), "not_finite"),
    (purchase(b"1e999"), "not_finite"),
    (b"", "empty"),
]


def test_every_bad_line_lands_once_and_the_next_event_counts(tmp_path: Path) -> None:
    lines = [event(n) for n in range(len(BAD) + 10)]
    mixed = [one for pair in zip(lines, (bad for bad, _ in BAD), strict=False) for one in pair] + lines[len(BAD) :]
    file = tmp_path / "mixed.jsonl"
    file.write_bytes(b"\n".join(mixed) + b"\n")
    with Replay(configured(tmp_path / "data"), open_source("jsonl", file)) as replay:
        replay.run()
        ledger = replay.ledger()
        (population,) = replay.deployment.processor.populations.values()
        letters = [
            DeadLetter.model_validate_json(record.value or b"")
            for record in replay.transport.read(TopicPartition(topics.DEAD_LETTERS, 0), 0)
        ]
    assert (ledger.events_read, ledger.events_accepted) == (len(mixed), len(lines))
    assert [one.reason for one in letters] == [reason for _, reason in BAD]
    assert [one.source.offset for one in letters] == list(range(1, 2 * len(BAD), 2))
    for letter, (bad, _) in zip(letters, BAD, strict=True):
        assert (letter.original or b"") == bad[:600_000], "byte for byte, as far as it fits"
    assert population.table.stream_time == START + (len(lines) - 1) * 1000, "no timestamp pushed the clock"


class Rows:
    """A source of rows with any key and value."""

    fingerprint = "rows"
    total = None

    def __init__(self, *rows: tuple[bytes | None, bytes | None]) -> None:
        self._rows = rows

    def rows(self, start: int = 0) -> Iterator[SourceRow]:
        return (SourceRow(key, value, START + 60_000) for key, value in self._rows[start:])


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"u1", None, "empty"),
        (None, event(1), "no_key"),
        (b"", event(1), "no_key"),
        (b"session-9", event(1), "key_mismatch"),
        (b"\xff", event(1), "key_mismatch"),
    ],
)
def test_keys_and_null_values(tmp_path: Path, key: bytes | None, value: bytes | None, reason: str) -> None:
    source = Rows((b"u1", event(1)), (key, value), (b"u2", event(2)))
    with Replay(configured(tmp_path / "data"), source) as replay:  # type: ignore[arg-type]
        replay.run()
        assert replay.ledger().events_accepted == 2
        (record,) = replay.transport.read(TopicPartition(topics.DEAD_LETTERS, 0), 0)
    letter = DeadLetter.model_validate_json(record.value or b"")
    assert (letter.reason, letter.key, letter.original) == (reason, key, value)
