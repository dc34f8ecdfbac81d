"""The head of a segmented file: the few words by which a writer tells readers what they may see."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import numpy as np

from ..errors import StoreFailed
from .mapping import map_whole

if TYPE_CHECKING:
    from pathlib import Path

HEAD_BYTES = 64
_MAGIC = b"WVSF"
_VERSION = 1
_LAYOUT = struct.Struct("<4sIQQQ16sQ8x")
_START, _LENGTH, _EPOCH = 2, 3, 6


class Head:
    """The 64 bytes of the file `head`, mapped: every access reads or writes the file as all processes see it.

    | offset | bytes | |
    | --- | --- | --- |
    | 0 | 4 | magic `WVSF` |
    | 4 | 4 | version of the format, 1 |
    | 8 | 8 | `segment_bytes` |
    | 16 | 8 | `start`: offset of the first byte kept, a multiple of `segment_bytes` |
    | 24 | 8 | `length`: the committed length |
    | 32 | 16 | `uid`: random, made with the file |
    | 48 | 8 | `epoch`: how often the file was begun anew after its beginning had been dropped |
    | 56 | 8 | zero |

    All numbers are unsigned and little endian. `start`, `length` and `epoch` change while the file lives;
    each is an aligned word of eight bytes, read and written in one access, so that none is ever seen
    half-written.

    A crash of a process leaves the words as they were last written. After a power failure they may be newer
    than the segments beside them, or older; an all-zero or missing head is one that never reached the disk.
    """

    def __init__(self, descriptor: int, path: Path, *, writeable: bool = False) -> None:
        """Map the head of an open file. Raises FileNotFoundError where none was written yet, StoreFailed
        where it is no head that this version reads.
        """
        raw = os.pread(descriptor, HEAD_BYTES, 0)
        if len(raw) < HEAD_BYTES or not any(raw):
            raise FileNotFoundError(f"{path} has not been written yet")
        magic, version, self.segment_bytes, _, _, self.uid, _ = _LAYOUT.unpack(raw)
        if magic != _MAGIC or version != _VERSION:
            raise StoreFailed(
                f"{path} is not the head of a segmented file of version {_VERSION} "
                f"(it begins with {raw[:8].hex(' ')}); put it back from a backup, or move its directory away"
            )
        self._region = map_whole(descriptor, HEAD_BYTES, writeable=writeable)
        self._words = self._region.bytes().view(np.uint64)

    @staticmethod
    def write_new(descriptor: int, segment_bytes: int) -> None:
        """Write the head of an empty file, with a new uid, over whatever the file holds."""
        os.pwrite(descriptor, _LAYOUT.pack(_MAGIC, _VERSION, segment_bytes, 0, 0, os.urandom(16), 0), 0)

    @property
    def start(self) -> int:
        """Offset of the first byte kept."""
        return int(self._words.item(_START))

    @start.setter
    def start(self, offset: int) -> None:
        self._words[_START] = offset

    @property
    def length(self) -> int:
        """The committed length: one aligned read of eight bytes."""
        return int(self._words.item(_LENGTH))

    @length.setter
    def length(self, length: int) -> None:
        self._words[_LENGTH] = length

    @property
    def epoch(self) -> int:
        """How often the file was begun anew after its beginning had been dropped."""
        return int(self._words.item(_EPOCH))

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._words[_EPOCH] = epoch

    def close(self) -> None:
        """Unmap, and with it let go of the lock that a writer holds through the mapping."""
        del self._words
        self._region.release()
