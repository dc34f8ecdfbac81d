"""Rows that are being appended, read like a NumPy array."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import RangeGone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import DTypeLike, NDArray


class RowReader(ABC):
    """A read-only view on rows that are being appended, perhaps by another process. Thread-safe.

    `len` is the count of rows ever appended, and an index is the number of a row in that count. Basic
    indexing (integers, slices, `...`, None, in any dimension) gives read-only arrays that do not grow and
    stay valid after `close`: views without a copy if the engine is `mappable`, else copies. Everything else
    that NumPy takes as an index gives copies. Raises IndexError for a row that was never appended.

    If retention has dropped rows, `start` is the first one kept: open slices (`rows[:]`) begin there, and
    an index below raises RangeGone. Row numbers in lists and masks then raise IndexError.
    """

    dtype: np.dtype[Any]
    """Of each element."""

    row_shape: tuple[int, ...]
    """The shape of one row; () for scalars and records."""

    @property
    @abstractmethod
    def start(self) -> int:
        """Number of the first row kept, now."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, key: Any) -> Any: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows ever appended, *row_shape), now."""
        return (len(self), *self.row_shape)

    @property
    def ndim(self) -> int:
        """Dimensions, rows being the first."""
        return 1 + len(self.row_shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dtype.itemsize * math.prod(self.row_shape)

    def __iter__(self) -> Iterator[Any]:
        return iter(self[:])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self[:], dtype=dtype, copy=copy)


class IndexedRows(RowReader):
    """Rows that an engine reads by range: subclasses give `bounds` and `read_rows`, this the indexing."""

    @abstractmethod
    def bounds(self) -> tuple[int, int]:
        """The number of the first row kept, and the count of rows ever appended, of one moment."""

    @abstractmethod
    def read_rows(self, low: int, high: int) -> NDArray[Any]:
        """Rows `low` to `high`, read-only, shape (high - low, *row_shape); `low` may equal `high`.

        They were kept when `bounds` was called. Raises RangeGone if they have been dropped since, IndexError
        if they have been cut off.
        """

    @property
    def start(self) -> int:
        """Number of the first row kept, now."""
        return self.bounds()[0]

    def __len__(self) -> int:
        return self.bounds()[1]

    def __getitem__(self, key: Any) -> Any:
        while True:
            bounds = self.bounds()
            try:
                return self._select(key, *bounds)
            except (IndexError, RangeGone):
                if self.bounds() == bounds:
                    raise
                # Rows were dropped or cut off just now: with the bounds of now, an open slice is valid.

    def _select(self, key: Any, start: int, length: int) -> Any:
        first, *rest = key if isinstance(key, tuple) and key else (key,)
        if isinstance(first, tuple) or first is None or first is Ellipsis:
            return self.read_rows(start, length)[key]
        if isinstance(first, slice):
            return self._slice(first, start, length)[(slice(None), *rest)]
        try:
            number = operator.index(first)
        except TypeError:
            return self._pick(key, start, length)
        if number < 0:
            number += length
        if not 0 <= number < length:
            raise IndexError(f"there is no row {operator.index(first)}: there are {length}")
        _require_kept(number, start)
        return self.read_rows(number, number + 1)[(0, *rest)]

    def _slice(self, key: slice, start: int, length: int) -> NDArray[Any]:
        numbers = rows_of_slice(key, kept_from=start, length=length)
        if not numbers:
            return self.read_rows(start, start)
        low, high = min(numbers[0], numbers[-1]), max(numbers[0], numbers[-1]) + 1
        _require_kept(low, start)
        return self.read_rows(low, high)[:: numbers.step]

    def _pick(self, key: Any, start: int, length: int) -> Any:
        if start:
            raise IndexError(
                f"rows before {start} were dropped, so only integers and slices select rows here; "
                f"take a slice first, `rows[{start}:]`, and index that"
            )
        return self.read_rows(0, length)[key]


def rows_of_slice(key: slice, *, kept_from: int, length: int) -> range:
    """The rows that a slice selects of `length` rows; its open lower end is the first row that is kept.

    Raises ValueError for a step of 0. The rows may reach below `kept_from`.
    """
    start, stop = key.start, key.stop
    is_downward = key.step is not None and key.step < 0
    if kept_from and is_downward and stop is None:
        stop = kept_from - 1
    elif kept_from and not is_downward and start is None:
        start = kept_from
    return range(*slice(start, stop, key.step).indices(length))


def _require_kept(number: int, start: int) -> None:
    if number < start:
        raise RangeGone(f"row {number} was dropped; the first that is kept is row {start}")
