"""Finds the whole and the damaged messages of a segment, without trusting the bytes before them.

A record has its length and its offset, so the next whole record after a damaged one can be found. Senders
choose the content of a message, which could include bytes that look like a record. So the scan first tries
the length of the damaged record. Only if no record follows there, it tries each byte as the start of a
record, and chooses the position whose records reach furthest.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .record_format import HEADER_BYTES, MAX_MESSAGE_BYTES, RecordDamagedError, record_bytes, record_end

SCAN_BYTES = 4 * 1024 * 1024
"""Bytes of a segment in one read; a larger record is read whole."""

_LENGTH_BYTES = 8
_MIN_LENGTH = 12
_NO_STOP = 2**62
_MAX_CANDIDATES = 1_000_000
"""Bound on the positions tried in one damaged segment; the bytes after them count as damaged too."""


class Run(NamedTuple):
    """Consecutive whole records."""

    first: int
    """Offset of the first one."""
    stop: int
    """Offset after the last one."""
    start_byte: int
    stop_byte: int


class Damage(NamedTuple):
    """Messages that are missing from a segment."""

    path: Path
    byte: int
    """The position at which the first of them begins, or should begin."""
    first: int
    """Offset of the first missing message."""
    stop: int
    """Offset after the last missing message."""
    reason: str


class SegmentScan(NamedTuple):
    """The whole and the missing messages of a segment; runs and damages in order of offsets."""

    runs: list[Run]
    damages: list[Damage]


def scan_segment(path: Path, base: int, stop: int) -> SegmentScan:
    """Check that the segment has the messages from offset `base` up to `stop`; reads all of it.

    Raises OSError if the file cannot be read; if it does not exist, all its messages are missing.
    """
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return SegmentScan([], [Damage(path, 0, base, stop, "the file is missing")])
    try:
        return _Scanner(fd, path, base, stop).scan()
    finally:
        os.close(fd)


def whole_records(path: Path, byte: int, offset: int) -> Run:
    """The whole records from `byte` on; the first should have `offset`. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return _Scanner(fd, path, offset, _NO_STOP).run(byte, offset)[0]
    finally:
        os.close(fd)


def next_whole_record(path: Path, byte: int, offset: int) -> Run | None:
    """The whole records after damage, or a torn write, at `byte`. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return _Scanner(fd, path, offset, _NO_STOP).after_damage(byte, offset)
    finally:
        os.close(fd)


class _Scanner:
    def __init__(self, fd: int, path: Path, base: int, stop: int) -> None:
        self._fd = fd
        self._path = path
        self._base = base
        self._stop = stop
        self._size = os.fstat(fd).st_size
        self._tried = 0

    def scan(self) -> SegmentScan:
        runs: list[Run] = []
        damages: list[Damage] = []
        offset, byte = self._base, 0
        while offset < self._stop:
            run, reason = self.run(byte, offset)
            if run.stop > run.first:
                runs.append(run)
            if reason is None:
                break
            following = self.after_damage(run.stop_byte, run.stop)
            next_offset = self._stop if following is None else following.first
            damages.append(Damage(self._path, run.stop_byte, run.stop, next_offset, reason))
            if following is None:
                break
            offset, byte = following.first, following.start_byte
        return SegmentScan(runs, damages)

    def run(self, byte: int, offset: int) -> tuple[Run, str | None]:
        """The whole records from `byte` on, and the defect of the record after them, or None."""
        start, first = byte, offset
        want = SCAN_BYTES
        while offset < self._stop:
            data = os.pread(self._fd, want, byte)
            at = 0
            try:
                while offset < self._stop and (end := record_end(data, at, offset)) is not None:
                    at = end
                    offset += 1
                whole = record_bytes(data, at) or HEADER_BYTES
            except RecordDamagedError as error:
                return Run(first, offset, start, byte + at), str(error)
            byte += at
            if offset < self._stop and byte + whole > self._size:
                ends = byte == self._size
                return Run(first, offset, start, byte), "the file ends" if ends else "it is cut short"
            want = max(whole, SCAN_BYTES)
        return Run(first, offset, start, byte), None

    def after_damage(self, byte: int, offset: int) -> Run | None:
        """The next whole records after the damaged one that begins at `byte`."""
        header = os.pread(self._fd, HEADER_BYTES, byte)
        try:
            whole = record_bytes(header)
        except RecordDamagedError:
            whole = None
        if whole is not None and byte + whole < self._size and offset + 1 < self._stop:
            run, _ = self.run(byte + whole, offset + 1)
            if run.stop > run.first:
                return run
        best: Run | None = None
        for candidate, found in self._candidates(byte + 1, offset + 1):
            if best is not None and candidate < best.stop_byte:
                continue  # a record of a chain that was tried before
            run, reason = self.run(candidate, found)
            if run.stop == run.first:
                continue
            if best is None or run.stop - run.first > best.stop - best.first:
                best = run
            if reason is None:
                return run
        return best

    def _candidates(self, byte: int, offset: int) -> Iterator[tuple[int, int]]:
        """Positions of possible headers of records with offsets from `offset` on: (byte, offset)."""
        while byte + HEADER_BYTES <= self._size:
            data = os.pread(self._fd, SCAN_BYTES + HEADER_BYTES, byte)
            count = len(data) - HEADER_BYTES + 1
            for shift in range(_LENGTH_BYTES):
                places = np.arange(shift, count, _LENGTH_BYTES)
                if not len(places):
                    continue
                # Header at p: length u32 at p, CRC at p + 4, offset u64 at p + 8.
                words = np.frombuffer(data, "<u8", (len(data) - shift) // 8, shift)
                lengths = words[: len(places)] & 0xFFFFFFFF
                offsets = words[1 : len(places) + 1]
                fits = (
                    (offsets >= offset)
                    & (offsets < self._stop)
                    & (lengths >= _MIN_LENGTH)
                    & (lengths <= _MIN_LENGTH + MAX_MESSAGE_BYTES)
                    & (byte + places + _LENGTH_BYTES + lengths.astype(np.int64) <= self._size)
                )
                if shift == 0:
                    found_places, found_offsets = places[fits], offsets[fits]
                else:
                    found_places = np.concatenate((found_places, places[fits]))
                    found_offsets = np.concatenate((found_offsets, offsets[fits]))
            for index in np.argsort(found_places):
                self._tried += 1
                if self._tried > _MAX_CANDIDATES:
                    return
                yield byte + int(found_places[index]), int(found_offsets[index])
            byte += count
