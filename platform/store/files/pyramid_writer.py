"""Extends the pyramid of an array as checkpoints commit its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ...errors import StreamDamaged
from ..interface.pyramids import PyramidWriter
from ..pyramid.cells import FACTOR, NOT_A_TIME, CellLayout, rows_per_cell
from .pyramid_levels import MOST_LEVELS, VERSION, Description, pyramid_directory
from .replaced_arrays import drop
from .rows import Rows
from .segmented_file import SegmentedFile
from .segmented_writer import SegmentedWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .data_array import DataArray

BLOCK_BYTES = 4 * 1024 * 1024
"""Rows are read in blocks of about this size, at least 64 rows; they are views, not copied."""

SEGMENT_BYTES = 8 * 1024 * 1024
"""Of the files of the levels: what retention frees at once."""


_CELLS_AT_ONCE = 1024
"""Of an upper level, so that memory is bounded while it catches up."""


class LocalPyramidWriter(PyramidWriter):
    """The one writer of the pyramid of an array in a directory.

    **Format.** The directory `pyramid` of the array, with `pyramid.json` (`Description`) and the segmented
    files `1`, `2`, … of the levels, whose cells `CellLayout` describes, one after another without padding.
    A level exists from its first cell on.

    **What a crash can do.** Readers use only the cells that are marked as committed in the head of their
    file, after a sync that began when they were complete; so a power failure changes none of them. The next
    writer continues from the marked cells. If the pyramid is of another array, reaches beyond the committed
    rows, or is damaged, it is dropped and created again.

    Raises StoreLocked while another writer has the pyramid, StoreFailed as `SegmentedWriter`.
    """

    def __init__(
        self,
        array: DataArray,
        layout: CellLayout,
        *,
        committed_rows: int,
        complete: Sequence[int] = (),
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """Open the pyramid, or create it. `complete` is `lengths` of an earlier writer of this process, whose
        cells are kept though they are not known to be durable.
        """
        self._array = array
        self._layout = layout
        self._directory = pyramid_directory(array.directory)
        self._segment_bytes = segment_bytes
        self._levels: list[_LevelWriter] = []
        try:
            self._lock_first_level()
            if not self._resume(committed_rows, complete):
                self._start_over()
        except BaseException:
            self.close()
            raise

    @property
    def covered_rows(self) -> int:
        """The row after the last complete cell of level 1."""
        return self._levels[0].stop_cell * FACTOR

    @property
    def lengths(self) -> tuple[int, ...]:
        """The length of each level's file, in bytes, level 1 first."""
        return tuple(level.file.length for level in self._levels)

    def extend(self, committed_rows: int) -> None:
        """Add the cells of rows before `committed_rows`, in blocks of BLOCK_BYTES."""
        if self._array.start > self.covered_rows:
            self._start_over()
        block_rows = max(1, BLOCK_BYTES // (self._array.row_bytes * FACTOR)) * FACTOR
        while (first := self.covered_rows) + FACTOR <= committed_rows:
            stop = min(first + block_rows, committed_rows - committed_rows % FACTOR)
            self._levels[0].append(self._layout.of_rows(self._array[first:stop]))
            self._extend_upper_levels()

    def _extend_upper_levels(self) -> None:
        for number in range(2, MOST_LEVELS + 1):
            below = self._levels[number - 2]
            if number > len(self._levels):
                if below.stop_cell // FACTOR <= self._description.first_cell(number):
                    return
                self._levels.append(self._open(number).resume(0))
            level = self._levels[number - 1]
            if below.stop_cell // FACTOR <= level.stop_cell:
                return
            while (first := level.stop_cell) < (stop := below.stop_cell // FACTOR):
                cells = below.cells(first * FACTOR, min(stop, first + _CELLS_AT_ONCE) * FACTOR)
                times_ns = (
                    self._times_ns(first, len(cells) // FACTOR) if number == 2 else cells["time"][::FACTOR]
                )
                level.append(self._layout.of_cells(cells, number, times_ns))

    def _times_ns(self, first: int, count: int) -> NDArray[np.int64]:
        """The event times of the first rows of cells of level 2; NOT_A_TIME of rows that were dropped."""
        size, start = rows_per_cell(2), self._array.start
        kept = max(first, min(-(-start // size), first + count))
        times_ns = np.full(count, NOT_A_TIME, np.int64)
        times_ns[kept - first :] = self._array.times_ns[
            max(kept * size, start) : (first + count) * size : size
        ]
        return times_ns

    def mark_durable(self, lengths: Sequence[int]) -> None:
        """Let readers use the cells up to these `lengths`."""
        for level, length in zip(self._levels, lengths, strict=False):
            level.file.mark_committed(min(length, level.file.length))

    def drop_before(self, row: int) -> None:
        """Drop the cells of rows before `row`, as far as they fill whole segments, and free their space.

        Cells that the level above does not have yet are kept.
        """
        for number, level in enumerate(self._levels, 1):
            above = self._levels[number].stop_cell if number < len(self._levels) else None
            first_above = self._description.first_cell(number + 1) if above is None else above
            level.drop_before(min(row // level.rows_per_cell, first_above * FACTOR))

    def close(self) -> None:
        """Close the files and release the lock, that of level 1 last. Does not sync."""
        while self._levels:
            self._levels.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lock_first_level(self) -> None:
        try:
            self._description = Description.read(self._directory) or self._new_description()
            self._levels = [self._open(1)]
            # Another writer may have replaced it before it was locked.
            self._description = Description.read(self._directory) or self._new_description()
        except StreamDamaged:
            self._create()

    def _resume(self, committed_rows: int, complete: Sequence[int]) -> bool:
        """Continue an existing pyramid; False if it does not fit the array, or is damaged."""
        found = Description.read(self._directory)
        if found is None or found.uid != self._array.uid.hex():
            return False
        self._description = found
        self._levels[0].first_cell = found.first_cell(1)
        try:
            for number in range(1, MOST_LEVELS + 1):
                if number > 1:
                    if not (self._directory / str(number)).exists():
                        break
                    self._levels.append(self._open(number))
                level = self._levels[number - 1]
                length = max(level.file.committed, complete[number - 1] if number <= len(complete) else 0)
                if not level.file.start <= length <= level.file.length:
                    return False
                level.resume(length - length % level.dtype.itemsize)
                below = committed_rows if number == 1 else self._levels[number - 2].stop_cell
                if level.stop_cell > max(level.first_cell, below // FACTOR):
                    return False
        except StreamDamaged:
            return False
        return True

    def _start_over(self) -> None:
        if self._directory.exists():
            # Renamed while it is locked, so that no other writer can have it open.
            drop(self._directory)
        self.close()
        self._create()

    def _create(self) -> None:
        if self._directory.exists():
            drop(self._directory)
        self._description = self._new_description()
        self._levels = [self._open(1).resume(0)]
        self._description.write(self._directory)

    def _new_description(self) -> Description:
        return Description(VERSION, self._array.uid.hex(), self._array.start)

    def _open(self, number: int) -> _LevelWriter:
        file = SegmentedWriter(self._directory / str(number), segment_bytes=self._segment_bytes)
        return _LevelWriter(file, number, self._layout.dtype(number), self._description.first_cell(number))


class _LevelWriter:
    """The file of one level."""

    def __init__(self, file: SegmentedWriter, number: int, dtype: np.dtype[Any], first_cell: int) -> None:
        self.file = file
        self.dtype = dtype
        self.first_cell = first_cell
        self.rows_per_cell = rows_per_cell(number)
        self._reader: SegmentedFile | None = None

    @property
    def stop_cell(self) -> int:
        """The number of the cell that is appended next."""
        return self.first_cell + self.file.length // self.dtype.itemsize

    def resume(self, length: int) -> Self:
        self.file.resume(length)
        return self

    def append(self, cells: NDArray[Any]) -> None:
        self.file.append(cells.view(np.uint8).data)

    def cells(self, first: int, stop: int) -> NDArray[Any]:
        """The cells [first, stop), as they are in the file."""
        if self._reader is None:
            self._reader = SegmentedFile(self.file.directory)
        cells: NDArray[Any] = Rows(self._reader, self.dtype)[first - self.first_cell : stop - self.first_cell]
        return cells

    def drop_before(self, cell: int) -> None:
        if cell > self.first_cell:
            self.file.drop_before((cell - self.first_cell) * self.dtype.itemsize)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self.file.close()
