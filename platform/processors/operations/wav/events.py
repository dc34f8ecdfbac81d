"""The events that brought the bytes of a block: their times, and the files that begin with them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..base.block import Block, EventTimes
from .other_formats import LOOKED_AT_BYTES, is_other_kind
from .riff import FILE_START_BYTES, begins_file


def file_starts(view: memoryview, starts: NDArray[np.int64], position: int) -> tuple[list[int], int]:
    """Where, from `position` on, events begin a file; and an event that may do so with more bytes.

    Args:
        view: the bytes.
        starts: where in them events begin, in any order.
        position: the first of them that counts.
    """
    data = np.frombuffer(view, np.uint8)
    at = np.unique(starts[(starts >= position) & (starts < len(data))])
    at = at[(data[at] == ord("R")) | (data[at] == ord("B"))]
    found: list[int] = []
    for start in at.tolist():
        is_file = begins_file(bytes(view[start : start + FILE_START_BYTES]))
        if is_file is None:
            return found, start
        if is_file:
            found.append(start)
    return found, len(data)


def begins_other_kind(view: memoryview, starts: NDArray[np.int64], places: range) -> bool:
    """Whether the first event that begins at one of the places is not audio: arguments as `file_starts`."""
    for at in places:
        if at < len(view) and np.any(starts == at):
            event_end = int(starts[starts > at].min(initial=len(view)))
            return is_other_kind(bytes(view[at : min(at + LOOKED_AT_BYTES, event_end)]))
    return False


def events_of(times: EventTimes, begin: int, stop: int, *, first: int) -> tuple[tuple[int, int], ...]:
    """(end, time in ns) of the events that brought the bytes from `begin` on of a block from `first` on."""
    ends, times_ns = times.ends, times.times_ns
    theirs = (ends >= begin) & (ends <= stop)
    # Of events that end at the same place, the first brought the bytes.
    theirs[1:] &= np.diff(ends) > 0
    events = tuple(zip(ends[theirs].tolist(), times_ns[theirs].tolist(), strict=True))
    # An end without bytes means that an event, possibly a file, begins there.
    return ((first, 0), *events) if begin == first else events


def merged_times(pending: tuple[tuple[int, int], ...], source: Block) -> EventTimes:
    """The events, as (end, time in ns), that brought bytes still pending, and those of the block."""
    if not pending:
        return source.times
    before, before_ns = np.array(pending, np.int64).T
    return EventTimes(
        np.concatenate((before, source.times.ends)), np.concatenate((before_ns, source.times.times_ns))
    )
