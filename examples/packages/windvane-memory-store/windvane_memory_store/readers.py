"""Readers of streams and arrays in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from windvane.errors import RangeGone
from windvane.store.interface import ARRIVAL, ArrayReader, IndexedRows, StreamReader

from .content import TIME, Output, Shelf, segment_stop

if TYPE_CHECKING:
    from numpy.typing import NDArray


class MemoryRows(IndexedRows):
    """One table of an output, for reading."""

    def __init__(self, output: Output, table: int, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> None:
        self.output = output
        self.table = table
        self.dtype = dtype
        self.row_shape = row_shape

    def bounds(self) -> tuple[int, int]:
        """The first row kept, and the count of rows."""
        table = self.output.tables[self.table]
        return table.start, table.length

    def read_rows(self, low: int, high: int) -> NDArray[Any]:
        """Rows `low` to `high`."""
        table = self.output.tables[self.table]
        if low < table.start < high:
            raise RangeGone(f"row {low} of {self.output.reference} was dropped")
        if high > table.length:
            raise IndexError(f"row {high - 1} of {self.output.reference} was cut off")
        return table.rows[max(low - table.start, 0) : max(high - table.start, 0)]


class MemoryArray(MemoryRows, ArrayReader):
    """A data array, for reading."""

    def __init__(self, shelf: Shelf, output: Output) -> None:
        super().__init__(output, 0, output.dtype, output.row_shape)
        self._shelf = shelf
        self.reference, self.uid, self.attrs = output.reference, output.uid, output.attrs
        self._times = MemoryRows(output, 1, TIME, ())

    @property
    def kept_bytes(self) -> int:
        """The bytes of rows and times."""
        return self.output.kept_bytes

    def segment_stop(self, position: int) -> int:
        """The end of the segment of a row."""
        return segment_stop(position)

    @property
    def times_ns(self) -> MemoryRows:
        """The event time of each row."""
        return self._times

    @property
    def replaced(self) -> bool:
        """Whether the reference has another array, or none."""
        return self._shelf.outputs.get(self.reference) is not self.output

    def close(self) -> None:
        """Nothing to release."""


class MemoryStream(StreamReader):
    """A data stream, for reading."""

    def __init__(self, shelf: Shelf, output: Output) -> None:
        self._shelf = shelf
        self._output = output
        self.reference, self.uid, self.attrs = output.reference, output.uid, output.attrs
        self._arrivals = MemoryRows(output, 1, ARRIVAL, ())

    @property
    def kept_bytes(self) -> int:
        """The bytes, and those of its records."""
        return self._output.kept_bytes

    def segment_stop(self, position: int) -> int:
        """The end of the segment of a byte."""
        return segment_stop(position)

    @property
    def start(self) -> int:
        """Offset of the first byte kept."""
        return self._output.tables[0].start

    @property
    def size(self) -> int:
        """Bytes ever appended."""
        return self._output.tables[0].length

    @property
    def chunks(self) -> int:
        """Chunks ever appended."""
        return len(self._arrivals)

    @property
    def events(self) -> int:
        """Events ever appended."""
        arrivals = self._arrivals[-1:]
        return int(arrivals[0]["events_total"]) if len(arrivals) else 0

    @property
    def first_arrival_ns(self) -> int | None:
        """Arrival of the first chunk whose record is kept."""
        arrivals = self._arrivals[:]
        return int(arrivals[0]["arrived_ns"]) if len(arrivals) else None

    @property
    def last_arrival_ns(self) -> int | None:
        """Arrival of the last chunk."""
        arrivals = self._arrivals[-1:]
        return int(arrivals[0]["arrived_ns"]) if len(arrivals) else None

    @property
    def arrivals(self) -> MemoryRows:
        """One record a chunk."""
        return self._arrivals

    @property
    def replaced(self) -> bool:
        """Whether the reference has another stream, or none."""
        return self._shelf.outputs.get(self.reference) is not self._output

    @property
    def outdated(self) -> bool:
        """Whether it was replaced, or has other attributes now."""
        return self.replaced or self._output.attrs != self.attrs

    def event_times(self, start: int, stop: int) -> NDArray[np.void]:
        """The ends and times of the events in these bytes."""
        events = self._output.tables[2].rows
        first, last = np.searchsorted(events["end"], [start, stop], side="right")
        found: NDArray[np.void] = events[first:last]
        return found

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`."""
        if offset < 0 or size < 0:
            raise ValueError(f"cannot read {size} bytes from offset {offset}: neither may be negative")
        table = self._output.tables[0]
        if offset < table.start:
            raise RangeGone(f"byte {offset} of {self.reference} was dropped; the first is {table.start}")
        return table.rows[offset - table.start : offset - table.start + size].tobytes()

    def close(self) -> None:
        """Nothing to release."""
