"""Whether all events of a chunk begin with a time as the first does, from the bytes, without decoding them.

Events of a chunk were made within hours of each other, mostly: up to the upper half of the seconds their
times are the same bytes. So the chunk is searched for those of the first; where they are as many as there are
events, each event has them. That costs a quarter of walking over the events.

Bytes within a record can be equal to these by chance. They are counted too, so that the sum is wrong and all
events are looked at; a sum that is right in spite of an invalid event leaves it to the worker.
"""

import numpy as np

from .payload import Payload

FEW_EVENTS = 16
"""So few are looked at one by one in less time."""
_SLICE_BYTES = 512 * 1024  # stays in the cache

# What is before the seconds, and how many bytes of these belong to what is searched for: whatever the others
# are, it is a time in the range of 64 bits of nanoseconds.
_FORMS: tuple[tuple[bytes, int], ...] = (
    (b"\x92\xd7\x00", 2),  # EventTime
    (b"\x92\x92\xd7\x00", 2),  # [EventTime, metadata]
    (b"\x92\xce", 2),  # integer seconds, 32 bits
    (b"\x92\xcf\x00\x00\x00\x00", 2),  # integer seconds, 64 bits
    (b"\x92\xc7\x08\x00", 2),  # EventTime as ext8
    (b"\x92\x92\xc7\x08\x00", 2),
    (b"\x92\x92\xce", 2),
    (b"\x92\xcb\x41", 1),  # a double from 2^17 to 2^33
)


def surely_have_times(payload: Payload, events: int) -> bool:
    """Whether all `events` of a well-formed payload are arrays of two with a time, as far as bytes say it."""
    begin = bytes(payload[:16])
    for form, seconds in _FORMS:
        if begin.startswith(form):
            if events <= FEW_EVENTS:
                return events == 1
            return _count(payload, begin[: len(form) + seconds]) == events
    return False


def _count(payload: Payload, prefix: bytes) -> int:
    """How often `prefix`, of 8 bytes at most, is in the payload.

    Its first byte from 0xc7 on, seldom in text, is searched for; then the 8 bytes there are compared at once.
    """
    size, at = len(payload), next(i for i, byte in enumerate(prefix) if byte >= 0xC7)
    wanted, mask = int.from_bytes(prefix, "little"), (1 << 8 * len(prefix)) - 1
    whole = max(0, size - 7)  # so many places have 8 bytes from there on
    tail = bytes(payload[whole:])
    found = sum(tail.startswith(prefix, start) for start in range(len(tail)))
    if not whole:
        return found
    data = np.frombuffer(payload, np.uint8)
    words = np.ndarray((whole,), "<u8", payload, strides=(1,))
    for start in range(0, whole, _SLICE_BYTES):
        stop = min(start + _SLICE_BYTES, whole)
        places = np.flatnonzero(data[start + at : stop + at] == prefix[at]) + start
        found += int(np.count_nonzero((words[places] & mask) == wanted))
    return found
