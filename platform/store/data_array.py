"""Data arrays: rows of samples, spectra, features or scores that grow while they are read."""

from __future__ import annotations

import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .description import (
    as_json,
    dtype_from_json,
    dtype_to_json,
    read_description,
    sync_description,
    write_description,
)
from .rows import Rows, row_bytes
from .segmented_file import SegmentedFile
from .segmented_writer import DEFAULT_SEGMENT_BYTES, SegmentedWriter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_TIME = np.dtype(np.int64)


class DataArray(Rows):
    """A data array, for reading: `array[...]` gives read-only NumPy views of any range, without a copy.

    **Format.** A directory with

    - `rows/`: a segmented file of the rows, C order, one after another without padding;
    - `times/`: a segmented file of one int64 a row: its event time, ns since the epoch, UTC;
    - `meta.json`: `dtype` as `numpy.lib.format` describes it, `row_shape`, `attrs`, and the `uid` of `rows/`
      in hexadecimal. It is written last when an array is made: where it is missing there is no array yet.

    Times are appended before rows, and the array is as long as the shorter of the two: a crash between leaves
    times without rows, which nobody sees and the next writer cuts off.

    Raises FileNotFoundError where there is no array. Bound: one mapping a segment looked at, and two for
    heads.
    """

    def __init__(self, directory: Path, reference: str) -> None:
        description = read_description(directory)
        if description is None:
            raise FileNotFoundError(f"{directory} holds no data array")
        self.reference = reference
        self.directory = directory
        self.attrs: Mapping[str, Any] = MappingProxyType(description["attrs"])
        self._rows_file = SegmentedFile(directory / "rows")
        self._times_file = SegmentedFile(directory / "times")
        self.uid = self._rows_file.uid
        dtype, row_shape = dtype_from_json(description["dtype"]), tuple(description["row_shape"])
        super().__init__(self._rows_file, dtype, row_shape, beside=(self._times_file, _TIME.itemsize))
        self._times = Rows(self._times_file, _TIME, beside=(self._rows_file, row_bytes(dtype, row_shape)))

    @property
    def times_ns(self) -> Rows:
        """The event time of each row, int64 ns since the epoch, UTC: indexed like the array itself."""
        return self._times

    @property
    def replaced(self) -> bool:
        """Whether another array has taken this one's place, so that it will not grow any more."""
        return self._rows_file.replaced

    def close(self) -> None:
        """Let go of the files; views that exist stay valid."""
        self._rows_file.close()
        self._times_file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<DataArray {self.reference} {self.dtype} {self.shape}>"


class DataArrayWriter:
    """The one writer of a data array (the format is described at `DataArray`).

    An array's dtype, row shape and attrs are for good. Where the directory holds one that differs, it is set
    aside: renamed to `…~1` (`~2`, …), still readable as such, and a new one with a new uid begins.

    Errors and threads as with `SegmentedWriter`.
    """

    def __init__(
        self,
        directory: Path,
        reference: str,
        *,
        dtype: np.dtype[Any],
        row_shape: tuple[int, ...],
        attrs: Mapping[str, Any],
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
    ) -> None:
        """Open the array, or make it. Raises StoreLocked while another writer has it, ValueError for a dtype,
        a row shape or attrs that cannot be stored.
        """
        self.reference = reference
        self.directory = directory
        self.dtype = np.dtype(dtype)
        self.row_shape = tuple(row_shape)
        self._row_bytes = row_bytes(self.dtype, self.row_shape)
        wanted = as_json(
            {"dtype": dtype_to_json(self.dtype), "row_shape": self.row_shape, "attrs": dict(attrs)}
        )
        self.attrs: Mapping[str, Any] = MappingProxyType(wanted["attrs"])
        rows = SegmentedWriter(directory / "rows", segment_bytes=segment_bytes)
        found = read_description(directory)
        if not _describes(found, wanted) and (found is not None or rows.length):
            # Renamed while it is locked, so that no other writer can be at it.
            set_aside(directory)
            rows.close()
            found = None
            rows = SegmentedWriter(directory / "rows", segment_bytes=segment_bytes)
        self._rows = rows
        self._times = SegmentedWriter(directory / "times", segment_bytes=segment_bytes)
        self.uid = rows.uid
        if found is None or found["uid"] != self.uid.hex():
            write_description(directory, {**wanted, "uid": self.uid.hex()})
        self.cut(min(self._rows.length // self._row_bytes, self._times.length // _TIME.itemsize))

    @property
    def length(self) -> int:
        """Count of rows ever appended: the number of the next row."""
        return self._rows.length // self._row_bytes

    def append(self, rows: NDArray[Any], times_ns: NDArray[np.int64]) -> int:
        """Append rows, shape (n, *row_shape), with their event times, shape (n,); give the first one's
        number.

        Readers see all of them on return. Raises ValueError where dtype or shape is not the array's own.
        """
        if rows.dtype != self.dtype or rows.shape[1:] != self.row_shape or rows.ndim == 0:
            raise ValueError(
                f"{self.reference} takes rows of {self.dtype} {self.row_shape}, "
                f"not of {rows.dtype} {rows.shape[1:]}"
            )
        if times_ns.dtype != _TIME or times_ns.shape != rows.shape[:1]:
            raise ValueError(
                f"{self.reference}: {len(rows)} rows need times of int64 ({len(rows)},), "
                f"not {times_ns.dtype} {times_ns.shape}"
            )
        first = self.length
        self._times.append(np.ascontiguousarray(times_ns).data)
        # As bytes, since NumPy gives no buffer of dates.
        self._rows.append(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
        return first

    def cut(self, rows: int) -> None:
        """Make the array end after `rows` rows; the next append begins there. Raises as
        `SegmentedWriter.cut`.
        """
        self._rows.cut(rows * self._row_bytes)
        self._times.cut(rows * _TIME.itemsize)

    def drop_before(self, row: int) -> None:
        """Drop rows before `row`, as far as they fill whole segments, and free their space."""
        self._rows.drop_before(row * self._row_bytes)
        self._times.drop_before(row * _TIME.itemsize)

    def flush(self) -> None:
        """Make all rows durable; `Store.sync` does it for a whole store at once."""
        sync_description(self.directory)
        self._times.flush()
        self._rows.flush()

    def close(self) -> None:
        """Let go of the files and their locks. Does not sync."""
        self._rows.close()
        self._times.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _describes(found: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    return found is not None and {name: found.get(name) for name in wanted} == dict(wanted)


def set_aside(directory: Path) -> None:
    """Rename an array's directory, where there is one, to the first free of `…~1`, `…~2`, …"""
    if not directory.exists():
        return
    number = 1
    while (aside := directory.with_name(f"{directory.name}~{number}")).exists():
        number += 1
    os.rename(directory, aside)
