"""The bounds of a selection: numbers of rows or bytes, or points in time.

The HTTP API, the command line and the lab read `start` and `stop` with this module, so that all of them
accept the same text. `store.selection.time_ranges` finds the rows and bytes.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import numpy as np

from ..errors import SelectionInvalid, TimeInvalid
from .times import MAX_TIME_S, NS_PER_S, parse_date_time

FIRST_TIME_NS = 10**17
"""A whole number from this on is a time in ns (1973-03-03 or later), as in `parse_time`: no array and no
stream has as many rows or bytes. An earlier time is written as RFC 3339.
"""
MAX_NUMBER = 2**63 - 1
"""What NumPy can take; a larger number counts as this one."""

_MAX_DIGITS = 20
_INTEGER = re.compile(r"([+-]?)0*([0-9]+)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORMS = "give a number, ns since 1970, or a time in RFC 3339 such as 2026-11-01T00:00Z"


@dataclass(frozen=True, slots=True)
class Instant:
    """A bound that is a point in time: ns since the epoch, UTC."""

    time_ns: int


Bound: TypeAlias = int | Instant
"""A number of a row or byte, negative from the end as in slices, or a point in time."""


def parse_bound(text: str) -> Bound:
    """A bound as users write it. Raises SelectionInvalid.

    A whole number is the number of a row or byte; from 10^17 on it is a time in ns since the epoch. Other
    text is a time as `parse_date_time` reads it: RFC 3339, in which seconds, the time of day and the offset
    (UTC) are optional.

    >>> parse_bound("-10")
    -10
    >>> parse_bound("2026-11-01T00:00Z") == parse_bound("1793491200000000000")
    True
    """
    if match := _INTEGER.fullmatch(text.strip()):
        if len(match[2]) > _MAX_DIGITS:
            raise SelectionInvalid(f"{text[:40]!r} has too many digits; {_FORMS}")
        number = int(match[1] + match[2])
        if FIRST_TIME_NS <= number < MAX_TIME_S * NS_PER_S:
            return Instant(number)
        return max(-MAX_NUMBER - 1, min(number, MAX_NUMBER))
    try:
        return Instant(parse_date_time(text))
    except TimeInvalid:
        hint = " (in a URL, + is written %2B)" if re.search(r" \d\d:?\d\d$", text) else ""
        raise SelectionInvalid(
            f"{text[:40]!r} is neither a whole number nor a time between 1970 and 2106{hint}; {_FORMS}"
        ) from None


def bound_of(value: Any) -> Any:
    """A bound as Python code writes it: text and times become bounds, everything else is returned as it is.

    Takes what `parse_bound` takes, datetime and numpy.datetime64; without a time zone they are UTC. Raises
    SelectionInvalid.
    """
    if isinstance(value, str):
        return parse_bound(value)
    if isinstance(value, datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return Instant((aware - _EPOCH) // timedelta(microseconds=1) * 1_000)
    if isinstance(value, np.datetime64):
        if np.isnat(value):
            raise SelectionInvalid(f"NaT is not a time; {_FORMS}")
        return Instant(int(value.astype("datetime64[ns]").astype(np.int64)))
    return value
