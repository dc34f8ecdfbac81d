"""The log of one partition on disk: its files and its writer (`log_reader.py` has the reader).

    committed                    page of shared words: word 1 is the durable end offset; also the lock. Words
                                 2 and 3 are a copy of the identity of the topic's log (`bus_directory.py`)
    00000000000000000000.log     segment: records one after the other (`record_format.py`)
    00000000000000123456.log     the next one, named by the offset of its first record
    damaged/                     bytes that were set aside, never read again (`log_repair.py`)

Offsets rise by one from record to record, also across segments. Everything below the durable end was
fdatasynced before the end was stored; readers, in any process, never read past it. Only the last segment
grows, and a new one begins only when its predecessor is durable to the last byte.

Effects of a crash. Killed process: the last segment may have whole or torn records past the durable end.
Power cut: the same; in addition, `committed` may be older than the segment, so that durable records follow
it, and the torn part may have any content. The next writer therefore checks the last segment, keeps the
well-formed records and truncates the rest; if whole records follow a torn one, it first copies the rest to
`damaged`. A record below the durable end that is not well-formed has another cause: acknowledged data was
damaged. Writers and readers report it as an error that names the position.
"""

import errno
import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ...directories import sync_directory
from ...errors import BusCorrupt, BusLocked, BusUnavailable, WindvaneError
from ..interface import Buffer
from .log_scan import next_whole_record
from .record_format import HEADER_BYTES, RecordDamagedError, frame, record_bytes, record_end
from .shared_words import SharedWords

COMMITTED = "committed"
DAMAGED = "damaged"
"""Folder of a log to which damaged bytes are moved."""
END_WORD = 1
READ_BYTES = 4 * 1024 * 1024
DEFAULT_SEGMENT_BYTES = 64 * 1024 * 1024
DEFAULT_RETENTION_BYTES = 1024 * 1024 * 1024

_IOV_MAX = os.sysconf("SC_IOV_MAX")
_log = logging.getLogger(__name__)


def segment_bases(directory: Path) -> list[int]:
    """The first offsets of the partition's segments, in rising order."""
    names = (name.removesuffix(".log") for name in os.listdir(directory) if name.endswith(".log"))
    return sorted(int(name) for name in names if len(name) == 20 and name.isdecimal())


def segment_path(directory: Path, base: int) -> Path:
    """The file of the segment whose first record has offset `base`."""
    return directory / f"{base:020d}.log"


def create_log(directory: Path, words: Mapping[int, int] = MappingProxyType({})) -> None:
    """Create an empty log, with these words in its page; `directory` is created atomically.

    Raises FileExistsError if the log exists.
    """
    building = directory.with_name(f"@{directory.name}-{os.getpid()}-{os.urandom(4).hex()}")
    building.mkdir()
    SharedWords.create(building / COMMITTED, words)
    sync_directory(building)
    try:
        building.rename(directory)
    except OSError as error:
        (building / COMMITTED).unlink()
        building.rmdir()
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise FileExistsError(directory) from error
        raise
    sync_directory(directory.parent)


def set_aside_path(directory: Path, name: str) -> Path:
    """A new path for damaged bytes of the log, in its folder `damaged`; creates the folder."""
    folder = directory / DAMAGED
    folder.mkdir(exist_ok=True)
    number = 0
    while (path := folder / f"{name}.{number}").exists():
        number += 1
    return path


def set_aside_tail(directory: Path, path: Path, byte: int) -> Path:
    """Copy the segment's bytes from `byte` on, durably; returns the path of the copy."""
    kept = set_aside_path(directory, f"{path.name}-from-{byte}")
    with path.open("rb") as source, kept.open("xb") as target:
        source.seek(byte)
        shutil.copyfileobj(source, target, READ_BYTES)
        target.flush()
        os.fsync(target.fileno())
    sync_directory(kept.parent)
    sync_directory(directory)
    return kept


class LogWriter:
    """The single writer of a partition's log. All methods block: call them in a thread, one at a time.

    Opening takes the lock (`BusLocked`), checks the last segment, truncates its torn end and makes the rest
    durable.

    After a failed write the file is truncated to its last durable byte and the writer continues. After a
    failed fdatasync (or truncation) it is no longer `usable`: the kernel has dropped the pages and marked
    them clean, so another fdatasync would report success for bytes that never reached the disk. A new writer
    may be opened on the same log.

    `first_needed` returns the lowest offset that a consumer group still has to read, None without groups; no
    segment at or above it is dropped. When a segment is full, the oldest ones are dropped as long as the
    others have `retention_bytes`. So a partition has at most `retention_bytes` and one segment, plus the
    unread messages. A segment has at most `segment_bytes` and the messages of one call of `append`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        retention_bytes: int = DEFAULT_RETENTION_BYTES,
        first_needed: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._retention_bytes = retention_bytes
        self._first_needed = first_needed
        self.usable = True
        self.next_offset = 0
        self._position = 0
        self._promised_position = 0  # bytes below it are never truncated
        self._fd = -1
        self._path = directory
        self._committed = SharedWords(directory / COMMITTED, writable=True)
        try:
            try:
                fcntl.flock(self._committed.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BusLocked(
                    f"another process writes to {directory}; stop that process first, or use a bus that "
                    "allows several writers"
                ) from error
            # The process that created the log may have been killed before its name was durable.
            sync_directory(directory.parent)
            self._recover()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError) and not isinstance(error, WindvaneError):
                raise BusUnavailable(
                    f"cannot open {directory} for writing: {error}. Check the disk"
                ) from error
            raise

    def append(self, messages: Sequence[tuple[bytes, Sequence[Buffer]]]) -> int:
        """Write messages (key, value in pieces); returns the offset of the first once all are durable.

        Raises `BusUnavailable` on failure: the log then has none of them, unless the truncation failed too;
        the next opening keeps the records that it finds whole.
        """
        first = self._write_messages(messages)
        self.sync()
        return first

    def write(self, messages: Sequence[tuple[bytes, Sequence[Buffer]]]) -> int:
        """Write messages (key, value in pieces); returns the offset of the first.

        On return the operating system has them; readers see them after the next `sync`. Raises
        `BusUnavailable` as `append` does.
        """
        first = self._write_messages(messages)
        self._promised_position = self._position
        return first

    def _write_messages(self, messages: Sequence[tuple[bytes, Sequence[Buffer]]]) -> int:
        if not self.usable:
            raise BusUnavailable(f"the writer of {self._directory} has stopped; open it again")
        if self._position >= self._segment_bytes:
            self.sync()  # a segment begins only when the one before is durable to its last byte
            self._begin_segment()
            self._drop_old_segments()
        first = self.next_offset
        self._position += self._write(frame(messages, first))
        self.next_offset += len(messages)
        return first

    def sync(self) -> None:
        """Make written messages durable and visible to readers.

        Raises `BusUnavailable` on failure. Messages of earlier calls of `write` remain in the file, and the
        next opening keeps those that are whole.
        """
        if not self.usable:
            raise BusUnavailable(f"the writer of {self._directory} has stopped; open it again")
        if self._committed.words[END_WORD] == self.next_offset:
            return
        try:
            os.fdatasync(self._fd)
            self._check_in_place()
        except OSError as error:
            self._position = self._promised_position
            self._truncate()
            self.usable = False
            if isinstance(error, WindvaneError):
                raise
            raise BusUnavailable(
                f"fdatasync of {self._path} failed: {error.strerror}. Its writer has stopped permanently, "
                "since another fdatasync would report success for lost pages; the next message reopens the "
                "log at its last durable byte. Check the disk (dmesg)"
            ) from error
        self._promised_position = self._position
        self._committed.words[END_WORD] = self.next_offset

    @property
    def is_in_place(self) -> bool:
        """Whether other processes can still open its files: False once the topic was deleted."""
        return bool(os.fstat(self._fd).st_nlink and os.fstat(self._committed.fd).st_nlink)

    def _check_in_place(self) -> None:
        """Messages written to a deleted file would be acknowledged and lost."""
        if self.is_in_place:
            return
        raise BusUnavailable(
            f"{self._directory} was deleted during a write. Messages that were not acknowledged are lost; "
            "the next message goes to the current log"
        )

    def close(self) -> None:
        """Close the files and release the lock."""
        self.usable = False
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._committed.close()

    def _write(self, buffers: list[Buffer]) -> int:
        position = self._position
        try:
            while buffers:
                written = os.pwritev(self._fd, buffers[:_IOV_MAX], position)
                position += written
                done = 0
                while done < len(buffers) and written >= len(buffers[done]):
                    written -= len(buffers[done])
                    done += 1
                buffers = buffers[done:]
                if written:
                    buffers[0] = memoryview(buffers[0])[written:]
        except OSError as error:
            self._truncate()
            raise BusUnavailable(
                f"cannot write {self._path}: {error.strerror}. The messages were not stored. "
                "Free disk space or repair the disk; the next message is a new attempt"
            ) from error
        return position - self._position

    def _truncate(self) -> None:
        try:
            os.ftruncate(self._fd, self._position)
        except OSError:
            # The check on reopening handles it.
            self.usable = False

    def _begin_segment(self) -> None:
        path = segment_path(self._directory, self.next_offset)
        try:
            # A failed attempt may have left an empty file.
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                sync_directory(self._directory)
            except OSError:
                os.close(fd)
                raise
        except OSError as error:
            raise BusUnavailable(
                f"cannot begin {path}: {error.strerror}. Free disk space or repair the disk; the next "
                "message is a new attempt"
            ) from error
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._path, self._position, self._promised_position = fd, path, 0, 0

    def _drop_old_segments(self) -> None:
        """Apply retention. A failure is only logged: it must not reject messages."""
        try:
            bases = segment_bases(self._directory)
            sizes = [segment_path(self._directory, base).stat().st_size for base in bases]
            needed = self._first_needed()
            kept_bytes = sum(sizes)
            dropped = False
            for base, size, following in zip(bases, sizes, bases[1:], strict=False):
                kept_bytes -= size
                if kept_bytes < self._retention_bytes or (needed is not None and following > needed):
                    break
                segment_path(self._directory, base).unlink()
                dropped = True
            if dropped:
                sync_directory(self._directory)
        except OSError as error:
            _log.warning("old segments of %s remain: dropping them failed: %s", self._directory, error)

    def _recover(self) -> None:
        end_offset = self._committed.words[END_WORD]
        bases = segment_bases(self._directory)
        if not bases:
            if end_offset:
                raise BusCorrupt(
                    f"{self._directory} has no segments, but {end_offset} messages were durable. Restore "
                    "its files from a copy; a new log would begin at 0, below the positions of its readers"
                )
            self._begin_segment()
            return
        self._path = segment_path(self._directory, bases[-1])
        self._fd = os.open(self._path, os.O_RDWR)
        found = _scan(self._fd, bases[-1], end_offset)
        if found.next_offset < end_offset:
            raise BusCorrupt(
                f"{self._path} is damaged at byte {found.stop}: message {found.next_offset} of {end_offset} "
                f"durable ones cannot be read: {found.reason or 'the file ends'}. This partition accepts no "
                "messages until `windvane verify --repair` has set the damage aside, or the file is restored"
            )
        size = os.fstat(self._fd).st_size
        if found.stop < size:
            torn = f"{size - found.stop} bytes from byte {found.stop} on ({found.reason})"
            if next_whole_record(self._path, found.stop, found.next_offset) is not None:
                # Most likely a write that reached the disk out of order; but it may be later damage.
                kept = set_aside_tail(self._directory, self._path, found.stop)
                _log.warning("%s: moved an unfinished write to %s, %s", self._path, kept, torn)
            else:
                _log.warning("%s: truncated an unfinished write, %s", self._path, torn)
            os.ftruncate(self._fd, found.stop)
        sync_directory(self._directory)
        # Written again: an fdatasync that failed before a crash has left pages that are marked clean.
        for position in range(found.committed_stop, found.stop, READ_BYTES):
            data = os.pread(self._fd, min(READ_BYTES, found.stop - position), position)
            if os.pwrite(self._fd, data, position) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        os.fdatasync(self._fd)
        self._position = self._promised_position = found.stop
        self.next_offset = found.next_offset
        self._committed.words[END_WORD] = found.next_offset


class _Scan(NamedTuple):
    """The well-formed records at the start of a segment."""

    stop: int
    """One past the last byte of the last one."""
    next_offset: int
    committed_stop: int
    """One past the last byte that was known to be durable."""
    reason: str | None
    """The defect of the bytes at `stop`; None at the end of the file."""


def _scan(fd: int, base: int, end_offset: int) -> _Scan:
    size = os.fstat(fd).st_size
    position, offset, committed_stop, want = 0, base, 0, READ_BYTES
    while position < size:
        data = os.pread(fd, want, position)
        at = 0
        try:
            while (end := record_end(data, at, offset)) is not None:
                at = end
                offset += 1
                if offset == end_offset:
                    committed_stop = position + at
            whole = record_bytes(data, at) or HEADER_BYTES
        except RecordDamagedError as error:
            return _Scan(position + at, offset, committed_stop, str(error))
        position += at
        if position < size < position + whole:
            return _Scan(position, offset, committed_stop, "it is cut short")
        want = max(whole, READ_BYTES)
    return _Scan(position, offset, committed_stop, None)
