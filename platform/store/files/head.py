"""The head of a segmented file: the few words by which a writer tells readers what they may see."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from ...errors import StreamDamaged
from .file_errors import unreadable
from .mapping import PAGE_BYTES, map_whole
from .segment_names import MAX_DIMENSIONS, OFFSET_NAMES, ChunkNames, SegmentNames

if TYPE_CHECKING:
    from pathlib import Path

HEAD_BYTES = 64
HEAD_2_BYTES = 128
HEAD_LAYOUT = struct.Struct("<4sIQQQ16sQQ")
MAGIC = b"WVSF"
MAX_SEGMENT_BYTES = 1 << 40
_LAYOUT_2 = struct.Struct("<QQ")
_START, _LENGTH, _EPOCH, _COMMITTED, _TAIL = 2, 3, 6, 7, 9


@dataclass(frozen=True, slots=True)
class HeadFields:
    """The fields of a head that were read from bytes."""

    version: int
    segment_bytes: int
    start: int
    length: int
    uid: bytes
    epoch: int
    committed: int
    names: SegmentNames
    tail: int

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read the fields. Raises ValueError, with what is wrong, for bytes that are not a head."""
        if len(raw) < HEAD_BYTES or not any(raw):
            raise ValueError("the head is empty")
        magic, version, segment_bytes, start, length, uid, epoch, committed = HEAD_LAYOUT.unpack_from(raw)
        if magic != MAGIC or version not in (1, 2) or (version == 2 and len(raw) < HEAD_2_BYTES):
            raise ValueError(f"the head begins with {raw[:8].hex(' ')}")
        # Segments of rows are whole rows; others are mapped side by side, so they are whole pages.
        is_odd = version == 1 and segment_bytes % PAGE_BYTES
        if not 0 < segment_bytes < MAX_SEGMENT_BYTES or is_odd:
            raise ValueError(f"the head says segments of {segment_bytes} bytes")
        names: SegmentNames = OFFSET_NAMES
        tail = 0
        if version == 2:
            dimensions, tail = _LAYOUT_2.unpack_from(raw, HEAD_BYTES)
            if not 0 < dimensions <= MAX_DIMENSIONS:
                raise ValueError(f"the head says chunks of {dimensions} dimensions")
            names = ChunkNames(segment_bytes, dimensions)
        return cls(version, segment_bytes, start, length, uid, epoch, committed, names, tail)


def new_head(
    segment_bytes: int,
    uid: bytes,
    *,
    start: int = 0,
    length: int = 0,
    epoch: int = 0,
    dimensions: int | None = None,
) -> bytes:
    """The bytes of a head of which nothing is committed; `dimensions` of a Zarr array, None for format 1."""
    version = 1 if dimensions is None else 2
    words = HEAD_LAYOUT.pack(MAGIC, version, segment_bytes, start, length, uid, epoch, 0)
    return words if dimensions is None else (words + _LAYOUT_2.pack(dimensions, 0)).ljust(HEAD_2_BYTES, b"\0")


class Head:
    """The file `head`, mapped: every access reads or writes the file as all processes see it.

    | offset | bytes | |
    | --- | --- | --- |
    | 0 | 4 | magic `WVSF` |
    | 4 | 4 | version of the format, 1 or 2 |
    | 8 | 8 | `segment_bytes` |
    | 16 | 8 | `start`: offset of the first byte kept, a multiple of `segment_bytes` |
    | 24 | 8 | `length`: what readers may see |
    | 32 | 16 | `uid`: random, made with the file |
    | 48 | 8 | `epoch`: how often the file restarted at 0 after its beginning was dropped |
    | 56 | 8 | `committed`: bytes that a checkpoint is known to cover; 0 if none is known |
    | 64 | 8 | version 2: dimensions of the Zarr array of which each segment is a chunk (`ChunkNames`) |
    | 72 | 8 | version 2: `tail`: the checksum of the rows after the last extent (`Checksums`) |
    | 80 | 48 | version 2: zero |

    A head of version 1 has 64 bytes, one of version 2 has 128.

    All numbers are unsigned and little endian. `start`, `length`, `epoch`, `committed` and `tail` change
    while the file lives; each is an aligned word of eight bytes, read and written in one access, so that
    none is ever seen half-written.

    A crash of a process leaves the words as they were last written. After a power failure they may be newer
    than the segments, or older; an all-zero or missing head is one that never reached the disk.
    `committed` is written after the commit, so it may be too low after a crash, and never too high.
    """

    def __init__(self, descriptor: int, path: Path, *, writeable: bool = False) -> None:
        """Map the head of an open file. Raises FileNotFoundError if none was written yet,
        StreamDamaged if it is not a head that this version reads, or one that contradicts itself.
        """
        try:
            raw = os.pread(descriptor, HEAD_2_BYTES, 0)
        except OSError as error:
            raise unreadable(path, error) from error
        if len(raw) < HEAD_BYTES or not any(raw):
            raise FileNotFoundError(f"{path} has not been written yet")
        # `start` and `length` are two words, which a writer may be changing: they are not compared here.
        try:
            fields = HeadFields.parse(raw)
        except ValueError as error:
            raise StreamDamaged(
                f"{path} is damaged: {error}. The segments next to it are untouched; `windvane verify` shows "
                "what is damaged, `windvane verify --repair` restores the head"
            ) from None
        self.version = fields.version
        self.segment_bytes = fields.segment_bytes
        self.uid = fields.uid
        self.names = fields.names
        size = HEAD_BYTES if fields.version == 1 else HEAD_2_BYTES
        self._region = map_whole(descriptor, size, writeable=writeable)
        # Unlike an item of an array, an item of a memoryview is a Python integer.
        self._words = self._region.bytes().view(np.uint64).data

    @property
    def start(self) -> int:
        """Offset of the first byte kept."""
        return self._words[_START]

    @start.setter
    def start(self, offset: int) -> None:
        self._words[_START] = offset

    @property
    def length(self) -> int:
        """What readers may see, in bytes: one aligned read of eight bytes."""
        return self._words[_LENGTH]

    @length.setter
    def length(self, length: int) -> None:
        self._words[_LENGTH] = length

    @property
    def epoch(self) -> int:
        """How often the file restarted at 0 after its beginning was dropped."""
        return self._words[_EPOCH]

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._words[_EPOCH] = epoch

    def bounds(self) -> tuple[int, int, int]:
        """The start, the epoch and the length, read in this order."""
        words = self._words
        return words[_START], words[_EPOCH], words[_LENGTH]

    @property
    def committed(self) -> int:
        """Bytes that a checkpoint is known to cover; 0 if none is known."""
        return self._words[_COMMITTED]

    @committed.setter
    def committed(self, length: int) -> None:
        self._words[_COMMITTED] = length

    @property
    def tail(self) -> int:
        """The checksum of the rows after the last extent, of a head of version 2."""
        return self._words[_TAIL]

    @tail.setter
    def tail(self, word: int) -> None:
        self._words[_TAIL] = word

    def close(self) -> None:
        """Unmap, which releases the lock that a writer holds through the mapping."""
        del self._words
        self._region.release()
