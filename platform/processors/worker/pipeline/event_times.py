"""The times and end offsets of a chunk's events, without decoding the records."""

from typing import NamedTuple

import msgpack
import numpy as np
from numpy.typing import NDArray

from ....errors import ChunkRejected
from ....records.events import NS_PER_S, decode_time

_EVENT_TIME = b"\xd7\x00"
"""The first bytes of an EventTime: an extension of 8 bytes and type 0."""


class TimedEvents(NamedTuple):
    """Event i is `payload[ends[i - 1] : ends[i]]` and has the time `times_ns[i]`, ns since the epoch, UTC.

    Both are int64 of shape (events,).
    """

    payload: bytes
    times_ns: NDArray[np.int64]
    ends: NDArray[np.int64]

    @property
    def is_sorted(self) -> bool:
        """Whether no event is older than the one before it."""
        return bool(np.all(self.times_ns[1:] >= self.times_ns[:-1]))

    def reordered(self, order: NDArray[np.intp]) -> "TimedEvents":
        """The events with these indices, in this order."""
        if len(order) == len(self.ends) and np.array_equal(order, np.arange(len(order))):
            return self
        begins = np.concatenate([[0], self.ends[:-1]])
        payload = b"".join([self.payload[begins[i] : self.ends[i]] for i in order])
        sizes = (self.ends - begins)[order]
        return TimedEvents(payload, self.times_ns[order], np.cumsum(sizes, dtype=np.int64))

    def by_time(self) -> "TimedEvents":
        """The same events sorted by time; the sort is stable."""
        return self if self.is_sorted else self.reordered(np.argsort(self.times_ns, kind="stable"))


def timed_events(payload: bytes) -> TimedEvents | None:
    """Returns the events of a payload; None if it is not well-formed, or the time of an event is not valid.

    About a microsecond and 16 bytes an event.
    """
    size = max(len(payload), 1)
    walker = msgpack.Unpacker(read_size=size, max_buffer_size=size)
    walker.feed(payload)
    times: list[int] = []
    ends: list[int] = []
    end = 0
    try:
        while end < len(payload):
            if walker.read_array_header() != 2:
                return None
            begin = walker.tell()
            walker.skip()
            time = payload[begin : walker.tell()]
            if time.startswith(_EVENT_TIME):
                times.append(int.from_bytes(time[2:6], "big") * NS_PER_S + int.from_bytes(time[6:], "big"))
            else:
                times.append(decode_time(time))
            walker.skip()
            end = walker.tell()
            ends.append(end)
    except (ChunkRejected, msgpack.OutOfData, ValueError, RecursionError):
        return None
    return TimedEvents(payload, np.array(times, np.int64), np.array(ends, np.int64))
