"""The cells of rows that retention has dropped: an overview of an array may go back further than its rows."""

from __future__ import annotations

from bisect import bisect_left
from contextlib import suppress
from typing import TYPE_CHECKING

from ...errors import RangeGone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..interface.pyramids import PyramidLevel
    from ..interface.readers import ArrayReader

_TIMED_LEVEL = 2
"""The first level whose cells have the time of their first row."""


def first_row(array: ArrayReader, levels: Sequence[PyramidLevel]) -> int:
    """The first row that an overview has: retention may keep the cells of rows that it has dropped."""
    start = array.start
    if not levels or levels[0].stop_row < start:
        return start
    return min(start, levels[0].first_row)


def row_around(array: ArrayReader, time_ns: int, *, before: bool) -> int | None:
    """The row of a time that is before the first row kept, from the cells of rows that were dropped.

    Their times are known for every 4,096th row: the last one before the time, or with `before` False the
    first one after it. None if the time is not before the first row kept, or there are no such cells.
    """
    levels, start = array.levels(), array.start
    if len(levels) < _TIMED_LEVEL or (len(array) > start and int(array.times_ns[start]) <= time_ns):
        return None
    level = levels[_TIMED_LEVEL - 1]
    size = level.rows_per_cell
    cells = range(level.first_row // size, min(level.stop_row, start) // size)
    if not cells:
        return None
    with suppress(RangeGone):
        found = cells.start + bisect_left(
            cells, time_ns, key=lambda cell: int(level.cells(cell * size, (cell + 1) * size)["time"][0])
        )
        return max(cells.start, found - before) * size
    return None


def first_row_since(array: ArrayReader, time_ns: int) -> int:
    """The first row of which cells are kept if those of rows before `time_ns` are dropped.

    That of a cell of level 2, so that a few earlier rows stay; at most the first row that the array keeps.
    """
    row = row_around(array, time_ns, before=True)
    return array.start if row is None else row
