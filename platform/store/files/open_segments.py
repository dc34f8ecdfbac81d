"""How many segments a process keeps open for writing, over all of its writers."""

from __future__ import annotations

import os
import resource
from collections import OrderedDict

_MOST_OPEN_SEGMENTS = 16_384
# One of so many evictions closes the least recently written segment.
_TURNS = 8


class OpenSegments:
    """The segments that writers write to, by writer.

    A writer takes its segment out, writes, and puts it back: so no other thread can close it meanwhile.
    Taking and putting are single operations of a C dictionary, safe between threads without a lock of their
    own.

    Bound: half of the descriptors that the process may open (RLIMIT_NOFILE), at most 16,384. Streams are
    mostly written in turn. If there are more of them than can be open, keeping the latest would keep
    each one just until before its next turn. So seven of eight evictions close the segment that was just
    written, and one closes the least recently written one (bimodal insertion:
    Qureshi et al., "Adaptive Insertion Policies for High Performance Caching", ISCA 2007). A miss costs about
    5 µs.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self._limit = 0
        self._turn = 0

    def take(self, writer_id: int) -> tuple[int, int] | None:
        """Take out the (segment, descriptor) of a writer; the caller has to return or close it."""
        return self._open.pop(writer_id, None)

    def put(self, writer_id: int, segment: int, descriptor: int) -> None:
        """Keep a writer's open segment for its next write, and close one if there are too many."""
        self._open[writer_id] = (segment, descriptor)
        if len(self._open) > self._limit:
            self._shrink()

    def make_room(self) -> None:
        """Close half of them, since the process has no descriptor left for another."""
        self._close_down_to(len(self._open) // 2)

    def close(self, writer_id: int) -> None:
        """Close the open segment of a writer, if any."""
        taken = self._open.pop(writer_id, None)
        if taken is not None:
            os.close(taken[1])

    def __len__(self) -> int:
        return len(self._open)

    def _shrink(self) -> None:
        # Read each time: a server raises its limit after it has imported this.
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        unlimited = soft == resource.RLIM_INFINITY
        self._limit = _MOST_OPEN_SEGMENTS if unlimited else min(_MOST_OPEN_SEGMENTS, max(soft // 2, 1))
        self._close_down_to(self._limit)

    def _close_down_to(self, count: int) -> None:
        while len(self._open) > count:
            self._turn += 1
            try:
                _, (_, descriptor) = self._open.popitem(last=self._turn % _TURNS != 0)
            except KeyError:  # another thread has emptied it
                return
            os.close(descriptor)


open_segments = OpenSegments()
