"""Data arrays: rows of samples, spectra, features or scores that grow while they are read."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ...errors import ArrayNotSealable
from ..interface.readers import ArrayReader
from ..pyramid.cells import CellLayout
from .description import dtype_from_json, read_description
from .mapping import PAGE_BYTES
from .pyramid_levels import Level, open_levels
from .rows import Rows, row_bytes
from .sealing import Sealing
from .segmented_file import SegmentedFile
from .zarr_metadata import NAME as ZARR_NAME
from .zarr_metadata import can_describe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TIME = np.dtype(np.int64)


class DataArray(Rows, ArrayReader):
    """A data array, for reading: `array[...]` gives read-only NumPy views of any range, without a copy.

    **Format.** A directory with

    - `rows/`: a segmented file of the rows, C order, one after another without padding;
    - `times/`: a segmented file of one int64 a row: its event time, ns since the epoch, UTC;
    - `meta.json`: `dtype` as `numpy.lib.format` describes it, `row_shape`, `attrs`, and the `uid` of `rows/`
      in hexadecimal. It is written last when an array is created: without it there is no array yet.

    Format 2 has more, and is written for each new array:

    - segments of `rows/` and `times/` have whole rows (`rows_per_segment`), and are chunks of a Zarr array;
    - `zarr.json`, `rows/zarr.json`, `times/zarr.json`: the description for other programs, made with the
      first sealed segment (`zarr_metadata`);
    - `checksums`: CRC32C of extents of rows and times (`ChecksumWriter`).

    Times are appended before rows, and the array is as long as the shorter of the two: a crash between leaves
    times without rows, which no reader sees and the next `resume` cuts off.

    Raises FileNotFoundError if there is no array. Bound: one mapping for each segment that is read, and two
    for heads.
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
        super().__init__(self._rows_file, dtype, row_shape, beside=(self._times_file, TIME.itemsize))
        self._times = Rows(self._times_file, TIME, beside=(self._rows_file, row_bytes(dtype, row_shape)))

    @property
    def times_ns(self) -> Rows:
        """The event time of each row, int64 ns since the epoch, UTC: indexed like the array itself."""
        return self._times

    @property
    def replaced(self) -> bool:
        """Whether another array has replaced this one, so that it no longer grows."""
        return self._rows_file.replaced

    def levels(self) -> Sequence[Level]:
        """The levels of the pyramid, level 1 first."""
        layout = CellLayout.of(self.dtype, self.row_shape)
        return () if layout is None else open_levels(self.directory, self.uid, layout)

    @property
    def format(self) -> int:
        """The version of the format of its files, 1 or 2."""
        return self._rows_file.version

    @property
    def zarr_path(self) -> Path | None:
        """As `ArrayReader.zarr_path`."""
        path = self.directory / "rows"
        return path if (path / ZARR_NAME).exists() else None

    @property
    def is_contiguous(self) -> bool:
        """Whether a range of rows is one view, however long; else one that crosses segments is a copy."""
        return self._rows_file.segment_bytes % PAGE_BYTES == 0

    @property
    def committed(self) -> int:
        """Rows that a checkpoint is known to cover; 0 if none is known."""
        times = self._times_file.committed // TIME.itemsize
        return min(self._rows_file.committed // self._row_bytes, times)

    def seal(self, *, zarr_root: Path) -> int:
        """Seal the committed rows, also those of an incomplete segment; return how many are sealed.

        The worker may be writing the array. Directories up to `zarr_root` become Zarr groups. Raises
        ArrayNotSealable for an array that Zarr cannot read, or of which nothing is committed; StoreFailed.
        """
        if self.format == 1:
            raise ArrayNotSealable(
                f"{self.reference} has format 1, which Zarr cannot read. Run `windvane upgrade` first"
            )
        if not can_describe(self.dtype):
            raise ArrayNotSealable(
                f"{self.reference} has rows of {self.dtype}, for which Zarr has no data type. Use "
                f"`windvane export {self.reference}`"
            )
        if not (rows := self.committed):
            raise ArrayNotSealable(
                f"{self.reference} has no committed rows. Seal it after the worker's next checkpoint"
            )
        sealing = Sealing(
            self.directory,
            (self._rows_file, self._times_file),
            root=zarr_root,
            dtype=self.dtype,
            row_shape=self.row_shape,
            attrs=self.attrs,
            row_bytes=self._row_bytes,
        )
        return sealing.seal_tail(rows)

    def close(self) -> None:
        """Close the files; views that exist stay valid."""
        self._rows_file.close()
        self._times_file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<DataArray {self.reference} {self.dtype} {self.shape}>"
