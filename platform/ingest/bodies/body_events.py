"""Events that are made of a body's records: the time that is put before them."""

import struct
from typing import Any

import msgspec

from ...errors import ChunkRejected, TimeInvalid
from ...records.json_records import pack_json
from ...records.times import MAX_TIME_CHARACTERS, NS_PER_S, parse_time

RECORDS_A_STEP = 1024
"""Records that are made into events between two yields."""


def event_head(time_ns: int) -> bytes:
    """The array of two and the EventTime; the record goes behind it."""
    return struct.pack(">BBBII", 0x92, 0xD7, 0, *divmod(time_ns, NS_PER_S))


def head_of(time: Any) -> bytes:
    """As `event_head`, of a time as a sender wrote it.

    If it is not a time, it stays in its place as text: the gateway rejects that event, and only that.
    """
    try:
        return event_head(parse_time(time))
    except TimeInvalid:
        shown = time if isinstance(time, str) else f"{time!r:.100}"
        return b"\x92" + pack_json(shown[:MAX_TIME_CHARACTERS])


class BodyBounds(msgspec.Struct, frozen=True):
    """How much a body may become."""

    payload_bytes: int
    events: int

    def check(self, events: int, payload_bytes: int) -> None:
        """Raises ChunkRejected if the events so far exceed a bound."""
        if payload_bytes > self.payload_bytes:
            raise ChunkRejected(
                "too-large",
                f"the body becomes more than {self.payload_bytes} bytes of events; send smaller chunks",
            )
        if events > self.events:
            raise ChunkRejected(
                "too-many-events", f"the body has more than {self.events} events; send smaller chunks"
            )
