"""Answers a range of rows in few cells, from the level of the pyramid that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ...errors import ColumnNotFound, OverviewImpossible, RangeGone, StreamDamaged
from .cells import NOT_A_TIME, CellLayout, Values, rows_per_cell, weighted
from .dropped_rows import first_row

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..interface.pyramids import PyramidLevel
    from ..interface.readers import ArrayReader

MOST_PIXELS = 10_000
MOST_NUMBERS = 1_000_000
"""Pixels times values of each: what an overview may have, about 32 MB."""

_NUMBERS_AT_ONCE = 1 << 20
_INDEX_DIGITS = 19
_TRIES = 3

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Overview:
    """Min, max and mean of the rows of each pixel.

    Attributes:
        rows: the edges of the pixels, shape (pixels + 1,): pixel i has rows [rows[i], rows[i + 1]).
        times_ns: the event times of these rows, that of the last row for an edge at the end of the array;
            NOT_A_TIME if there is no row.
        count: how many values of the pixel there are that are not NaN, shape (pixels, …); 0 in a gap.
        min: in the dtype of the rows, shape as `count`; without meaning in a gap.
        max: the same.
        mean: float64; NaN in a gap. Its error is at most 2^-20 of the largest magnitude in the pixel if
            values have at most four bytes, since means of cells are float32 then; else that of a sum in
            float64.
    """

    rows: NDArray[np.int64]
    times_ns: NDArray[np.int64]
    count: NDArray[np.int64]
    min: NDArray[Any]
    max: NDArray[Any]
    mean: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Overview2D:
    """The maximum of each cell of time × bins, of rows that have one dimension, such as spectra.

    Attributes:
        rows: as `Overview.rows`.
        times_ns: as `Overview.times_ns`.
        bins: the edges of the bins, shape (bins + 1,): bin j has the values [bins[j], bins[j + 1]) of a row.
        count: how many rows of the pixel there are, shape (pixels,); 0 in a gap.
        max: shape (pixels, bins), in the dtype of the rows; NaN is ignored.
    """

    rows: NDArray[np.int64]
    times_ns: NDArray[np.int64]
    bins: NDArray[np.int64]
    count: NDArray[np.int64]
    max: NDArray[Any]


def overview(
    array: ArrayReader, first: int, stop: int, *, pixels: int, column: str | int | None = None
) -> Overview:
    """Min, max and mean of rows [first, stop) in at most `pixels` pixels.

    Cells are those of the largest power of 64 rows of which a pixel has at least one. The edges of the pixels
    snap outward to these cells, but not past the first row that is kept nor past the end of the array, unless
    the range itself reaches further. What is returned is exact for the edges that are returned. Rows that are
    not there, and values that are NaN, do not count.

    `column` selects one value of a row: the name of a field, a name in the attribute `columns`, or an index
    along the last axis. Raises ColumnNotFound, and OverviewImpossible for rows without numbers, or for more
    than MOST_NUMBERS numbers.
    """
    return _retried(array, lambda levels: _overview(array, _View(array, levels, first, stop, pixels), column))


def _overview(array: ArrayReader, view: _View, column: str | int | None) -> Overview:
    values, index = _selected(array, view.layout, column)
    shape = array.row_shape if index is None else array.row_shape[:-1]
    _require_bounded(array.reference, view.pixels * int(np.prod(shape)))
    found = _Statistics(values, (view.pixels, *shape))
    for piece in view.pieces():
        found.add(piece, index)
    return Overview(view.edges, view.times_ns(), found.count, found.low, found.high, found.mean)


def overview2d(array: ArrayReader, first: int, stop: int, *, pixels: int, bins: int) -> Overview2D:
    """The maxima of rows [first, stop) in at most `pixels` × `bins` cells; edges as in `overview`."""
    return _retried(array, lambda levels: _overview2d(array, _View(array, levels, first, stop, pixels), bins))


def _overview2d(array: ArrayReader, view: _View, bins: int) -> Overview2D:
    if len(array.row_shape) != 1 or array.dtype.names is not None:
        raise OverviewImpossible(
            f"{array.reference} has rows of shape {array.row_shape}; overview2d takes rows of one dimension, "
            "such as spectra. Use overview"
        )
    [width] = array.row_shape
    bins = min(bins, width)
    _require_bounded(array.reference, view.pixels * bins)
    bin_edges = np.arange(bins + 1, dtype=np.int64) * width // bins
    [values] = view.layout.values
    high = np.full((view.pixels, bins), _lowest(values.dtype), values.dtype)
    count = np.zeros(view.pixels, np.int64)
    for piece in view.pieces():
        highest = np.fmax.reduceat(piece.statistic("max", values), piece.begins, axis=0)
        there = high[piece.pixels]
        np.fmax(there, np.fmax.reduceat(highest, bin_edges[:-1], axis=1), out=there)
        count[piece.pixels] += piece.rows
    return Overview2D(view.edges, view.times_ns(), bin_edges, count, high)


def _retried(array: ArrayReader, read: Callable[[Sequence[PyramidLevel]], _Result]) -> _Result:
    """Reads once more if rows or cells are dropped meanwhile; the last time without the pyramid, which may be
    damaged.
    """
    for _ in range(_TRIES):
        with suppress(RangeGone, StreamDamaged):
            return read(array.levels())
    return read(())


@dataclass(frozen=True, slots=True)
class _Piece:
    """Cells of one level, or rows; `begins` has the first of them in each of the `pixels`."""

    level: int
    cells: NDArray[Any]
    pixels: slice
    begins: NDArray[np.intp]

    def statistic(self, name: str, values: Values) -> NDArray[Any]:
        """One statistic of the cells; of rows, which have none, the values themselves."""
        return values.of(self.cells if self.level == 0 else self.cells[name])

    @property
    def rows(self) -> NDArray[np.int64]:
        """How many rows it has in each pixel."""
        ends = np.append(self.begins[1:], len(self.cells))
        return (ends - self.begins) * rows_per_cell(self.level)


class _View:
    """A range of an array in pixels; the array and its pyramid as they were at one moment."""

    def __init__(
        self, array: ArrayReader, levels: Sequence[PyramidLevel], first: int, stop: int, pixels: int
    ) -> None:
        if not 0 <= first <= stop:
            raise ValueError(f"rows {first} to {stop} are not a range")
        layout = CellLayout.of(array.dtype, array.row_shape)
        if layout is None:
            raise OverviewImpossible(
                f"{array.reference} has rows of {array.dtype}, which have no minimum, maximum and mean; an "
                "overview takes integers and floating-point numbers"
            )
        self.layout = layout
        self._array = array
        self._rows_start, self._length = array.start, len(array)
        self._levels = levels
        self._timed: list[tuple[int, int, NDArray[Any]]] = []
        """The cells that have times: the first row, rows of a cell, and cells."""
        level = 0
        while rows_per_cell(level + 1) * pixels <= stop - first:
            level += 1
        self._level = level
        self._start = first_row(array, levels) if level else self._rows_start
        size = rows_per_cell(level)
        low, high = first - first % size, -(-stop // size) * size
        low = max(low, min(first, self._start))
        high = min(high, max(stop, self._length))
        cells = -(-(high - low // size * size) // size)
        self.pixels = min(pixels, cells)
        edges = (
            low // size * size
            + np.arange(self.pixels + 1, dtype=np.int64) * cells // max(1, self.pixels) * size
        )
        edges[0], edges[-1] = low, high
        self.edges: NDArray[np.int64] = edges

    def pieces(self) -> Iterator[_Piece]:
        """What is there of the range, from the coarsest level that fits, in blocks of bounded size."""
        low, high = max(int(self.edges[0]), self._start), min(int(self.edges[-1]), self._length)
        if low < high:
            yield from self._pieces(low, high, self._level)

    def _pieces(self, low: int, high: int, number: int) -> Iterator[_Piece]:
        level = self._levels[number - 1] if 0 < number <= len(self._levels) else None
        if number == 0:
            yield from self._blocks(low, high, None)
        elif level is None:
            yield from self._pieces(low, high, number - 1)
        else:
            size = level.rows_per_cell
            first = -(-max(low, level.first_row) // size) * size
            stop = min(high, level.stop_row) // size * size
            if first >= stop:
                yield from self._pieces(low, high, number - 1)
                return
            if low < first:
                yield from self._pieces(low, first, number - 1)
            yield from self._blocks(first, stop, level)
            if stop < high:
                yield from self._pieces(stop, high, number - 1)

    def _blocks(self, low: int, high: int, level: PyramidLevel | None) -> Iterator[_Piece]:
        size = 1 if level is None else level.rows_per_cell
        at_once = max(1, _NUMBERS_AT_ONCE // self.layout.values_per_row) * size
        for first in range(low, high, at_once):
            stop = min(first + at_once, high)
            cells: NDArray[Any] = self._array[first:stop] if level is None else level.cells(first, stop)
            if len(cells) * size != stop - first:
                raise RangeGone(f"{self._array.reference} was cut back while it was read; try again")
            if level is not None and level.number > 1:
                self._timed.append((first, size, cells))
            pixel, last = np.searchsorted(self.edges, [first, stop - 1], side="right") - 1
            inner = self.edges[pixel + 1 : last + 1]
            begins = (np.concatenate(([first], inner)) - first) // size
            yield _Piece(0 if level is None else level.number, cells, slice(pixel, last + 1), begins)

    def times_ns(self) -> NDArray[np.int64]:
        """The event times of the edges; after `pieces`."""
        times_ns = np.full(len(self.edges), NOT_A_TIME, np.int64)
        numbers = np.where(self.edges == self._length, self._length - 1, self.edges)
        wanted = (numbers >= self._start) & (numbers < self._length)
        for first, size, cells in self._timed:
            index = (numbers - first) // size
            there = wanted & (numbers % size == 0) & (index >= 0) & (index < len(cells))
            times_ns[there] = cells["time"][index[there]]
            wanted &= ~there
        rest = np.flatnonzero(wanted & (numbers >= self._rows_start))
        if self._level == 0 and len(rest):
            begin = int(numbers[rest[0]])
            times_ns[rest] = self._array.times_ns[begin : int(numbers[rest[-1]]) + 1][numbers[rest] - begin]
        else:
            for edge in rest:
                times_ns[edge] = self._array.times_ns[int(numbers[edge])]
        return times_ns


class _Statistics:
    """Statistics of pixels, of which pieces are added in any order."""

    def __init__(self, values: Values, shape: tuple[int, ...]) -> None:
        self._values = values
        self.low: NDArray[Any] = np.full(shape, _highest(values.dtype), values.dtype)
        self.high: NDArray[Any] = np.full(shape, _lowest(values.dtype), values.dtype)
        self.count: NDArray[np.int64] = np.zeros(shape, np.int64)
        self._total: NDArray[np.float64] = np.zeros(shape)

    def add(self, piece: _Piece, index: int | None) -> None:
        """Add the cells of a piece; with an index, only the values at this place of the last axis."""

        def of(name: str) -> NDArray[Any]:
            statistic = piece.statistic(name, self._values)
            return statistic if index is None else statistic[..., index]

        with np.errstate(all="ignore"):
            for there, name, combine in ((self.low, "min", np.fmin), (self.high, "max", np.fmax)):
                part = there[piece.pixels]
                combine(part, combine.reduceat(of(name), piece.begins, axis=0), out=part)
            total, count = self._sums(piece, of("mean"), of("count") if self._values.has_nan else None)
            self._total[piece.pixels] += total
            self.count[piece.pixels] += count

    def _sums(
        self, piece: _Piece, means: NDArray[Any], counts: NDArray[Any] | None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """The sum and the number of the values in each pixel; `means` are the values if these are rows."""
        begins = piece.begins
        if counts is None:
            total = np.add.reduceat(means, begins, axis=0, dtype=np.float64) * rows_per_cell(piece.level)
            return total, piece.rows.reshape(-1, *(1,) * (total.ndim - 1))
        if piece.level == 0:
            valid = ~np.isnan(means)
            total = np.add.reduceat(np.where(valid, means, 0), begins, axis=0, dtype=np.float64)
            return total, np.add.reduceat(valid, begins, axis=0, dtype=np.int64)
        total = np.add.reduceat(weighted(means, counts), begins, axis=0)
        return total, np.add.reduceat(counts, begins, axis=0, dtype=np.int64)

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean of each pixel."""
        with np.errstate(all="ignore"):
            return self._total / self.count


def _selected(array: ArrayReader, layout: CellLayout, column: str | int | None) -> tuple[Values, int | None]:
    """The values that a column names, and its index along the last axis, if it has one."""
    names = [each.name for each in layout.values]
    if array.dtype.names is not None:
        if column is not None and column in names:
            return layout.values[names.index(str(column))], None
        if column is None:
            raise OverviewImpossible(
                f"{array.reference} has rows of several fields; name one: column={', '.join(map(str, names))}"
            )
        raise _no_column(array, column, names)
    [values] = layout.values
    if column is None:
        return values, None
    columns = list(array.attrs.get("columns", ()))
    width = array.row_shape[-1] if array.row_shape else 0
    if column in columns:
        return values, columns.index(column)
    if str(column).isdecimal() and len(str(column)) < _INDEX_DIGITS and int(column) < width:
        return values, int(column)
    raise _no_column(array, column, columns or [f"0 to {width - 1}" if width else "none"])


def _no_column(array: ArrayReader, column: str | int, columns: list[Any]) -> ColumnNotFound:
    return ColumnNotFound(
        f"{array.reference} has no column {column!r}; there is {', '.join(map(str, columns))}"
    )


def _require_bounded(reference: str, numbers: int) -> None:
    if numbers > MOST_NUMBERS:
        raise OverviewImpossible(
            f"an overview of {reference} would have {numbers:,} numbers of each statistic, and may have "
            f"{MOST_NUMBERS:,}: name a column, or take fewer pixels"
        )


def _highest(dtype: np.dtype[Any]) -> Any:
    return np.nan if dtype.kind == "f" else np.iinfo(dtype).max


def _lowest(dtype: np.dtype[Any]) -> Any:
    return np.nan if dtype.kind == "f" else np.iinfo(dtype).min
