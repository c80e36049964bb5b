"""The CloudEvents 1.0 attributes of a segment change, as Kafka headers in binary content mode.

The record's value stays the plain JSON of the change; the attributes travel as headers prefixed with `ce_`, UTF-8
strings all, and `content-type` is the value's media type (CloudEvents Kafka protocol binding, 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from schemas.change import SegmentChange

CHANGE_TYPE = "resegment.segment.changed"
"""`ce_type`. Without a reverse-DNS prefix (which the specification only recommends): the project owns no domain."""

CONTENT_TYPE = "application/json"

_SPECVERSION = ("ce_specversion", b"1.0")
_TYPE = ("ce_type", CHANGE_TYPE.encode())
_CONTENT = ("content-type", CONTENT_TYPE.encode())
_SECONDS = [b"%02d." % second for second in range(60)]
_MILLISECONDS = [b"%03dZ" % ms for ms in range(1_000)]
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - naive arithmetic in UTC, three times as fast as an aware one


def change_headers(change: SegmentChange, source: str) -> list[tuple[str, bytes]]:
    """Headers of one change. `source` is a URI reference that names this deployment, such as "/resegment/shop"."""
    (found,) = headers([change.id.encode()], [change.user_id.encode()], [change.occurred_at], source)
    return list(found)


def headers(
    change_ids: Sequence[bytes], user_ids: Sequence[bytes], occurred_at: Sequence[int], source: str
) -> list[tuple[tuple[str, bytes], ...]]:
    """The same of many changes, for a writer that has columns of their fields; `occurred_at` in epoch milliseconds."""
    origin = ("ce_source", source.encode())
    return [
        (
            _SPECVERSION,
            ("ce_id", change_id),
            _TYPE,
            origin,
            ("ce_time", rfc3339(at)),
            ("ce_subject", user_id),
            _CONTENT,
        )
        for change_id, user_id, at in zip(change_ids, user_ids, occurred_at, strict=True)
    ]


def rfc3339(epoch_ms: int) -> bytes:
    """Epoch milliseconds as RFC 3339 in UTC: b"2023-11-15T00:40:30.858Z". Raises OverflowError beyond year 9999."""
    minute, ms = divmod(epoch_ms, 60_000)
    return _minute(minute) + _SECONDS[ms // 1_000] + _MILLISECONDS[ms % 1_000]


@lru_cache(maxsize=4096)
def _minute(minutes: int) -> bytes:
    # Changes of one batch share a few minutes: cached, a time costs 0.4 us instead of 1.6.
    return (_EPOCH + timedelta(minutes=minutes)).isoformat()[:17].encode()
