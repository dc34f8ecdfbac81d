"""A segmented file as its segments are on disk, independent of its head; for scrubbing and repair."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c

from ..files.head import HeadFields
from ..files.mapping import PAGE_BYTES
from ..files.segment_files import segments
from ..files.segment_names import OFFSET_NAMES, SegmentNames
from ..files.segmented_writer import DEFAULT_SEGMENT_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_READ_BYTES = 4 * 1024 * 1024


class Hole(NamedTuple):
    """Bytes `start` to `stop` of a segmented file that `path` lacks from its byte `at` on."""

    path: Path
    at: int
    start: int
    stop: int
    reason: str


class StoredSegments:
    """Head, segments and bytes of a segmented file.

    `problem` is why the head cannot be used. Then `segment_bytes`, `start` and `length` are inferred from
    the segments, `uid` is empty and `committed` is 0.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.segments: dict[int, int] = {}
        self.names: SegmentNames = OFFSET_NAMES
        self.version = 1
        self.tail = 0
        self.problem: str | None = None
        self.uid = b""
        self.committed = 0
        self.epoch = 0
        try:
            raw = (directory / "head").read_bytes()
        except FileNotFoundError:
            raw = b""
            self.problem = "the head is missing" if directory.exists() else "the directory is missing"
        except OSError as error:
            raw = b""
            self.problem = f"the head cannot be read ({error.strerror})"
        if self.problem is None:
            self._read(raw)
        if self.problem is not None:
            self.segments = segments(str(directory), OFFSET_NAMES)
            bases = sorted(self.segments)
            self.segment_bytes = _inferred_segment_bytes(self.segments)
            self.start = bases[0] if bases else 0
            self.length = bases[-1] + self.segments[bases[-1]] if bases else 0

    def _read(self, raw: bytes) -> None:
        try:
            fields = HeadFields.parse(raw)
        except ValueError as error:
            self.problem = str(error)
            return
        self.version, self.segment_bytes, self.start, self.length = (
            fields.version,
            fields.segment_bytes,
            fields.start,
            fields.length,
        )
        self.uid, self.epoch, self.committed = fields.uid, fields.epoch, fields.committed
        self.names, self.tail = fields.names, fields.tail
        self.segments = segments(str(self.directory), self.names)
        if self.start % self.segment_bytes or 0 < self.length < self.start:
            self.problem = f"the head says that bytes {self.start} to {self.length} are kept"
        elif self.committed > self.length:
            self.problem = f"the head says {self.committed} committed bytes of {self.length}"
        elif any(base % self.segment_bytes for base in self.segments):
            self.problem = "the segments do not fit the head"
        elif self.start not in self.segments and any(base < self.start for base in self.segments):
            self.problem = (
                f"the head says that all before byte {self.start} was dropped, but there are older segments"
            )

    def holes(self, stop: int) -> Iterator[Hole]:
        """Yield the ranges of bytes from `self.start` to `stop` that no segment has."""
        for base in range(self.start, stop, self.segment_bytes):
            wanted = min(self.segment_bytes, stop - base)
            held = self.segments.get(base)
            if held is None or held < wanted:
                yield Hole(
                    self.path(base),
                    held or 0,
                    base + (held or 0),
                    base + wanted,
                    "the segment is missing" if held is None else "the segment is cut short",
                )

    def path(self, offset: int) -> Path:
        """The segment with this byte."""
        base = offset - offset % self.segment_bytes
        return self.directory / self.names.name(base)

    def place(self, offset: int) -> tuple[Path, int]:
        """The segment with this byte, and the position in it."""
        return self.path(offset), offset % self.segment_bytes

    def read(self, offset: int, size: int) -> bytes:
        """These bytes, up to the first that is missing. Raises OSError if they cannot be read."""
        return b"".join(self.pieces(offset, offset + size))

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes in pieces of at most 4 MiB, up to the first that is missing."""
        while start < stop:
            path, at = self.place(start)
            size = min(stop - start, self.segment_bytes - at, _READ_BYTES)
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return
            try:
                piece = os.pread(descriptor, size, at)
            finally:
                os.close(descriptor)
            if piece:
                yield piece
            if len(piece) < size:
                return
            start += size

    def crc32c(self, offset: int, size: int) -> int | None:
        """The checksum of these bytes; None if some are missing."""
        checksum = held = 0
        for piece in self.pieces(offset, offset + size):
            checksum = google_crc32c.extend(checksum, piece)
            held += len(piece)
        return checksum if held == size else None


def _inferred_segment_bytes(segments: dict[int, int]) -> int:
    """The segment size that these names and sizes suggest: their distance, or the default."""
    distance = math.gcd(*segments) if segments else 0
    if distance and len(segments) > 1:
        return max(distance, PAGE_BYTES)
    largest = max(segments.values(), default=0)
    return max(distance or DEFAULT_SEGMENT_BYTES, -(-largest // PAGE_BYTES) * PAGE_BYTES)
