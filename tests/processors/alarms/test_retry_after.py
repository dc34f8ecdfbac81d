"""Retry-After as receivers write it: RFC 9110, sections 10.2.3 and 5.6.7."""

import pytest
from windvane.processors.alarms.retry_after import MAX_RETRY_AFTER_S, retry_after_s

NOW_S = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4", 4),
        (" 120 ", 120),
        ("0", 0),
        ("1.5", 1.5),
        ("007", 7),
        ("3600", 3600),
        ("3601", MAX_RETRY_AFTER_S),
        ("9" * 400, MAX_RETRY_AFTER_S),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10),
        ("Sunday, 06-Nov-94 08:49:47 GMT", 10),
        ("Sun Nov  6 08:49:47 1994", 10),
        ("Sun, 06 Nov 1994 10:49:47 +0200", 10),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER_S),
        ("", None),
        ("-1", None),
        ("soon", None),
        ("NaN", None),
        ("inf", None),
        ("1e3", None),
        ("\u0664", None),
        ("Sun, 99 Nov 1994 08:49:47 GMT", None),
        ("Sun, 06 Nov 99999999999999999999 08:49:47 GMT", None),
    ],
)
def test_seconds_and_the_three_forms_of_a_date(text: str, expected: float | None) -> None:
    assert retry_after_s({"Retry-After": text}, now_s=NOW_S) == expected


def test_without_the_header_there_is_no_pause() -> None:
    assert retry_after_s({"Date": "Sun, 06 Nov 1994 08:49:37 GMT"}, now_s=NOW_S) is None


@pytest.mark.parametrize("wrong_by_s", [-86400, 86400])
def test_a_date_counts_from_the_clock_of_its_receiver(wrong_by_s: int) -> None:
    headers = {"Retry-After": "Sun, 06 Nov 1994 08:49:47 GMT", "Date": "Sun, 06 Nov 1994 08:49:37 GMT"}
    assert retry_after_s(headers, now_s=NOW_S + wrong_by_s) == 10
