"""The first rows of an array that grows, as an array that does not."""

import operator
from typing import Any

from ..interface import ArrayReader, RowReader


class FirstRows(RowReader):
    """The rows of `source` below `length`, indexed like the source."""

    def __init__(self, source: RowReader, length: int) -> None:
        self.dtype, self.row_shape = source.dtype, source.row_shape
        self._source, self._length = source, length

    @property
    def start(self) -> int:
        """Number of the first row kept, now."""
        return min(self._source.start, len(self))

    def __len__(self) -> int:
        return min(self._length, len(self._source))

    def __getitem__(self, key: Any) -> Any:
        first, *rest = key if isinstance(key, tuple) and key else (key,)
        length = len(self)
        if isinstance(first, slice):
            return self._source[(_within(first, length), *rest)]
        if first is None or first is Ellipsis or isinstance(first, tuple):
            return self._source[:length][key]
        try:
            number = operator.index(first)
        except TypeError:  # a list of rows, or a mask of all of them: the source rejects it if some are gone
            return self._source[: length if not self._source.start else None][key]
        if not -length <= number < length:
            raise IndexError(f"there is no row {number}: there are {length}")
        return self._source[(number % length, *rest)]


class FirstRowsOfArray(FirstRows, ArrayReader):
    """The same of a data array, with the event times of these rows."""

    def __init__(self, source: ArrayReader, length: int) -> None:
        super().__init__(source, length)
        self.reference, self.uid, self.attrs = source.reference, source.uid, source.attrs
        self._array = source

    @property
    def times_ns(self) -> RowReader:
        """The event time of each row."""
        return FirstRows(self._array.times_ns, self._length)

    @property
    def replaced(self) -> bool:
        """Whether another array has this reference now, or none."""
        return self._array.replaced

    @property
    def kept_bytes(self) -> int:
        """Those of the array."""
        return self._array.kept_bytes

    def segment_stop(self, position: int) -> int:
        """That of the array."""
        return self._array.segment_stop(position)

    def close(self) -> None:
        """Close the array."""
        self._array.close()


def _within(key: slice, length: int) -> slice:
    """The key for rows that may be more than `length`; an open lower end stays open."""
    rows = range(*key.indices(length))
    if not rows:
        return slice(length, length)
    downward = key.step is not None and key.step < 0
    start, stop = rows.start, rows.stop
    if not downward:
        return slice(None if key.start is None else start, stop, key.step)
    # A slice that ends below row 0 has no number for that.
    return slice(start, None if key.stop is None or stop < 0 else stop, key.step)
