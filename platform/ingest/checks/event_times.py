"""Times of events as the bytes that came: whether they are times, and within bounds."""

import struct
from collections.abc import Sequence

from ...errors import ChunkRejected
from ...records.events import NS_PER_S, decode_time

# The bytes before the seconds (u32, then nanoseconds u32 or nothing) in the usual forms of time.
_TIME_FORMS: tuple[tuple[bytes, str], ...] = (
    (b"\xd7\x00", ">II"),  # EventTime as fixext8
    (b"\x92\xd7\x00", ">II"),  # [EventTime, metadata]
    (b"\xce", ">I"),  # integer seconds
    (b"\xc7\x08\x00", ">II"),  # EventTime as ext8
    (b"\x92\xc7\x08\x00", ">II"),
    (b"\x92\xce", ">I"),
)


def times_valid(times: Sequence[bytes], bounds: tuple[int, int]) -> bool:
    """Whether all are times within the bounds.

    All that sorts between two byte strings with a common prefix has that prefix. So where the smallest and
    the largest are times of one form, all are, and lie between the two.
    """
    if not times:
        return True
    smallest, largest = min(times), max(times)
    for prefix, numbers in _TIME_FORMS:
        if smallest.startswith(prefix):
            return (
                largest.startswith(prefix)
                and bounds[0] <= _time_of_form(smallest, prefix, numbers)
                and _time_of_form(largest, prefix, numbers) <= bounds[1]
            ) or all(fault_of_time(time, bounds) is None for time in times)
    if smallest == largest:
        return fault_of_time(smallest, bounds) is None
    return all(fault_of_time(time, bounds) is None for time in times)


def _time_of_form(time: bytes, prefix: bytes, numbers: str) -> int:
    seconds, *nanoseconds = struct.unpack_from(numbers, time, len(prefix))
    return int(seconds * NS_PER_S + sum(nanoseconds))


def fault_of_time(time: bytes, bounds: tuple[int, int]) -> str | None:
    """What is wrong with one, in words."""
    try:
        ns = decode_time(time)
    except ChunkRejected as error:
        return str(error)
    if ns < bounds[0]:
        return f"its time lies {(bounds[0] - ns) / NS_PER_S:.0f} s beyond limits.max_age_s; look at its clock"
    if ns > bounds[1]:
        return (
            f"its time lies {(ns - bounds[1]) / NS_PER_S:.0f} s beyond limits.max_future_s; look at its clock"
        )
    return None
