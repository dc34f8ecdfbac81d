"""The cells of a pyramid: min, max and mean of 64 rows, or of 64 cells of the level below."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

FACTOR = 64
"""Rows of a cell of level 1, and cells of one level that a cell of the next one covers."""

_FACTOR_BITS = FACTOR.bit_length() - 1

NOT_A_TIME = -(2**63)
"""A time that is not known, as in numpy.datetime64."""

_TILE_BYTES = 256 * 1024
"""Rows are reduced in pieces that fit a cache, so that temporary arrays are as small."""
_LARGEST_ITEM_BYTES = 8
_SMALL_ITEM_BYTES = 4


def rows_per_cell(level: int) -> int:
    """Rows that a cell of a level covers; level 0 has the rows themselves.

    >>> [rows_per_cell(level) for level in range(4)]
    [1, 64, 4096, 262144]
    """
    return 1 << (level * _FACTOR_BITS)


@dataclass(frozen=True, slots=True)
class Values:
    """The numbers that one statistic is made of: those of a field, or all of a row if `name` is None."""

    name: str | None
    dtype: np.dtype[Any]

    @property
    def has_nan(self) -> bool:
        """Whether a value can be NaN, so that cells count the others."""
        return self.dtype.kind == "f"

    @property
    def mean_dtype(self) -> np.dtype[Any]:
        """float32 for values of at most four bytes, else float64."""
        return np.dtype(np.float32 if self.dtype.itemsize <= _SMALL_ITEM_BYTES else np.float64)

    def of(self, rows: NDArray[Any]) -> NDArray[Any]:
        """These values of rows, or of one statistic of cells."""
        return rows if self.name is None else rows[self.name]


@dataclass(frozen=True, slots=True)
class CellLayout:
    """The cells of an array with rows of one dtype and shape.

    A cell of level n covers 64^n rows. Each value of a row (each bin, each column) has its own statistics. A
    cell is a packed record of

    - `time`, from level 2 on: the event time of the first row, int64 ns since the epoch;
    - `min` and `max`, in the dtype of the rows;
    - `mean`: float32 for values of at most four bytes, else float64;
    - `count`, for floating-point values: how many are not NaN, as u1 (level 1), u2 (2), u4 (3 to 5) or u8.

    NaN is ignored: min, max and mean are those of the other values. Of values that are all NaN, min, max and
    mean are NaN and `count` is 0. A row of a structured dtype has statistics for each numeric scalar field.
    """

    values: tuple[Values, ...]
    row_shape: tuple[int, ...]

    @classmethod
    def of(cls, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> Self | None:
        """The layout for rows; None if they have no numbers: integers, or floats of at most eight bytes."""
        if dtype.names is None:
            values = [Values(None, dtype)]
        elif row_shape:
            values = []
        else:
            values = [Values(name, dtype[name]) for name in dtype.names]
        values = [each for each in values if _is_numeric(each.dtype)]
        return cls(tuple(values), row_shape) if values else None

    @property
    def values_per_row(self) -> int:
        """How many values of a row have statistics."""
        return len(self.values) * math.prod(self.row_shape)

    def dtype(self, level: int) -> np.dtype[Any]:
        """The record of a cell of a level."""
        fields: list[tuple[Any, ...]] = [("time", "<i8")] if level > 1 else []
        fields += [
            ("min", self._packed({each.name: each.dtype for each in self.values}), self.row_shape),
            ("max", self._packed({each.name: each.dtype for each in self.values}), self.row_shape),
            ("mean", self._packed({each.name: each.mean_dtype for each in self.values}), self.row_shape),
        ]
        counted = {each.name: _count_dtype(level) for each in self.values if each.has_nan}
        if counted:
            fields.append(("count", self._packed(counted), self.row_shape))
        return np.dtype(fields)

    @staticmethod
    def _packed(dtypes: dict[str | None, np.dtype[Any]]) -> np.dtype[Any]:
        if None in dtypes:
            return dtypes[None]
        return np.dtype([(str(name), dtype) for name, dtype in dtypes.items()])

    def of_rows(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The cells of level 1 of rows, shape (64 * n, *row_shape)."""
        cells = np.empty(len(rows) // FACTOR, self.dtype(1))
        at_once = max(1, _TILE_BYTES // (rows.itemsize * math.prod(self.row_shape) * FACTOR))
        with np.errstate(all="ignore"):
            for first in range(0, len(cells), at_once):
                tile = rows[first * FACTOR : (first + at_once) * FACTOR]
                for each in self.values:
                    groups = each.of(tile).reshape(-1, FACTOR, *self.row_shape)
                    # Reductions along the first axis take whole vectors: 2 to 10 times as fast.
                    turned = np.ascontiguousarray(groups.swapaxes(0, 1), each.dtype.newbyteorder("="))
                    _summarize_rows(each, turned, cells[first : first + at_once])
        return cells

    def of_cells(self, below: NDArray[Any], level: int, times_ns: NDArray[np.int64]) -> NDArray[Any]:
        """The cells of `level` of 64 * n cells of the level below; `times_ns` is of their first rows."""
        cells = np.empty(len(below) // FACTOR, self.dtype(level))
        cells["time"] = times_ns
        for each in self.values:
            with np.errstate(all="ignore"):
                _summarize_cells(each, below.reshape(-1, FACTOR), cells)
        return cells


def _summarize_rows(values: Values, groups: NDArray[Any], cells: NDArray[Any]) -> None:
    """Fill the cells of level 1 of `groups`, shape (64, cells, *row_shape)."""
    low = np.minimum.reduce(groups, axis=0)
    high = np.maximum.reduce(groups, axis=0)
    total = np.add.reduce(groups, axis=0, dtype=_sum_dtype(values.dtype))
    mean = total / FACTOR
    if values.has_nan:
        count = np.full(low.shape, FACTOR, np.uint8)
        # `minimum` gives NaN if a value is NaN: only these cells are looked at once more.
        spoiled = np.flatnonzero(np.isnan(low).reshape(len(low), -1).any(axis=1))
        if len(spoiled):
            some = groups[:, spoiled]
            valid = ~np.isnan(some)
            count[spoiled] = valid.sum(axis=0)
            low[spoiled] = np.fmin.reduce(some, axis=0)
            high[spoiled] = np.fmax.reduce(some, axis=0)
            total = np.add.reduce(np.where(valid, some, 0), axis=0, dtype=np.float64)
            mean[spoiled] = total / count[spoiled]
        values.of(cells["count"])[...] = count
    values.of(cells["min"])[...] = low
    values.of(cells["max"])[...] = high
    values.of(cells["mean"])[...] = mean


def _summarize_cells(values: Values, below: NDArray[Any], cells: NDArray[Any]) -> None:
    """Fill the cells of a level of those of the level below, shape (cells, 64)."""
    values.of(cells["min"])[...] = np.fmin.reduce(values.of(below["min"]), axis=1)
    values.of(cells["max"])[...] = np.fmax.reduce(values.of(below["max"]), axis=1)
    means = values.of(below["mean"])
    if not values.has_nan:
        values.of(cells["mean"])[...] = np.add.reduce(means, axis=1, dtype=np.float64) / FACTOR
        return
    counts = values.of(below["count"])
    count = np.add.reduce(counts, axis=1, dtype=np.int64)
    total = np.add.reduce(weighted(means, counts), axis=1)
    values.of(cells["count"])[...] = count
    values.of(cells["mean"])[...] = total / count


def weighted(means: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.float64]:
    """The sums of the values that means are of; 0 for those of no value."""
    return np.where(counts > 0, means.astype(np.float64) * counts, 0.0)


def _sum_dtype(dtype: np.dtype[Any]) -> type[Any]:
    """Integers of up to four bytes are added exactly; 32 bits are enough for 64 of two bytes."""
    if dtype.kind == "f" or dtype.itemsize > _SMALL_ITEM_BYTES:
        return np.float64
    return np.int32 if dtype.itemsize < _SMALL_ITEM_BYTES else np.int64


def _count_dtype(level: int) -> np.dtype[Any]:
    """The smallest unsigned integer that counts the rows of a cell."""
    return np.min_scalar_type(rows_per_cell(level)).newbyteorder("<")


def _is_numeric(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iuf" and dtype.itemsize <= _LARGEST_ITEM_BYTES and dtype.subdtype is None
