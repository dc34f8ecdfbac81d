"""Rows of one dtype and shape in a segmented file, read like a NumPy array that grows."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...errors import AddressSpaceUsed, RangeGone
from ..interface.rows import RowReader, rows_of_slice

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import EllipsisType

    from numpy.typing import NDArray

    from .segmented_file import SegmentedFile

    BasicIndex = int | slice | EllipsisType | None


def row_bytes(dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> int:
    """Give the bytes of one row. Raises ValueError for rows that a file cannot hold."""
    if dtype.hasobject or dtype.subdtype is not None or dtype.itemsize == 0:
        raise ValueError(
            f"rows cannot be stored as {dtype!r}: take a dtype of fixed size without Python objects"
        )
    if not all(isinstance(size, int) and size > 0 for size in row_shape):
        raise ValueError(f"row_shape must be a tuple of positive integers, not {row_shape!r}")
    return dtype.itemsize * math.prod(row_shape)


class _HeldRows(NamedTuple):
    """A view of the rows from `first` to `stop`, of a file with this start (in bytes) and epoch."""

    start: int
    epoch: int
    first: int
    stop: int
    rows: NDArray[Any]


class Rows(RowReader):
    """A read-only view on rows that are being appended, perhaps by another process.

    `len` is the count of rows ever appended, and an index is the number of a row in that count. Basic
    indexing (integers, slices, `...`, in any dimension) gives read-only NumPy views, contiguous along axis 0
    and not copied, whatever their length; they do not grow, and stay valid when this is closed. Everything
    else that NumPy takes as an index gives copies.

    Under a limit of the address space only the requested rows are mapped. If the range between the
    first and the last of them does not fit, a slice with a step, and a list of row numbers, give copies.

    If retention has dropped rows, `start` is the first one kept: open slices (`rows[:]`) begin there, and
    an index below raises RangeGone.
    """

    def __init__(
        self,
        file: SegmentedFile,
        dtype: np.dtype[Any],
        row_shape: tuple[int, ...] = (),
        *,
        beside: tuple[SegmentedFile, int] | None = None,
    ) -> None:
        """Read `file` as rows, of which there are as many as `beside`, too, has rows of so many bytes."""
        self.dtype = dtype
        self.row_shape = row_shape
        self._file = file
        self._row_bytes = row_bytes(dtype, row_shape)
        self._beside = beside
        self._held: _HeldRows | None = None

    @property
    def start(self) -> int:
        """Number of the first row kept."""
        return self._bounds()[0]

    def segment_stop(self, position: int) -> int:
        """The first row past the segment that has this row."""
        segment_bytes: int = self._file.segment_bytes
        end = position * self._row_bytes // segment_bytes * segment_bytes + segment_bytes
        return -(-end // self._row_bytes)

    @property
    def kept_bytes(self) -> int:
        """From the first kept byte of each file to its end."""
        files = [self._file, *([] if self._beside is None else [self._beside[0]])]
        return sum(file.length - file.start for file in files)

    def __len__(self) -> int:
        length = self._file.length // self._row_bytes
        if self._beside is not None:
            file, size = self._beside
            length = min(length, file.length // size)
        return length

    def __getitem__(self, key: Any) -> Any:
        if type(key) is int and (held := self._held) is not None:
            start, epoch, length = self._file.bounds()
            is_present = start == held.start and epoch == held.epoch and held.first <= key < held.stop
            # The file may have been cut, so its length counts, not that of the view.
            if is_present and (key + 1) * self._row_bytes <= length and self._has_time_of(key):
                return held.rows[key - held.first]
        while True:
            epoch, kept_from = self._file.epoch, self._file.start
            start, length = self._bounds()
            try:
                return self._select(key, start, length)
            except IndexError:
                # The epoch is read first and last: in one epoch, `start` only rises.
                if self._file.start == kept_from and self._file.epoch == epoch:
                    raise
                # Rows were dropped, or the file restarted at 0, just now. With the bounds of now, an open
                # slice gives what there is, and errors name rows, not bytes.

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(self[:])
        except AddressSpaceUsed:
            return (self[number] for number in range(self.start, len(self)))

    def _bounds(self) -> tuple[int, int]:
        """The first whole row kept, and the count of rows, as the files have them now."""
        start = -(-self._file.start // self._row_bytes)
        if self._beside is not None:
            file, size = self._beside
            start = max(start, -(-file.start // size))
        length = len(self)
        return min(start, length), length  # read one after another, while a writer may restart at 0

    def _select(self, key: Any, start: int, length: int) -> Any:
        first, *rest = key if isinstance(key, tuple) and key else (key,)
        if isinstance(first, tuple):  # (): everything
            first = Ellipsis
        if isinstance(first, slice):
            rows = self._slice(first, start, length)
            return rows[(slice(None), *rest)] if rest else rows
        if first is None or first is Ellipsis:
            return self._view(start, length)[key]
        try:
            number = operator.index(first)
        except TypeError:
            return self._pick(key, start, length)
        if number < 0:
            number += length
        if not 0 <= number < length:
            raise IndexError(f"there is no row {operator.index(first)}: there are {length}")
        self._require_kept(number, start)
        row = self._view(number, number + 1)[(0, *rest)]
        self._hold()
        return row

    def _has_time_of(self, number: int) -> bool:
        if self._beside is None:
            return True
        file, size = self._beside
        start, _, length = file.bounds()
        return start <= number * size and (number + 1) * size <= length

    def _hold(self) -> None:
        """Keep a view of all rows that are mapped: other single rows are then items of it."""
        start, epoch, length = self._file.bounds()
        low, high = self._file.mapped(start, epoch)
        first, stop = -(-low // self._row_bytes), min(high, length) // self._row_bytes
        if first < stop:
            self._held = _HeldRows(start, epoch, first, stop, self._view(first, stop))

    def _slice(self, key: slice, start: int, length: int) -> NDArray[Any]:
        numbers = rows_of_slice(key, kept_from=start, length=length)
        if not numbers:
            return self._view(start, start)
        low, high = min(numbers[0], numbers[-1]), max(numbers[0], numbers[-1]) + 1
        self._require_kept(low, start)
        if numbers.step == 1:
            return self._view(low, high)
        try:
            return self._view(low, high)[:: numbers.step]
        except AddressSpaceUsed:
            rows = self._gather(np.arange(numbers.start, numbers.stop, numbers.step))
            rows.flags.writeable = False
            return rows

    def _pick(self, key: Any, start: int, length: int) -> Any:
        if start:
            raise IndexError(
                f"rows before {start} were dropped, so only integers and slices select rows here; "
                f"take a view first, `rows[{start}:]`, and index that"
            )
        try:
            return self._view(0, length)[key]
        except AddressSpaceUsed:
            numbers = None if isinstance(key, tuple) else self._numbers(key, length)
            if numbers is None:
                raise
            return self._gather(numbers)

    @staticmethod
    def _numbers(key: Any, length: int) -> NDArray[np.intp] | None:
        """The row numbers that a list of integers, or a mask of all rows, selects; None for another key."""
        keys = np.asarray(key)
        if keys.dtype == np.bool_ and keys.shape == (length,):
            return np.flatnonzero(keys)
        if not np.issubdtype(keys.dtype, np.integer):
            return None
        numbers = keys.astype(np.intp)
        numbers[numbers < 0] += length
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < length):
            raise IndexError(f"there is no such row among {keys}: there are {length}")
        return numbers

    def _gather(self, numbers: NDArray[np.intp]) -> NDArray[Any]:
        """A copy of these rows, of which one is mapped at a time; shape (*numbers.shape, *row_shape)."""
        rows = np.empty((numbers.size, *self.row_shape), self.dtype)
        for position, number in enumerate(numbers.flat):
            rows[position] = self._view(int(number), int(number) + 1)[0]
        return rows.reshape(*numbers.shape, *self.row_shape)

    def _require_kept(self, number: int, start: int) -> None:
        if number < start:
            raise RangeGone(f"row {number} was dropped; the first that is kept is row {start}")

    def _view(self, low: int, high: int) -> NDArray[Any]:
        raw = self._file.view(low * self._row_bytes, high * self._row_bytes)
        rows: NDArray[Any] = raw.view(self.dtype)
        return rows.reshape(high - low, *self.row_shape) if self.row_shape else rows
