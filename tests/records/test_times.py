"""Times are read as their senders mean them, to the nanosecond."""

import re
import struct
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from windvane.errors import ChunkRejected, TimeInvalid
from windvane.records.events import decode_time
from windvane.records.times import EventTime, is_compact_date, parse_time

SECONDS_2026 = 1_790_000_000
LEAP = 1_483_228_800  # 2017-01-01T00:00:00Z


@pytest.mark.parametrize(
    ("written", "ns"),
    [
        (1790000000, 1_790_000_000_000_000_000),
        (1790000000.123456, 1_790_000_000_123_456_000),
        (1790000000123, 1_790_000_000_123_000_000),
        (1790000000123456, 1_790_000_000_123_456_000),
        (1790000000123456789, 1_790_000_000_123_456_789),
        (Decimal("1790000000.123456789"), 1_790_000_000_123_456_789),
        (EventTime(7), 7),
        (0, 0),
        (-0.0, 0),
        ("1790000000.123456789", 1_790_000_000_123_456_789),
        ("1790000000.9999999999", 1_790_000_000_999_999_999),
        ("1790000000123.5", 1_790_000_000_123_500_000),
        ("1.790000000123456789e9", 1_790_000_000_123_456_789),
        (" +1790000000 \r\n", 1_790_000_000_000_000_000),
        ("\ufeff1790000000", 1_790_000_000_000_000_000),
        (b"1790000000", 1_790_000_000_000_000_000),
        ("4294967295.999999999", 4_294_967_295_999_999_999),
    ],
)
def test_numbers_are_seconds_or_finer_units_by_their_size(written: Any, ns: int) -> None:
    assert parse_time(written) == ns


@pytest.mark.parametrize(
    ("written", "ns"),
    [
        ("2026-09-21T14:13:20Z", 1_790_000_000_000_000_000),
        ("2026-09-21T14:13:20.000000007Z", 1_790_000_000_000_000_007),
        ("2026-09-21t14:13:20.5z", 1_790_000_000_500_000_000),
        ("2026-09-21T14:13:20,5Z", 1_790_000_000_500_000_000),
        ("2026-09-21T14:13:20.1234567899Z", 1_790_000_000_123_456_789),
        ("2026-09-21 14:13:20.5", 1_790_000_000_500_000_000),
        ("2026/09/21 14:13:20", 1_790_000_000_000_000_000),
        ("2026-09-21T16:13:20+02:00", 1_790_000_000_000_000_000),
        ("2026-09-21T16:13:20.25+0200", 1_790_000_000_250_000_000),
        ("2026-09-21 16:13:20 +0200", 1_790_000_000_000_000_000),
        ("2026-09-21 16:13:20+02", 1_790_000_000_000_000_000),
        ("2026-09-21 14:13:20 UTC", 1_790_000_000_000_000_000),
        ("2026-09-21T14:13:20-00:00", 1_790_000_000_000_000_000),
        ("2026-09-21T14:13Z", 1_789_999_980_000_000_000),
        ("2026-09-21", 1_789_948_800_000_000_000),
        ("20260921T141320Z", 1_790_000_000_000_000_000),
        ("20260921T161320.25+0200", 1_790_000_000_250_000_000),
        ("20260921141320Z", 1_790_000_000_000_000_000),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("2106-02-07T06:28:15.999999999Z", 4_294_967_295_999_999_999),
        ("2028-02-29T00:00:00Z", 1_835_395_200_000_000_000),
    ],
)
def test_text_is_rfc_3339_and_what_loggers_make_of_it(written: str, ns: int) -> None:
    assert parse_time(written) == ns
    assert parse_time(written.encode()) == ns


@pytest.mark.parametrize(
    ("written", "after_ns"),
    [
        ("2016-12-31T23:59:60Z", 0),
        ("2016-12-31t23:59:60.25z", 250_000_000),
        ("2016-12-31T15:59:60-08:00", 0),
        ("2017-01-01T05:29:60.000000001+05:30", 1),
        ("2016-12-31 23:59:60", 0),
        ("20161231T235960Z", 0),
    ],
)
def test_a_leap_second_is_the_second_that_follows_it(written: str, after_ns: int) -> None:
    assert parse_time(written) == LEAP * 10**9 + after_ns


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("20260921", "2026-09-21T00:00:00Z"),
        (20260921, "2026-09-21T00:00:00Z"),
        ("202609211413", "2026-09-21T14:13:00Z"),
        ("20260921141320", "2026-09-21T14:13:20Z"),
        (20260921141320, "2026-09-21T14:13:20Z"),
        ("20260921141320.5", "2026-09-21T14:13:20.5Z"),
        ("20260921141320123", "2026-09-21T14:13:20.123Z"),
    ],
)
def test_a_number_that_is_a_compact_date_is_that_date(written: Any, text: str) -> None:
    assert parse_time(written) == parse_time(text)
    assert is_compact_date(str(written)) == ("." not in str(written))


@pytest.mark.parametrize("digits", ["20261301", "20260230", "18991231", "1790000000", "2026092", "٢٠٢٦٠٩٢١"])
def test_other_digits_are_not_a_compact_date(digits: str) -> None:
    assert not is_compact_date(digits)


@pytest.mark.parametrize(
    "written",
    [
        "yesterday",
        "",
        "-",
        "NaN",
        "1e99",
        "9" * 5000,
        1 << 257,
        -1,
        "-1",
        -0.5,
        True,
        None,
        [],
        {},
        float("nan"),
        float("inf"),
        1e300,
        Decimal("1e300"),
        Decimal("nan"),
        "2026-13-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:61Z",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00+00:60",
        "2026-01-01T00:00:00 Europe/Berlin",
        "2026-01/01T00:00:00Z",
        "2026-01-01T0:00:00Z",
        "2016-12-31T12:34:60Z",
        "2016-12-30T23:59:60Z",
        "2016-12-31T23:59:60+01:00",
        "01.02.2026 00:00:00",
        "٢٠٢٦-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999999999Z",
        "2106-02-07T06:28:16Z",
        "2200-01-01T00:00:00Z",
        4294967296,
    ],
)
def test_what_is_not_a_time_is_rejected(written: Any) -> None:
    with pytest.raises(TimeInvalid, match="is not a valid time") as rejected:
        parse_time(written)
    assert isinstance(rejected.value, ChunkRejected)
    assert rejected.value.code == "bad-time"
    assert len(str(rejected.value)) < 250


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2106, 2, 1)),
    st.integers(0, 999),
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
    st.sampled_from("Tt "),
)
def test_any_time_of_any_zone_is_what_datetime_says(
    moment: datetime, nanoseconds: int, offset_min: int, separator: str
) -> None:
    utc = moment.replace(tzinfo=UTC)
    local = utc.astimezone(timezone(timedelta(minutes=offset_min)))
    sign = "-" if offset_min < 0 else "+"
    hours, minutes = divmod(abs(offset_min), 60)
    text = f"{local:%Y-%m-%d}{separator}{local:%H:%M:%S.%f}{nanoseconds:03d}{sign}{hours:02d}:{minutes:02d}"
    since = utc - datetime(1970, 1, 1, tzinfo=UTC)
    expected = (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000 + nanoseconds
    assert parse_time(text) == expected


@given(st.integers(0, 2**32 * 10**9 - 1))
def test_no_nanosecond_is_lost_whatever_the_unit(ns: int) -> None:
    seconds, rest = divmod(ns, 10**9)
    assert parse_time(f"{seconds}.{rest:09d}") == ns
    assert parse_time(Decimal(f"{seconds}.{rest:09d}")) == ns
    if ns >= 10**17:  # less is not taken for nanoseconds
        assert parse_time(ns) == parse_time(str(ns)) == ns


@given(st.text(max_size=30) | st.from_regex(re.compile(r"[0-9TZ:+. -]{1,25}", re.ASCII), fullmatch=True))
def test_any_text_is_a_time_or_rejected(text: str) -> None:
    with suppress(TimeInvalid):
        assert 0 <= parse_time(text) < 2**32 * 10**9


def test_a_float_of_a_msgpack_event_has_the_digits_that_it_shows() -> None:
    packed = b"\xcb" + struct.pack(">d", 1790000000.123456)
    assert decode_time(packed) == parse_time(msgpack.unpackb(packed)) == 1_790_000_000_123_456_000
