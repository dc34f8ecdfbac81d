"""Names of the files that hold the segments of a segmented file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

MAX_DIMENSIONS = 64
"""Dimensions of an array: NumPy has no more."""

_CHUNK = re.compile(r"c\.([0-9]+)((?:\.0)*)")


class SegmentNames(Protocol):
    """How segments are named by the offset of their first byte, and found again."""

    def name(self, segment: int) -> str:
        """The name of the file of the segment that begins at offset `segment`."""

    def offset(self, name: str) -> int | None:
        """The offset of the first byte of the segment in a file of this name; None for another file."""


class OffsetNames:
    """Format 1: 20 digits, the offset in bytes, and `.seg`."""

    def name(self, segment: int) -> str:
        """As `SegmentNames`."""
        return f"{segment:020d}.seg"

    def offset(self, name: str) -> int | None:
        """As `SegmentNames`."""
        return int(name[:-4]) if name.endswith(".seg") and name[:-4].isdigit() else None


OFFSET_NAMES = OffsetNames()


@dataclass(frozen=True, slots=True)
class ChunkNames:
    """Format 2: the keys of the chunks of a Zarr v3 array whose chunks are whole along all axes but axis 0.

    The chunk key encoding is `default` with the separator `.`, so that an array's chunks are files of one
    directory: `c.7.0.0` is the eighth segment of an array of three dimensions.
    """

    segment_bytes: int
    dimensions: int

    def name(self, segment: int) -> str:
        """As `SegmentNames`."""
        return f"c.{segment // self.segment_bytes}" + ".0" * (self.dimensions - 1)

    def offset(self, name: str) -> int | None:
        """As `SegmentNames`."""
        match = _CHUNK.fullmatch(name)
        if match is None or len(match[2]) != 2 * (self.dimensions - 1):
            return None
        return int(match[1]) * self.segment_bytes
