"""RFC 3339 against Python's own parser."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.features.times import parse_rfc3339

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def expected(text: str) -> int | None:
    try:
        return (datetime.fromisoformat(text.upper()) - EPOCH) // timedelta(milliseconds=1)
    except ValueError:
        return None


two = st.integers(0, 99).map("{:02}".format)
near = st.tuples(
    st.sampled_from(["0001", "1969", "1970", "1995", "1999", "2000", "2016", "2023", "2024", "2100", "2400", "9999"]),
    st.sampled_from(["00", "01", "02", "03", "04", "11", "12", "13"]),
    st.sampled_from(["00", "01", "28", "29", "30", "31", "32"]),
    st.sampled_from(["T", "t", " "]),
    st.sampled_from(["00", "12", "23", "24"]),
    st.sampled_from(["00", "59", "60"]),
    st.sampled_from(["00", "59", "60"]),
)
dates = near | st.tuples(st.integers(1, 9999).map("{:04}".format), two, two, st.just("T"), two, two, two)
fractions = st.just("") | st.text("0123456789", min_size=1, max_size=9).map(".{}".format)
offsets = st.sampled_from(["Z", "z", "+00:00", "-00:00", "+05:30", "-23:59", "+24:00"]) | st.tuples(
    st.sampled_from("+-"), two, st.integers(0, 59).map("{:02}".format)
).map("{0[0]}{0[1]}:{0[2]}".format)


@st.composite
def texts(draw: st.DrawFn) -> str:
    year, month, day, separator, hour, minute, second = draw(dates)
    return f"{year}-{month}-{day}{separator}{hour}:{minute}:{second}{draw(fractions)}{draw(offsets)}"


@given(st.lists(texts(), min_size=1, max_size=30))
@settings(max_examples=500, deadline=None)
def test_equals_pythons_parser(given_texts: list[str]) -> None:
    times, real = parse_rfc3339(given_texts)
    assert [int(t) if ok else None for t, ok in zip(times, real, strict=True)] == [expected(t) for t in given_texts]


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)), st.integers(-1439, 1439))  # noqa: DTZ001
@settings(max_examples=200, deadline=None)
def test_what_python_writes_is_read_back(moment: datetime, minutes: int) -> None:
    text = moment.astimezone(tz=EPOCH.tzinfo).isoformat()
    times, real = parse_rfc3339([text])
    assert real.all() and int(times[0]) == expected(text)
    local = (moment + timedelta(minutes=minutes)).replace(tzinfo=None).isoformat()
    sign, size = ("-" if minutes < 0 else "+"), divmod(abs(minutes), 60)
    times, real = parse_rfc3339([f"{local}{sign}{size[0]:02}:{size[1]:02}"])
    assert real.all() and int(times[0]) == expected(text)


@pytest.mark.parametrize("text", ["2016-12-31T23:59:60Z", "2023-02-29T00:00:00Z", "1900-02-29T00:00:00Z"])
def test_times_that_do_not_exist(text: str) -> None:
    _, real = parse_rfc3339([text, "2024-02-29T00:00:00Z"])
    assert real.tolist() == [False, True]


def test_every_day_of_the_calendar_that_may_be_odd() -> None:
    days = [f"{year}-02-{day}T12:00:00Z" for year in range(1900, 2401) for day in (28, 29)]
    times, real = parse_rfc3339(days)
    assert [int(t) if ok else None for t, ok in zip(times, real, strict=True)] == [expected(day) for day in days]
