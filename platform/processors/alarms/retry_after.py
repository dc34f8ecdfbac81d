"""Parses the header Retry-After (RFC 9110, section 10.2.3)."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_S = 3600.0
"""Upper bound of a requested pause: a wrong date must not stop deliveries for years."""

_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?")


def retry_after_s(headers: Mapping[str, str], *, now_s: float) -> float | None:
    """Returns seconds from now, 0 to MAX_RETRY_AFTER_S; None if the header is absent or not valid.

    The value is a number of seconds or a date in one of the three forms of HTTP. A date is relative to the
    `Date` of the same response, so that clocks may differ. Without `Date` it is relative to `now_s` (s since
    the epoch).

    >>> retry_after_s({"Retry-After": "120"}, now_s=0)
    120.0
    >>> retry_after_s({"Retry-After": "Thu, 01 Jan 1970 00:01:00 GMT"}, now_s=20)
    40.0
    """
    text = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(text):
        wanted_s = float(text)
    else:
        until_s = _date_s(text)
        if until_s is None:
            return None
        answered_s = _date_s(headers.get("Date", "").strip())
        wanted_s = until_s - (now_s if answered_s is None else answered_s)
    return min(max(wanted_s, 0.0), MAX_RETRY_AFTER_S)


def _date_s(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # Dates of RFC 850 and asctime have no zone, or one that Python ignores: in HTTP it is GMT.
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return (date - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
