"""Rows that are being appended, read like a NumPy array."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

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
