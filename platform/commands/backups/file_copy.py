"""Copies and checks one file: its holes stay holes, and its CRC32C is computed on the way."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import google_crc32c

_PIECE_BYTES = 4 * 1024 * 1024
_BLOCK_BYTES = 512  # of `st_blocks`, whatever the file system
_ZEROS = bytes(_PIECE_BYTES)

Done = Callable[[int], object]
"""Receives the number of bytes that were handled since its last call."""


def copy_file(source: Path, target: Path, *, mode: int, done: Done) -> tuple[int, int]:
    """Copy the bytes that `source` has now to `target`, which is replaced; give their count and CRC32C.

    A file that grows meanwhile is copied up to its present size. Nothing is synced. Raises OSError.
    """
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            size, crc = _read(reading, done, lambda data, position: _write(writing, data, position))
            os.ftruncate(writing, size)
            os.fchmod(writing, mode)
        finally:
            os.close(writing)
    finally:
        os.close(reading)
    return size, crc


def checksum(path: Path, *, done: Done) -> tuple[int, int]:
    """The size of a file and the CRC32C of its content. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read(descriptor, done, lambda data, position: None)
    finally:
        os.close(descriptor)


def _read(descriptor: int, done: Done, take: Callable[[bytes, int], object]) -> tuple[int, int]:
    """Give the bytes of a file, but not those of its holes, to `take`; return its size and CRC32C."""
    position = crc = 0
    for start, stop, is_hole in _extents(descriptor):
        position = start
        while position < stop:
            wanted = min(_PIECE_BYTES, stop - position)
            data = _ZEROS[:wanted] if is_hole else os.pread(descriptor, wanted, position)
            if not data:
                return position, crc  # the file was truncated meanwhile
            if not is_hole:
                take(data, position)
            crc = google_crc32c.extend(crc, data)
            position += len(data)
            done(len(data))
    return position, crc


def _extents(descriptor: int) -> Iterator[tuple[int, int, bool]]:
    """The ranges of a file's bytes, and whether each is a hole."""
    status = os.fstat(descriptor)
    position, size = 0, status.st_size
    if status.st_blocks * _BLOCK_BYTES >= size:
        yield 0, size, False
        return
    while position < size:
        try:
            data = min(os.lseek(descriptor, position, os.SEEK_DATA), size)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            data = size  # a hole up to the end
        if data > position:
            yield position, data, True
        if data < size:
            hole = min(os.lseek(descriptor, data, os.SEEK_HOLE), size)
            yield data, hole, False
            data = hole
        position = data


def _write(descriptor: int, data: bytes, position: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, position)
        rest, position = rest[written:], position + written
