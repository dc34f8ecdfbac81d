"""A few 64-bit numbers that processes share through a mapped file.

They publish two values that are cheap to read: the durable end of a partition (`<partition>/committed`), and
a change counter of the whole bus (`@doorbell`).
"""

import mmap
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from ...errors import BusCorrupt

WORD_BYTES = 8
_MAGIC = b"WVWORDS1"
_FILE_BYTES = 4096


def restore_page(fd: int, words: Mapping[int, int]) -> None:
    """Rewrite the open file as a valid page, durably and in place: processes that map it see it too."""
    os.pwrite(fd, _page(words), 0)
    os.ftruncate(fd, _FILE_BYTES)
    os.fsync(fd)


def _page(words: Mapping[int, int]) -> bytes:
    page = bytearray(_MAGIC.ljust(_FILE_BYTES, b"\0"))
    for place, value in words.items():
        page[place * WORD_BYTES : (place + 1) * WORD_BYTES] = value.to_bytes(WORD_BYTES, sys.byteorder)
    return bytes(page)


class SharedWords:
    """One page: 8 bytes of magic, then 64-bit words in the machine's byte order, all 0 in a new file.

    Each word is aligned, and one machine instruction loads or stores it, so a reader sees the old or the new
    number, never half of each. Two words are not updated atomically. The kernel writes the page at any time:
    after a power cut it may be older than the last store. It is filled and fsynced on creation, so that a
    later store needs no free disk space.

    `path` must exist: see `create`. The file descriptor `fd` remains open and can carry a lock.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.fd = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
        try:
            if (
                os.pread(self.fd, _FILE_BYTES, 0)[: len(_MAGIC)] != _MAGIC
                or os.fstat(self.fd).st_size != _FILE_BYTES
            ):
                raise BusCorrupt(
                    f"{path} is damaged: it is not a page of shared words. `windvane verify --repair` "
                    "recreates it"
                )
            self._map = mmap.mmap(
                self.fd, _FILE_BYTES, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
            )
        except BaseException:
            os.close(self.fd)
            raise
        # A memoryview of format Q moves 8 bytes at once; struct with "<Q" would move them one by one.
        self.words = memoryview(self._map).cast("Q")

    @staticmethod
    def create(path: Path, words: Mapping[int, int] = MappingProxyType({})) -> None:
        """Create the file with these words, complete and durable; no other process may use the path yet."""
        with path.open("xb") as file:
            file.write(_page(words))
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Unmap; a lock on `fd` ends."""
        self.words.release()
        self._map.close()
        os.close(self.fd)
