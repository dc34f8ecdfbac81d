"""Events that are made of a body's records: the time that is put before them."""

import re
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from ..errors import ChunkRefused
from ..events import NS_PER_S

RECORDS_A_STEP = 1024
"""Records that are made into events between two yields."""

_DECIMAL = re.compile(r"\d{1,19}(\.\d{1,20})?")
_MAX_TIME_S = 1 << 32  # EventTime has 32 bits for them


def parse_time(value: Any) -> int:
    """A point in time in ns since the epoch. Raises ChunkRefused("bad-time").

    Numbers, or decimal numbers as text, are seconds; from 10^11 on (the year 5138) milliseconds, from 10^14
    on microseconds, from 10^17 on nanoseconds. Other text is RFC 3339, or the same with a blank for the T;
    without an offset it is UTC. A float is taken to the microsecond: it holds no more.
    """
    ns: int | None = None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        text = value.strip()
        ns = _scaled(Decimal(text)) if _DECIMAL.fullmatch(text) else _date(text)
    elif isinstance(value, float) and 0 <= value < 1e20:
        ns = round(value * 1e6) * 1000 if value < 1e11 else _scaled(Decimal(value))
    elif isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1e20:
        ns = _scaled(Decimal(value))
    return in_range(ns, value)


def in_range(ns: int | None, value: object) -> int:
    """`ns`, where an EventTime can say it; `value` is what it was made of."""
    if ns is None or not 0 <= ns < _MAX_TIME_S * NS_PER_S:
        raise ChunkRefused(
            "bad-time",
            f"the time {value!r:.80} is none between 1970 and 2106; send seconds since 1970, or RFC 3339",
        )
    return ns


def _scaled(number: Decimal) -> int:
    for unit_ns, end in ((NS_PER_S, 10**11), (1_000_000, 10**14), (1_000, 10**17)):
        if number < end:
            return int(number * unit_ns)
    return int(number)


def _date(text: str) -> int | None:
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:[.,](\d+))?(Z|z|[+-]\d\d:?\d\d)?", text)
    if match is None:
        return None
    whole, fraction, offset = match.groups()
    try:
        moment = datetime.fromisoformat(whole + (offset or "Z").upper())
    except ValueError:
        return None
    seconds = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    return seconds * NS_PER_S + int((fraction or "0").ljust(9, "0")[:9])


def event_head(time_ns: int) -> bytes:
    """The array of two and the EventTime; the record goes behind it."""
    return struct.pack(">BBBII", 0x92, 0xD7, 0, *divmod(time_ns, NS_PER_S))


class BodyBounds(msgspec.Struct, frozen=True):
    """How much a body may become."""

    payload_bytes: int
    events: int

    def check(self, events: int, payload_bytes: int) -> None:
        """Raises ChunkRefused where the events so far are over a bound."""
        if payload_bytes > self.payload_bytes:
            raise ChunkRefused(
                "too-large",
                f"the body becomes more than {self.payload_bytes} bytes of events; send smaller chunks",
            )
        if events > self.events:
            raise ChunkRefused(
                "too-many-events", f"the body has more than {self.events} events; send smaller chunks"
            )
