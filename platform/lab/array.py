"""A data array as an analyst uses it: an ordinary NumPy array that grows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records.bounds import bound_of
from ..store.interface import ArrayReader
from ..store.pyramid.overview import Overview, Overview2D, overview, overview2d
from ..store.selection.columns import ColumnReader, column_named
from ..store.selection.time_ranges import row_slice, view_range
from .describe import readable_bytes


class Array:
    """One data array: rows on axis 0, more of them each time it is looked at.

    `array[...]` with any basic index is a read-only view of the files, without a copy, contiguous however
    long; a view keeps its length while the array grows. np.asarray(array) is the view of all rows there are
    now.

    Slices of the rows also take times, as text (RFC 3339), datetime or numpy.datetime64:
    `array["2026-11-01T00:00Z":"2026-11-01T06:00Z"]`. A column is selected by its name, alone or after the
    rows: `array["rms"]`, `array["2026-11-01":, "rms"]`.
    """

    def __init__(self, source: ArrayReader) -> None:
        self._source = source

    @property
    def reference(self) -> str:
        """`stream:output`."""
        return self._source.reference

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of each element."""
        return self._source.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows now, *shape of a row)."""
        return self._source.shape

    @property
    def ndim(self) -> int:
        """Axes, the rows' included."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows ever written, now."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def start(self) -> int:
        """The first row kept; retention may have dropped those before it."""
        return self._source.start

    @property
    def attrs(self) -> Mapping[str, Any]:
        """Constant attributes of the rows, such as rate_hz, unit, columns."""
        return self._source.attrs

    @property
    def columns(self) -> tuple[str, ...]:
        """Names along the last axis; () without names."""
        return tuple(self.attrs.get("columns", ()))

    @property
    def times(self) -> NDArray[np.datetime64]:
        """Event time of each row kept: shape (rows - start,), datetime64[ns], UTC; a view, no copy."""
        return np.asarray(self._source.times_ns[self.start : len(self)]).view("datetime64[ns]")

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, key: Any) -> Any:
        first, *rest = key if isinstance(key, tuple) and key else (key,)
        if isinstance(first, str):
            first, rest = slice(None), [first, *rest]
        if isinstance(first, slice):
            first = row_slice(self._source, bound_of(first.start), bound_of(first.stop), first.step)
        if rest and isinstance(rest[0], str):
            return ColumnReader(self._source, column_named(self._source, rest[0]))[(first, *rest[1:])]
        if isinstance(first, slice):
            key = (first, *rest) if rest else first
        return self._source[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self._source[self.start :], dtype=dtype, copy=copy)

    def overview(
        self, start: Any = None, stop: Any = None, *, pixels: int = 1000, column: str | int | None = None
    ) -> Overview:
        """Minimum, maximum and mean of a range of any length in at most `pixels` pixels.

        Takes milliseconds, since it reads the pyramid of the array. `start` and `stop` are rows or times, as
        in slices; `stop` may be past the end. The edges of the pixels snap outward to a power of 64 rows:
        see `Overview.rows`. `column` selects one value of a row, by name or index. Raises ColumnNotFound,
        and OverviewImpossible for rows without numbers or more than a million of them.
        """
        rows = view_range(self._source, bound_of(start), bound_of(stop))
        return overview(self._source, *rows, pixels=pixels, column=column)

    def overview2d(
        self, start: Any = None, stop: Any = None, *, pixels: int = 1000, bins: int = 256
    ) -> Overview2D:
        """The maxima of a range of spectra in at most `pixels` × `bins` cells of time × frequency.

        `start` and `stop` as in `overview`. Raises OverviewImpossible for rows of another shape.
        """
        rows = view_range(self._source, bound_of(start), bound_of(stop))
        return overview2d(self._source, *rows, pixels=pixels, bins=bins)

    def row_of_table(self) -> tuple[str, ...]:
        """Its row in the list of arrays."""
        shape = " × ".join(f"{count:,}" for count in self.shape)
        return self.reference, shape, _dtype_name(self.dtype), readable_bytes(self.nbytes)

    def __repr__(self) -> str:
        reference, shape, dtype, size = self.row_of_table()
        lines = [f"data array {reference}: {shape} {dtype}, {size}"]
        if self.start:
            lines.append(f"  rows before {self.start:,} are no longer kept")
        if len(self) > self.start:
            first, last = self._source.times_ns[self.start], self._source.times_ns[len(self) - 1]
            lines.append(f"  {np.datetime64(int(first), 'ns')} to {np.datetime64(int(last), 'ns')} UTC")
        lines += [f"  {name}: {_short(value)}" for name, value in self.attrs.items()]
        return "\n".join(lines)


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return dtype.name if dtype.names is None else f"({', '.join(dtype.names)})"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}…"
