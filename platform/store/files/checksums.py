"""Checksums of the rows and times of a data array: one for each extent of rows."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c
import numpy as np

from ...errors import DiskFull, StoreFailed
from .file_errors import NO_SPACE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from .segmented_writer import SegmentedWriter

MIN_EXTENT_BYTES = 64 * 1024
"""An extent is closed by the first checkpoint after so many bytes of rows and times."""
MAX_EXTENT_BYTES = 4 * 1024 * 1024
"""An extent is closed by the append that makes it as large as this."""
_RECORD = np.dtype(
    [
        ("end", "<u8"),  # the row after the last one of the extent, which begins where the one before ends
        ("rows_crc32c", "<u4"),
        ("times_crc32c", "<u4"),
        ("record_crc32c", "<u4"),  # of the fields before: a record that was torn does not count
        ("padding", "<u4"),
    ]
)
_CHECKED_BYTES = 16


class Extent(NamedTuple):
    """Rows from `first` to `end` (exclusive), and the CRC32C of their bytes and of those of their times."""

    first: int
    end: int
    rows_crc32c: int
    times_crc32c: int


def read_extents(path: Path) -> list[Extent]:
    """The extents in the file, in their order, up to the first record that is not whole.

    Raises OSError if the disk cannot return them.
    """
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return []
    extents: list[Extent] = []
    first = 0
    for record in np.frombuffer(raw, _RECORD, len(raw) // _RECORD.itemsize):
        end = int(record["end"])
        if end <= first or google_crc32c.value(record.tobytes()[:_CHECKED_BYTES]) != record["record_crc32c"]:
            break
        extents.append(Extent(first, end, int(record["rows_crc32c"]), int(record["times_crc32c"])))
        first = end
    return extents


def tail_extent(first: int, rows_tail: int, times_tail: int) -> Extent | None:
    """The extent after the last closed one, which ends at row `first`, from the words `tail` of both heads.

    Each word has the end of the extent (its low 32 bits) above the checksum. None if the words are of an
    earlier time than the last record, or of two different times.
    """
    ends = rows_tail >> 32, times_tail >> 32
    rows = (ends[0] - first) & 0xFFFF_FFFF
    # A row with its time has more than one byte, and larger extents are closed.
    if ends[0] != ends[1] or not 0 < rows < MIN_EXTENT_BYTES:
        return None
    return Extent(first, first + rows, rows_tail & 0xFFFF_FFFF, times_tail & 0xFFFF_FFFF)


class ChecksumWriter:
    """Computes the checksums of what is appended, and writes those of extents that are committed.

    **Format.** `checksums`, next to `rows/` and `times/`: a record of 24 bytes for each closed extent, made
    with the first of them. The words `tail` of the two heads have the checksum of the committed rows after
    the last record. A record is written after its rows are committed, before the words: words whose end is
    not past the last record are of an earlier commit.

    **What a crash can do.** Nothing is synced here; a later sync of the store makes it durable. After a power
    failure records and words may be those of an earlier commit. `resume` reads the rows after them again.
    """

    def __init__(self, path: Path, rows: SegmentedWriter, times: SegmentedWriter, *, row_bytes: int) -> None:
        """`row_bytes` counts the time of a row too."""
        self._path = path
        self._files = rows, times
        self._row_bytes = row_bytes
        self._first = self._end = 0
        self._rows_crc32c = self._times_crc32c = 0
        self._written = 0
        self._closed: list[Extent] = []
        self._snapshots: dict[int, Extent] = {}

    def resume(self, start: int, rows: int, read: Callable[[int, int], tuple[bytes, bytes]]) -> None:
        """Continue after `rows` rows, of which those before `start` were dropped.

        `read(first, end)` returns the bytes of rows, and those of their times. Extents that were begun before
        `start` cannot be verified any more.
        """
        extents = [extent for extent in read_extents(self._path) if extent.end <= rows]
        self._written = len(extents)
        self._first = self._end = extents[-1].end if extents else 0
        self._rows_crc32c = self._times_crc32c = 0
        self._closed.clear()
        self._snapshots.clear()
        tail = tail_extent(self._first, self._files[0].tail, self._files[1].tail)
        if tail is not None and tail.end <= rows:
            self._end, self._rows_crc32c, self._times_crc32c = tail.end, tail.rows_crc32c, tail.times_crc32c
        else:
            self._files[0].tail = self._files[1].tail = 0
        self._truncate()
        step = max(MIN_EXTENT_BYTES // self._row_bytes, 1)
        for first in range(max(self._end, start), rows, step):
            end = min(first + step, rows)
            self.extend(*read(first, end), end - first)
        self._end = rows

    def extend(self, rows: bytes | NDArray[Any], times_ns: bytes | NDArray[np.int64], count: int) -> None:
        """Add `count` rows and their times, both contiguous, after they were appended."""
        self._rows_crc32c = google_crc32c.extend(self._rows_crc32c, rows)
        self._times_crc32c = google_crc32c.extend(self._times_crc32c, times_ns)
        self._end += count
        if (self._end - self._first) * self._row_bytes >= MAX_EXTENT_BYTES:
            self._close_extent()

    def snapshot(self) -> None:
        """Note the checksum up to the present end, which a checkpoint may commit; close a large extent."""
        if (self._end - self._first) * self._row_bytes >= MIN_EXTENT_BYTES:
            self._close_extent()
        elif self._end > self._first:
            self._snapshots[self._end] = self._extent

    def commit(self, rows: int) -> None:
        """Write the checksums of the first `rows` rows, which a checkpoint now covers.

        Raises StoreFailed if the disk does not take them.
        """
        while self._closed and self._closed[0].end <= rows:
            self._append(self._closed[0])
            del self._closed[0]
        tail = self._snapshots.get(rows)
        if tail is not None:
            end = (tail.end & 0xFFFF_FFFF) << 32
            self._files[0].tail, self._files[1].tail = end | tail.rows_crc32c, end | tail.times_crc32c
        # A copy, since the thread of the stream may add a snapshot meanwhile.
        for end in [end for end in list(self._snapshots) if end <= rows]:
            del self._snapshots[end]

    def _truncate(self) -> None:
        """Remove the records of rows that were cut off: else they count when there are as many rows."""
        with suppress(FileNotFoundError), self._failing():
            if os.stat(self._path).st_size > (size := self._written * _RECORD.itemsize):
                os.truncate(self._path, size)

    @property
    def _extent(self) -> Extent:
        return Extent(self._first, self._end, self._rows_crc32c, self._times_crc32c)

    def _close_extent(self) -> None:
        self._closed.append(self._extent)
        self._first = self._end
        self._rows_crc32c = self._times_crc32c = 0

    def _append(self, extent: Extent) -> None:
        record = np.zeros(1, _RECORD)
        record["end"], record["rows_crc32c"], record["times_crc32c"] = extent[1:]
        record["record_crc32c"] = google_crc32c.value(record.tobytes()[:_CHECKED_BYTES])
        with self._failing():
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                os.pwrite(descriptor, record.tobytes(), self._written * _RECORD.itemsize)
            finally:
                os.close(descriptor)
        self._written += 1

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            kind = DiskFull if error.errno in NO_SPACE else StoreFailed
            raise kind(
                f"writing {self._path} failed ({error.strerror}). Check the disk and the space on it, then "
                "restart the worker: it continues from its last checkpoint"
            ) from error
