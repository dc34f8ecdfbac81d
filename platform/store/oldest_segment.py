"""The oldest segment of a stream or an array: what retention drops next, and from when on it may."""

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import RangeGone
from .interface import ArrayReader, StreamReader

Output: TypeAlias = StreamReader | ArrayReader
_ROWS_A_LOOK = 1_048_576
_TIME_BYTES = 8


class OldestSegment(NamedTuple):
    """The first segment: bytes or rows `start` to `stop`, which are dropped together.

    `size_bytes` is about what that frees. `last_ns` is the event time of the last row, or the arrival of the
    last chunk that began in it; ns since the epoch, UTC.
    """

    start: int
    stop: int
    size_bytes: int
    last_ns: int


def oldest_segment(output: Output, *, start: int | None = None) -> OldestSegment | None:
    """The first segment that begins at or after `start`, by default the first that is kept.

    None while it is not full. Costs a few reads, whatever the size of the segment.
    """
    start = output.start if start is None else start
    stop = output.segment_stop(start)
    if stop > _length(output):
        return None
    try:
        if isinstance(output, StreamReader):
            last = _chunks_before(output, stop) - 1
            last_ns = int(output.arrivals[max(last, output.arrivals.start)]["arrived_ns"])
            return OldestSegment(start, stop, stop - start, last_ns)
        size_bytes = bytes_per_row(output) * (stop - start)
        return OldestSegment(start, stop, size_bytes, int(output.times_ns[stop - 1]))
    except (RangeGone, IndexError):  # dropped or cut meanwhile, by another process
        return None


def latest_ns(output: Output, segment: OldestSegment, *, now_ns: int) -> int:
    """The latest time in a segment, which may be out of order.

    Times after `now_ns` do not count if others do: a sender with a wrong clock must not keep what is around
    its rows. Raises RangeGone if the segment is dropped meanwhile. Memory: that of 1 Mi times.
    """
    latest = latest_past = np.iinfo(np.int64).min
    for times_ns in _times(output, segment):
        latest = max(latest, int(times_ns.max()))
        past = times_ns[times_ns <= now_ns]
        if len(past):
            latest_past = max(latest_past, int(past.max()))
    return latest if latest_past == np.iinfo(np.int64).min else latest_past


def expired_until(
    output: Output, *, cutoff_ns: int, now_ns: int, max_segments: int
) -> tuple[int, OldestSegment | None]:
    """Where the output begins once its expired segments are dropped, and the segment that is first then.

    A segment has expired if all its times are before `cutoff_ns`. At most `max_segments` are looked at.
    """
    start = output.start
    segment = None
    for _ in range(max_segments):
        segment = oldest_segment(output, start=start)
        if segment is None or cutoff_ns <= segment.last_ns <= now_ns:
            break
        latest = latest_ns(output, segment, now_ns=now_ns)
        if latest >= cutoff_ns:
            return start, segment._replace(last_ns=latest)
        start = segment.stop
    return start, segment


def bytes_per_row(output: Output) -> int:
    """Bytes of storage for each row and its time, or for each byte of a stream."""
    return 1 if isinstance(output, StreamReader) else output.row_bytes + _TIME_BYTES


def _length(output: Output) -> int:
    return output.size if isinstance(output, StreamReader) else len(output)


def _chunks_before(stream: StreamReader, offset: int) -> int:
    """How many chunks begin before byte `offset`."""
    arrivals = stream.arrivals
    return bisect_left(
        range(len(arrivals)), offset, lo=arrivals.start, key=lambda chunk: int(arrivals[chunk]["offset"])
    )


def _times(output: Output, segment: OldestSegment) -> Iterator[NDArray[np.int64]]:
    if isinstance(output, StreamReader):
        first = max(output.arrivals.start, _chunks_before(output, segment.start) - 1)
        stop = max(_chunks_before(output, segment.stop), first + 1)
        for begin in range(first, stop, _ROWS_A_LOOK):
            yield np.asarray(output.arrivals[begin : min(stop, begin + _ROWS_A_LOOK)]["arrived_ns"])
        return
    for begin in range(segment.start, segment.stop, _ROWS_A_LOOK):
        yield np.asarray(output.times_ns[begin : min(segment.stop, begin + _ROWS_A_LOOK)])
