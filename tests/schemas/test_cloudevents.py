from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import examples
from schemas.change import SegmentChange
from schemas.cloudevents import change_headers, rfc3339


def test_the_headers_are_those_of_the_kafka_binding_in_binary_mode() -> None:
    change = SegmentChange.model_validate(examples.CHANGE)
    found = change_headers(change, "/resegment")
    assert {name: value.decode() for name, value in found} == examples.CHANGE_HEADERS
    names = [name for name, _ in found]
    assert len(set(names)) == len(names)
    # Required by CloudEvents 1.0, each a non-empty string. A media type of CloudEvents would say structured mode.
    required = {"ce_id", "ce_source", "ce_specversion", "ce_type"}
    assert required <= {name for name, value in found if value}
    assert not dict(found)["content-type"].startswith(b"application/cloudevents")


def test_ids_outside_ascii_are_utf8() -> None:
    change = SegmentChange.model_validate({**examples.CHANGE, "user_id": "Jörg 日"})
    assert dict(change_headers(change, "/x"))["ce_subject"] == "Jörg 日".encode()


@given(st.integers(0, 253_402_300_799_999))
def test_times_are_rfc_3339_to_the_millisecond(at: int) -> None:
    text = rfc3339(at).decode()
    assert text == (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at)).isoformat(
        timespec="milliseconds"
    ).replace("+00:00", "Z")


def test_a_time_that_rfc_3339_cannot_write_is_an_error() -> None:
    assert rfc3339(253_402_300_799_999) == b"9999-12-31T23:59:59.999Z"
    with pytest.raises(OverflowError):
        rfc3339(253_402_300_800_000)
