"""Bounds of selections: rows, bytes, and times in every form."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from windvane.errors import SelectionInvalid
from windvane.records.bounds import Bound, Instant, bound_of, parse_bound

NOVEMBER_NS = 1_793_491_200_000_000_000  # 2026-11-01T00:00Z


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("0", 0),
        ("-10", -10),
        ("+7", 7),
        ("20261101", 20261101),
        ("99999999999999999", 10**17 - 1),
        ("100000000000000000", Instant(10**17)),
        (str(NOVEMBER_NS), Instant(NOVEMBER_NS)),
        (str(NOVEMBER_NS + 7), Instant(NOVEMBER_NS + 7)),
        ("99999999999999999999", 2**63 - 1),
        ("-99999999999999999999", -(2**63)),
        ("2026-11-01T00:00Z", Instant(NOVEMBER_NS)),
        ("2026-11-01T00:00:00Z", Instant(NOVEMBER_NS)),
        ("2026-11-01T00:00:00.000000007Z", Instant(NOVEMBER_NS + 7)),
        ("2026-11-01T01:30+01:30", Instant(NOVEMBER_NS)),
        ("2026-11-01 00:00", Instant(NOVEMBER_NS)),
        ("2026-11-01", Instant(NOVEMBER_NS)),
        ("1970-01-01T00:00:00.000001Z", Instant(1_000)),
    ],
)
def test_whole_numbers_are_rows_and_everything_else_is_a_time(text: str, bound: Bound) -> None:
    assert parse_bound(text) == bound


@pytest.mark.parametrize(
    "text",
    ["", "a", "1.5", "1e3", "2026-02-30", "2026-11-01T25:00Z", "1969-12-31T00:00Z", "9" * 21, "9" * 5000],
)
def test_other_text_is_rejected_with_what_to_write(text: str) -> None:
    with pytest.raises(SelectionInvalid, match=r"RFC 3339 such as 2026-11-01T00:00Z"):
        parse_bound(text)


def test_a_plus_that_a_url_turned_into_a_blank_is_named() -> None:
    with pytest.raises(SelectionInvalid, match=r"\+ is written %2B"):
        parse_bound("2026-11-01T01:00 01:00")


@pytest.mark.parametrize(
    ("value", "bound"),
    [
        ("2026-11-01T00:00Z", Instant(NOVEMBER_NS)),
        (datetime(2026, 11, 1), Instant(NOVEMBER_NS)),
        (datetime(2026, 11, 1, 0, 0, 0, 1, UTC), Instant(NOVEMBER_NS + 1_000)),
        (datetime(2026, 11, 1, 2, tzinfo=timezone(timedelta(hours=2))), Instant(NOVEMBER_NS)),
        (np.datetime64("2026-11-01"), Instant(NOVEMBER_NS)),
        (np.datetime64(NOVEMBER_NS + 7, "ns"), Instant(NOVEMBER_NS + 7)),
        (NOVEMBER_NS, NOVEMBER_NS),  # as in every slice, an int is a row
        (None, None),
    ],
)
def test_python_s_times_are_bounds_and_its_integers_are_rows(value: Any, bound: Any) -> None:
    assert bound_of(value) == bound


def test_a_time_that_is_none_is_rejected() -> None:
    with pytest.raises(SelectionInvalid, match="NaT"):
        bound_of(np.datetime64("NaT"))
