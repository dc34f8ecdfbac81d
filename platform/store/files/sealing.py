"""Seals rows of a data array: shows other programs, as a Zarr array, the rows that do not change any more."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ...errors import DiskFull, StoreFailed
from .file_errors import NO_SPACE
from .zarr_metadata import can_describe, locked_metadata, sealed_rows, write_metadata

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from .segmented_file import SegmentedFile
    from .segmented_writer import SegmentedWriter


class Sealing:
    """The sealed rows of an array of format 2.

    Rows are sealed when a checkpoint covers their whole segment. The metadata is written after the segments
    are durable, and not synced itself: after a power failure it may be an earlier one, or empty, and `resume`
    writes it again. The last chunk of the times is made as long as a whole one (a hole follows the times),
    because Zarr reads only whole chunks.
    """

    def __init__(
        self,
        directory: Path,
        files: tuple[SegmentedFile | SegmentedWriter, SegmentedFile | SegmentedWriter],
        *,
        root: Path,
        dtype: np.dtype[Any],
        row_shape: tuple[int, ...],
        attrs: Mapping[str, Any],
        row_bytes: int,
    ) -> None:
        """`files` have the rows and the times; groups are described from `directory` up to `root`."""
        self._directory = directory
        self._rows, self._times = files
        self._root = root
        self._layout: dict[str, Any] = {"dtype": dtype, "row_shape": row_shape, "attrs": attrs}
        self._row_bytes = row_bytes
        self._segment_rows = self._rows.segment_bytes // row_bytes
        self._times_segment_rows = self._times.segment_bytes // 8
        self._is_described = can_describe(dtype)
        self._sealed = 0

    def resume(self, rows: int) -> None:
        """Describe the whole segments of the first `rows` rows, if the metadata says otherwise."""
        self._sealed = sealed_rows(self._directory)
        if self._sealed > rows or self._sealed < rows - rows % self._segment_rows:
            self._publish(rows - rows % self._segment_rows, is_less=True)

    def commit(self, rows: int) -> None:
        """Seal the whole segments among the first `rows` rows, which a checkpoint covers."""
        if rows - self._sealed >= self._segment_rows and self._is_described:
            self._publish(rows - rows % self._segment_rows)

    def cut(self, rows: int) -> None:
        """Show no rows past `rows`; before they are cut off."""
        if self._sealed > rows:
            self._publish(rows - rows % self._segment_rows, is_less=True)

    def drop(self) -> None:
        """Describe the first row that is kept, after the beginning was dropped."""
        if self._sealed:
            self._publish(self._sealed)

    def seal_tail(self, rows: int) -> int:
        """Seal all of the first `rows` rows, committed ones, and return how many are sealed.

        The segment of the last one gets its full size: a hole follows the rows. The writer may continue.
        """
        tail = rows % self._segment_rows
        if tail:
            self._make_whole(self._rows, rows * self._row_bytes)
        self._publish(rows)
        return self._sealed

    def _publish(self, rows: int, *, is_less: bool = False) -> None:
        if not self._is_described:
            return
        try:
            with locked_metadata(self._directory):
                # The tail may have been sealed by another process.
                self._sealed = rows if is_less else max(rows, sealed_rows(self._directory))
                if self._sealed % self._times_segment_rows:
                    self._make_whole(self._times, self._sealed * 8)
                write_metadata(
                    self._directory,
                    root=self._root,
                    rows=self._sealed,
                    first_row=-(-self._rows.start // self._row_bytes),
                    segment_rows=(self._segment_rows, self._times_segment_rows),
                    **self._layout,
                )
        except OSError as error:
            kind = DiskFull if error.errno in NO_SPACE else StoreFailed
            raise kind(
                f"describing the sealed rows of {self._directory} failed ({error.strerror}). Check the disk "
                "and the space on it, then restart the worker: it continues from its last checkpoint"
            ) from error

    @staticmethod
    def _make_whole(file: SegmentedFile | SegmentedWriter, end: int) -> None:
        path = file.directory / file.names.name((end - 1) // file.segment_bytes * file.segment_bytes)
        if os.stat(path).st_size < file.segment_bytes:
            os.truncate(path, file.segment_bytes)
