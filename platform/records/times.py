"""Parsing of the times that senders write, to nanoseconds since the epoch.

Every endpoint uses `parse_time`: bodies over HTTP (`?time_key=`, `?time=`), JSON on the forward port, and the
files of `windvane send`. Times of msgpack events are typed by the forward protocol: see `events.time_ns`.
All arithmetic is in integers, so that no digit up to the nanosecond is lost.
"""

import math
import re
from datetime import date
from decimal import Decimal
from typing import Any

from ..errors import TimeInvalid

NS_PER_S = 1_000_000_000
MAX_TIME_S = 1 << 32
"""EventTime has 32 bits for its seconds: they end in 2106."""
MAX_TIME_CHARACTERS = 100
_SECONDS_PER_DAY = 86_400
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?")
_CLOCK = r"([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?"
_OFFSET = r"(?: ?(Z|z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?))?"
_DATE = re.compile(rf"([0-9]{{4}})([-/])([0-9]{{2}})\2([0-9]{{2}})(?:[Tt ]{_CLOCK}{_OFFSET})?")
_BASIC = re.compile(
    r"([0-9]{4})([0-9]{2})([0-9]{2})(?:([Tt])?([0-9]{2})([0-9]{2})(?:([0-9]{2})(?:[.,]([0-9]+))?)?)?"
    + _OFFSET
)
_UNITS = ((NS_PER_S, 10**11), (1_000_000, 10**14), (1_000, 10**17))
"""Nanoseconds of a unit, and the number from which on a finer one is meant."""
_COMPACT_DIGITS = frozenset([8, 12, 14, 17])
"""Of YYYYMMDD, YYYYMMDDhhmm, YYYYMMDDhhmmss and the last with milliseconds."""


class EventTime(int):
    """Nanoseconds since the epoch, decoded from an EventTime; a plain int as a time is in seconds."""

    __slots__ = ()


def parse_time(value: Any) -> int:
    """A point in time in ns since the epoch, 1970 to 2106. Raises TimeInvalid.

    Numbers (int, float, Decimal, or their text) are seconds; from 10^11 on (the year 5138) milliseconds, from
    10^14 on microseconds, from 10^17 on nanoseconds. A whole number of 8, 12, 14 or 17 digits that is a
    calendar date between 1970 and 2106 (YYYYMMDD, then hhmm, ss and milliseconds) is that date. A float
    counts as the shortest decimal number that stands for it.

    Other text is RFC 3339. Beyond it, a blank may stand for the T and slashes for the hyphens, the offset may
    be UTC, GMT, +hh or +hhmm, and offset, seconds, or the time of day may be missing: then it is UTC, second
    0, or midnight. ISO 8601's form without hyphens is accepted with a T.

    A leap second (23:59:60 UTC on the last day of a month) is the second that follows it, as POSIX counts.
    Digits beyond the nanosecond are cut.
    """
    ns: int | None = None
    if isinstance(value, EventTime):
        ns = int(value)
    elif isinstance(value, bytes | str):
        ns = _of_text(value if isinstance(value, str) else value.decode("utf-8", "replace"))
    elif isinstance(value, float) and math.isfinite(value):
        ns = _scaled(Decimal(repr(value)))
    elif isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**20:
        ns = _of_digits(str(value))
    elif isinstance(value, Decimal) and value.is_finite() and -400 < value.adjusted() < 400:
        ns = _scaled(value)
    return in_range(ns, value)


def parse_date_time(text: str) -> int:
    """As `parse_time`, of text that has a date, such as RFC 3339: a number is not accepted."""
    return in_range(None if _NUMBER.fullmatch(text.strip()) else _of_text(text), text)


def in_range(ns: int | None, value: object) -> int:
    """`ns`, if an EventTime can hold it; `value` is what it was made of. Raises TimeInvalid."""
    if ns is None or not 0 <= ns < MAX_TIME_S * NS_PER_S:
        is_long = isinstance(value, int) and abs(value) > 1 << 256  # Python shows only 4,300 digits
        shown = "an integer of many digits" if is_long else repr(value)
        raise TimeInvalid(
            f"{shown:.80} is not a valid time between 1970 and 2106; send seconds since 1970, or RFC 3339 "
            "such as 2026-11-22T10:48:00Z"
        )
    return ns


def seconds_to_ns(seconds: float) -> int:
    """Nanoseconds of a finite float of seconds: of the shortest decimal number that stands for it, cut."""
    return _whole(Decimal(repr(seconds)), NS_PER_S)


def is_compact_date(digits: str) -> bool:
    """Whether a text of digits is YYYYMMDD, with hhmm, ss and milliseconds or without, in 1970 to 2106."""
    return digits.isascii() and digits.isdecimal() and _compact(digits) is not None


def _of_text(text: str) -> int | None:
    text = text.strip(" \t\r\n\ufeff")
    if len(text) > MAX_TIME_CHARACTERS:
        return None
    if text.isascii() and text.isdecimal():
        return _of_digits(text)
    if _NUMBER.fullmatch(text):
        # 20260101120000.5 is a date with a fraction; as a number it would be in the year 2612.
        whole, _, fraction = text.partition(".")
        if len(whole) == 14 and fraction.isdecimal() and _compact(whole) is not None:
            return _calendar(_BASIC.fullmatch(text))
        return _scaled(Decimal(text))
    if match := _DATE.fullmatch(text):
        year, _, month, day, *clock, offset = match.groups()
        return _moment((year, month, day), clock, offset)
    match = _BASIC.fullmatch(text)
    return _calendar(match) if match is not None and (match[4] or match[9]) else None


def _of_digits(digits: str) -> int | None:
    if (ns := _compact(digits)) is not None:
        return ns
    number = int(digits)
    for unit_ns, end in _UNITS:
        if number < end:
            return number * unit_ns
    return number


def _compact(digits: str) -> int | None:
    if len(digits) not in _COMPACT_DIGITS:
        return None
    if len(digits) == 17:
        digits = f"{digits[:14]}.{digits[14:]}"
    ns = _calendar(_BASIC.fullmatch(digits))
    return ns if ns is not None and 0 <= ns < MAX_TIME_S * NS_PER_S else None


def _calendar(match: re.Match[str] | None) -> int | None:
    if match is None:
        return None
    year, month, day, _, *clock, offset = match.groups()
    return _moment((year, month, day), clock, offset)


def _moment(day: tuple[str, str, str], clock: list[str | None], offset: str | None) -> int | None:
    """`clock` is hours, minutes, seconds, and digits after the decimal point."""
    hour, minute, second = (int(part or 0) for part in clock[:3])
    if hour > 23 or minute > 59 or second > 60:
        return None
    try:
        days = date(*map(int, day)).toordinal() - _EPOCH_ORDINAL
    except ValueError:
        return None
    offset_s = _offset_s(offset)
    if offset_s is None:
        return None
    seconds = days * _SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset_s
    if second == 60 and not _ends_a_month(seconds):
        return None
    return seconds * NS_PER_S + int((clock[3] or "0").ljust(9, "0")[:9])


def _offset_s(offset: str | None) -> int | None:
    if offset is None or offset in ("Z", "z", "UTC", "GMT"):
        return 0
    hours, minutes = int(offset[1:3]), int(offset[3:].lstrip(":") or 0)
    if hours > 23 or minutes > 59:
        return None
    return (-1 if offset[0] == "-" else 1) * (hours * 3600 + minutes * 60)


def _ends_a_month(seconds: int) -> bool:
    """Whether that second begins a month: leap seconds are only inserted before these."""
    days, rest = divmod(seconds, _SECONDS_PER_DAY)
    return rest == 0 and date.fromordinal(days + _EPOCH_ORDINAL).day == 1


def _scaled(number: Decimal) -> int:
    for unit_ns, end in _UNITS:
        if number < end:
            return _whole(number, unit_ns)
    return _whole(number, 1)


def _whole(number: Decimal, unit_ns: int) -> int:
    numerator, denominator = number.as_integer_ratio()
    return numerator * unit_ns // denominator
