"""Finds the rows of an array, and the bytes of a stream, that lie in a range of time.

The search is binary: it reads at most 64 times, whatever the length, and takes them as ascending. They may
not be: a sender that resends, or whose clock is set back, makes rows whose times are earlier than those
before. The search then still ends at a row whose time is the requested one or later, after a row whose time
is earlier. There can be several such rows, so a row out of order can be outside of the range although its
time is inside, or the reverse. A reader that needs every row of such an array selects a wider range, and
compares the times.
"""

from bisect import bisect_left
from typing import TYPE_CHECKING

from ...errors import RangeGone
from ...records.bounds import Bound, Instant
from ..interface.rows import rows_of_slice
from ..pyramid.dropped_rows import first_row, row_around

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..interface import ArrayReader, RowReader, StreamReader


_MOST_ROWS = 2**60
"""A row of a view beyond it counts as this one, so that the edges of pixels are numbers of 64 bits."""


def row_at(array: "ArrayReader", time_ns: int) -> int:
    """The first kept row whose time is `time_ns` or later; the length of the array if there is none.

    Whatever the order of the times, the row has such a time, or is the length, and the kept row before it has
    an earlier one.
    """
    times = array.times_ns
    return _first(times, time_ns, lambda number: int(times[number]))


def row_slice(
    array: "ArrayReader", start: Bound | None, stop: Bound | None, step: int | None = None
) -> slice:
    """The slice of rows from `start` up to, without, `stop`; a time stands for its `row_at`."""
    first, end = (
        row_at(array, bound.time_ns) if isinstance(bound, Instant) else bound for bound in (start, stop)
    )
    return slice(first, end, step)


def view_range(array: "ArrayReader", start: Bound | None, stop: Bound | None) -> tuple[int, int]:
    """The first row and the row after the last of a view, which may reach past the rows that there are.

    By default from the first row kept, or the first one of which the pyramid has cells, to the end; an empty
    range if `stop` is before `start`. Times of rows that were dropped are known for every 4,096th row, and
    widen the view to one of these. Negative rows count from the end.
    """
    begin, end = _view_row(array, start, is_begin=True), _view_row(array, stop, is_begin=False)
    first = min(first_row(array, array.levels()) if begin is None else begin, _MOST_ROWS)
    return first, max(first, min(len(array) if end is None else end, _MOST_ROWS))


def _view_row(array: "ArrayReader", bound: Bound | None, *, is_begin: bool) -> int | None:
    if not isinstance(bound, Instant):
        return bound if bound is None or bound >= 0 else max(0, len(array) + bound)
    dropped = row_around(array, bound.time_ns, before=is_begin)
    return row_at(array, bound.time_ns) if dropped is None else dropped


def rows_between(
    array: "ArrayReader", start: Bound | None, stop: Bound | None, step: int | None = None
) -> range:
    """The rows that `row_slice` selects, of those that are kept. Raises RangeGone."""
    key = row_slice(array, start, stop, step)
    return selected_rows(key, kept_from=array.start, length=len(array))


def selected_rows(key: slice, *, kept_from: int, length: int) -> range:
    """The rows that `array[key]` gives, of an array with `length` rows that keeps those from `kept_from`.

    An open lower end of the key is `kept_from`. Raises ValueError for a step of 0, RangeGone if the rows
    reach below `kept_from`.
    """
    rows = rows_of_slice(key, kept_from=kept_from, length=length)
    if rows and min(rows[0], rows[-1]) < kept_from:
        raise RangeGone(
            f"Row {min(rows[0], rows[-1])} was dropped; the first that is kept is row {kept_from}. "
            f"Ask from start={kept_from} on."
        )
    return rows


def offset_at(stream: "StreamReader", time_ns: int) -> int:
    """The offset of the first kept chunk that arrived at `time_ns` or later, else the end of the last.

    The times of streams are those of arrival: the bytes of a chunk belong to the time at which it arrived.
    """
    arrivals = stream.arrivals
    number = _first(arrivals, time_ns, lambda number: int(arrivals[number]["arrived_ns"]))
    if number < len(arrivals):
        return max(int(arrivals[number]["offset"]), stream.start)
    last = arrivals[-1:]
    return int(last[0]["offset"] + last[0]["size"]) if len(last) else stream.start


def byte_range(stream: "StreamReader", start: Bound | None, stop: Bound | None) -> range:
    """The offsets from `start` up to, without, `stop`, as in a slice of the bytes that are kept.

    Raises RangeGone if `start` is an offset whose byte was dropped.
    """
    first, end = (
        offset_at(stream, bound.time_ns) if isinstance(bound, Instant) else bound for bound in (start, stop)
    )
    kept_from = stream.start
    first = kept_from if first is None else first
    begin, last, _ = slice(first, end).indices(stream.size)
    offsets = range(begin, max(begin, last))
    if offsets and offsets.start < kept_from:
        raise RangeGone(
            f"byte {offsets.start} of {stream.reference} was dropped; the first that is kept is byte "
            f"{kept_from}"
        )
    return offsets


def _first(rows: "RowReader", time_ns: int, time_of: "Callable[[int], int]") -> int:
    while True:
        start = rows.start
        try:
            return bisect_left(range(len(rows)), time_ns, lo=start, key=time_of)
        except RangeGone:
            if rows.start == start:
                raise
            # Retention dropped rows during the search.
