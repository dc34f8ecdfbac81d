"""Converts a data array of format 1 to format 2, while a worker writes it, and after any crash.

The rows are copied to `.upgrade-<output>` next to the array, with the same uid. Then, while nothing writes
the array, the rest follows, all of it is made durable, and renameat2(2) exchanges the two directories in one
step. So a checkpoint fits the array before and after it. A crash leaves a copy that the next run continues,
or the former directory under the name of the copy, which the next run removes.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from typing import TYPE_CHECKING

from ...directories import sync_directory
from ...errors import StoreFailed, StreamDamaged
from ..databases.checkpoint_records import OutputLength
from ..files.data_array import DataArray
from ..files.data_array_writer import DataArrayWriter
from ..files.description import read_description
from ..files.segmented_writer import SegmentedWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COPY_PREFIX = ".upgrade-"
COPY_BYTES = 8 * 1024 * 1024
"""Rows are copied in blocks of about this size."""
SYNC_BYTES = 256 * 1024 * 1024
"""The copy is made durable at intervals of this size: a later run continues there."""

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


class ArrayUpgrade:
    """The conversion of one array. `copy` needs no lock; `exchange` needs that of the stream."""

    def __init__(self, directory: Path, reference: str, *, zarr_root: Path) -> None:
        self.directory = directory
        self.reference = reference
        self._copy = directory.with_name(f"{COPY_PREFIX}{directory.name}")
        self._zarr_root = zarr_root

    @property
    def is_needed(self) -> bool:
        """Whether the array has format 1; False if it cannot be opened."""
        try:
            with DataArray(self.directory, self.reference) as array:
                return array.format == 1
        except (FileNotFoundError, StreamDamaged):
            return False

    def copy(self, done: Callable[[int], object] = lambda _: None) -> None:
        """Copy the committed rows; a worker may append others. `done` receives the bytes copied so far.

        Raises StreamDamaged if rows are missing, StoreLocked while another process copies, StoreFailed.
        """
        with DataArray(self.directory, self.reference) as array, self._writer(array) as writer:
            stop = array.committed
            interval = max(SYNC_BYTES // array.row_bytes, 1)
            while writer.length < stop:
                _append(array, writer, min(writer.length + interval, stop), done)
                _make_durable(writer, writer.length)

    def exchange(self) -> None:
        """Copy the rest, and put the copy in the place of the array.

        Raises StoreLocked while a worker writes the array, StoreFailed if the file system cannot do it.
        """
        with (
            SegmentedWriter(self.directory / "rows"),
            SegmentedWriter(self.directory / "times"),
            DataArray(self.directory, self.reference) as array,
        ):
            with self._writer(array) as writer:
                # A checkpoint may cover more rows than the head says; the worker cuts off the others.
                _append(array, writer, len(array), lambda _: None)
                _make_durable(writer, array.committed)
            _exchange(self._copy, self.directory)
            sync_directory(self.directory.parent)
        self.remove_former()

    def remove_former(self) -> None:
        """Remove what an exchange has replaced, or the copy of an array that is not there any more."""
        shutil.rmtree(self._copy, ignore_errors=True)

    def _is_copy_of(self, array: DataArray) -> bool:
        found = read_description(self._copy)
        if found is None or found.get("uid") != array.uid.hex():
            return False
        try:
            with DataArray(self._copy, self.reference) as copy:
                return copy.format == 2 and copy.committed <= len(array)
        except (FileNotFoundError, StreamDamaged):
            return False

    def _writer(self, array: DataArray) -> DataArrayWriter:
        """The writer of the copy, resumed after the rows that are known to be durable."""
        if array.start:
            raise StoreFailed(
                f"{self.reference} stays in format 1: rows before {array.start} were dropped, and its "
                "segments are not whole rows. It can be read and written as before"
            )
        if self._copy.exists() and not self._is_copy_of(array):
            shutil.rmtree(self._copy)
        writer = DataArrayWriter(
            self._copy,
            self.reference,
            dtype=array.dtype,
            row_shape=array.row_shape,
            attrs=array.attrs,
            rate_hz=_rate_hz(array),
            zarr_root=self._zarr_root,
            uid=array.uid,
        )
        try:
            described = read_description(self.directory) or {}
            database_id = bytes.fromhex(str(described.get("database_id", "")))
            return writer.resume(OutputLength(array.uid, writer.committed), database_id=database_id)
        except BaseException:
            writer.close()
            raise


def _append(array: DataArray, writer: DataArrayWriter, stop: int, done: Callable[[int], object]) -> None:
    block_rows = max(COPY_BYTES // array.row_bytes, 1)
    while (first := writer.length) < stop:
        end = min(first + block_rows, stop)
        writer.append(array[first:end], array.times_ns[first:end])
        done(end * array.row_bytes)


def _make_durable(writer: DataArrayWriter, committed: int) -> None:
    writer.snapshot()
    writer.flush()
    writer.mark_committed(OutputLength(writer.uid, committed))


def _rate_hz(array: DataArray) -> float:
    """Rows per second, from the times of the first and the last one; 0.0 if they do not say."""
    if len(array) < 2:
        return 0.0
    first, last = (int(array.times_ns[number]) for number in (0, -1))
    return (len(array) - 1) * 1e9 / (last - first) if last > first else 0.0


def _exchange(one: Path, other: Path) -> None:
    if _libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        code = ctypes.get_errno()
        raise StoreFailed(
            f"exchanging {one} and {other} failed ({os.strerror(code)}). The array stays as it is; copy the "
            "home to a file system that can exchange directories (ext4, XFS, Btrfs), and upgrade it there"
        )
