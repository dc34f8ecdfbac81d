"""The head of a segmented file: the few words by which a writer tells readers what they may see."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import numpy as np

from ...errors import StreamDamaged
from .file_errors import unreadable
from .mapping import PAGE_BYTES, map_whole

if TYPE_CHECKING:
    from pathlib import Path

HEAD_BYTES = 64
_MAGIC = b"WVSF"
_VERSION = 1
_MOST_SEGMENT_BYTES = 1 << 40
_LAYOUT = struct.Struct("<4sIQQQ16sQQ")
_START, _LENGTH, _EPOCH, _COMMITTED = 2, 3, 6, 7


class Head:
    """The 64 bytes of the file `head`, mapped: every access reads or writes the file as all processes see it.

    | offset | bytes | |
    | --- | --- | --- |
    | 0 | 4 | magic `WVSF` |
    | 4 | 4 | version of the format, 1 |
    | 8 | 8 | `segment_bytes` |
    | 16 | 8 | `start`: offset of the first byte kept, a multiple of `segment_bytes` |
    | 24 | 8 | `length`: what readers may see |
    | 32 | 16 | `uid`: random, made with the file |
    | 48 | 8 | `epoch`: how often the file restarted at 0 after its beginning was dropped |
    | 56 | 8 | `committed`: bytes that a checkpoint is known to cover; 0 if none is known |

    All numbers are unsigned and little endian. `start`, `length`, `epoch` and `committed` change while the
    file lives; each is an aligned word of eight bytes, read and written in one access, so that none is ever
    seen half-written.

    A crash of a process leaves the words as they were last written. After a power failure they may be newer
    than the segments, or older; an all-zero or missing head is one that never reached the disk.
    `committed` is written after the commit, so it may be too low after a crash, and never too high.
    """

    def __init__(self, descriptor: int, path: Path, *, writeable: bool = False) -> None:
        """Map the head of an open file. Raises FileNotFoundError if none was written yet,
        StreamDamaged if it is not a head that this version reads, or one that contradicts itself.
        """
        try:
            raw = os.pread(descriptor, HEAD_BYTES, 0)
        except OSError as error:
            raise unreadable(path, error) from error
        if len(raw) < HEAD_BYTES or not any(raw):
            raise FileNotFoundError(f"{path} has not been written yet")
        magic, version, self.segment_bytes, _, _, self.uid, _, _ = _LAYOUT.unpack(raw)
        if magic != _MAGIC or version != _VERSION:
            raise StreamDamaged(
                f"{path} is not the head of a segmented file of version {_VERSION} "
                f"(it begins with {raw[:8].hex(' ')}). The segments next to it are untouched; "
                "`windvane verify` shows what is damaged, `windvane verify --repair` restores the head"
            )
        # `start` and `length` are two words, which a writer may be changing: they are not compared here.
        if not 0 < self.segment_bytes < _MOST_SEGMENT_BYTES or self.segment_bytes % PAGE_BYTES:
            raise StreamDamaged(
                f"{path} is damaged: it says segments of {self.segment_bytes} bytes. The segments next to "
                "it are untouched; `windvane verify` shows what is damaged, `windvane verify --repair` "
                "restores the head"
            )
        self._region = map_whole(descriptor, HEAD_BYTES, writeable=writeable)
        self._words = self._region.bytes().view(np.uint64)

    @staticmethod
    def write_new(descriptor: int, segment_bytes: int, uid: bytes) -> None:
        """Write the head of an empty file over whatever the file holds."""
        os.pwrite(descriptor, _LAYOUT.pack(_MAGIC, _VERSION, segment_bytes, 0, 0, uid, 0, 0), 0)

    @property
    def start(self) -> int:
        """Offset of the first byte kept."""
        return int(self._words.item(_START))

    @start.setter
    def start(self, offset: int) -> None:
        self._words[_START] = offset

    @property
    def length(self) -> int:
        """What readers may see, in bytes: one aligned read of eight bytes."""
        return int(self._words.item(_LENGTH))

    @length.setter
    def length(self, length: int) -> None:
        self._words[_LENGTH] = length

    @property
    def epoch(self) -> int:
        """How often the file restarted at 0 after its beginning was dropped."""
        return int(self._words.item(_EPOCH))

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._words[_EPOCH] = epoch

    @property
    def committed(self) -> int:
        """Bytes that a checkpoint is known to cover; 0 if none is known."""
        return int(self._words.item(_COMMITTED))

    @committed.setter
    def committed(self, length: int) -> None:
        self._words[_COMMITTED] = length

    def close(self) -> None:
        """Unmap, which releases the lock that a writer holds through the mapping."""
        del self._words
        self._region.release()
