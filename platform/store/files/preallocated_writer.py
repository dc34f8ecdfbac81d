"""Writes a segmented file of small records through a mapping: no system call for most appends."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .mapping import PAGE_BYTES, Region, map_whole, round_up
from .segmented_writer import SegmentedWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

MAX_MAPPED_APPEND_BYTES = 4096
"""Larger appends are written by a system call: it costs less than the page faults of a mapping."""
MAX_PREALLOCATED_BYTES = 64 * 1024
"""Space on the disk that is allocated in advance, at most; less for a file that is smaller than this."""


class PreallocatedWriter(SegmentedWriter):
    """A writer that copies small appends into its mapping of the segment, whose space is allocated before.

    The space is allocated by posix_fallocate(3), half as much again as is needed and at most
    MAX_PREALLOCATED_BYTES ahead: a store into a page without space on a full disk would end the process
    (SIGBUS). So segments are longer on the disk than what was appended, and a segment that lost its end in a
    power cut looks whole: for records that have a checksum.

    Bound: one mapping more than `SegmentedWriter`.
    """

    _region: Region | None = None
    _segment = 0
    _allocated_bytes = 0
    _memory = memoryview(b"")

    def close(self) -> None:
        """As `SegmentedWriter.close`."""
        self._unmap()
        super().close()

    def _write(self, offset: int, buffers: Sequence[Buffer], total: int) -> None:
        if total > MAX_MAPPED_APPEND_BYTES:
            super()._write(offset, buffers, total)
            return
        position = offset % self.segment_bytes
        if self._region is None or self._segment != offset - position:
            self._map(offset - position)
        if position + total > self._allocated_bytes:
            self._allocate(position + total)
        for buffer in buffers:
            data = memoryview(buffer).cast("B")
            self._memory[position : position + len(data)] = data
            position += len(data)

    def _map(self, segment: int) -> None:
        self._unmap()
        descriptor = self._open_segment(segment, os.O_RDWR)
        try:
            self._region = map_whole(descriptor, self.segment_bytes, writeable=True)
        finally:
            os.close(descriptor)
        self._memory = self._region.bytes().data
        self._segment = segment
        self._allocated_bytes = 0

    def _unmap(self) -> None:
        self._memory = memoryview(b"")
        if self._region is not None:
            self._region.release()
            self._region = None

    def _allocate(self, needed_bytes: int) -> None:
        ahead = min(max(needed_bytes // 2, PAGE_BYTES), MAX_PREALLOCATED_BYTES)
        end = min(round_up(needed_bytes + ahead, PAGE_BYTES), self.segment_bytes)
        descriptor = self._open_segment(self._segment, os.O_RDWR)
        try:
            os.posix_fallocate(descriptor, 0, end)
        except OSError as error:
            self._fail(f"allocating {end} bytes of {self._segment_path(self._segment)}", error)
        finally:
            os.close(descriptor)
        self._allocated_bytes = end
