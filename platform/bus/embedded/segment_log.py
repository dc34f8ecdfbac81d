"""The log of one partition on disk: its files and its one writer (`log_reader.py` has the readers).

    committed                    page of shared words: word 1 is the durable end offset; also the lock. Words
                                 2 and 3 are a copy of the identity of the topic's log (`bus_directory.py`)
    00000000000000000000.log     segment: records one after the other (`record_format.py`)
    00000000000000123456.log     the next one, named by the offset of its first record
    damaged/                     what was set aside, never read again (`log_repair.py`)

Offsets rise by one from record to record, over segments too. Everything below the durable end was
fdatasynced before the end was stored; readers, in whatever process, never look past it. Only the last
segment grows, and a new one begins only when the one before is durable to its last byte.

What a crash can do. Killed processes: the last segment may have whole or torn records past the durable end.
Power cut: the same; besides `committed` may be older than the segment, so that durable records stand past
it, and the torn part may hold anything. The next writer therefore checks the last segment, keeps what is
well-formed and cuts off the rest; if whole records follow behind a torn one, it sets the rest aside first. A
record below the durable end that is not well-formed is none of this: acknowledged data was damaged, which is
an error that names the place, for writers and readers.
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
from .shared_counters import SharedWords

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
    """First offsets of the partition's segments, rising."""
    names = (name.removesuffix(".log") for name in os.listdir(directory) if name.endswith(".log"))
    return sorted(int(name) for name in names if len(name) == 20 and name.isdecimal())


def segment_path(directory: Path, base: int) -> Path:
    """The file of the segment whose first record has offset `base`."""
    return directory / f"{base:020d}.log"


def create_log(directory: Path, words: Mapping[int, int] = MappingProxyType({})) -> None:
    """Make an empty log, with these words in its page; `directory` appears whole or not at all.

    FileExistsError if there is one.
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
    """A new path for damaged bytes of the log, in its folder `damaged`, which is made."""
    folder = directory / DAMAGED
    folder.mkdir(exist_ok=True)
    number = 0
    while (path := folder / f"{name}.{number}").exists():
        number += 1
    return path


def set_aside_tail(directory: Path, path: Path, byte: int) -> Path:
    """Copy what the segment holds from `byte` on, durably; returns the copy."""
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
    """The one writer of a partition's log; all of it blocks, and belongs in a thread, one at a time.

    Opening takes the lock (`BusLocked`), checks the last segment, cuts its torn tail and makes the rest
    durable.

    After a failed write the file is cut back to its last durable byte and the writer goes on. After a failed
    fdatasync (or cut) it is not `usable` any more: the kernel has dropped the pages and marked them clean, so
    that another fdatasync would report success for bytes that never reached the disk. A new writer may be
    opened on the same log.

    `first_needed` gives the lowest offset that somebody still has to read, None for nobody; no segment at or
    above it is dropped. When a segment is full, the oldest ones are dropped while the others have
    `retention_bytes`: so a partition holds at most `retention_bytes` and one segment, plus what is not read
    yet. A segment has at most `segment_bytes` and one call of `append`.
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
        self._promised_position = 0  # what lies below is never cut off again
        self._fd = -1
        self._path = directory
        self._committed = SharedWords(directory / COMMITTED, writable=True)
        try:
            try:
                fcntl.flock(self._committed.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BusLocked(
                    f"{directory} is written by another process; stop that one first, or use a bus that "
                    "several may write to"
                ) from error
            # Who made the log may have been killed before its name was durable.
            sync_directory(directory.parent)
            self._recover()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError) and not isinstance(error, WindvaneError):
                raise BusUnavailable(
                    f"cannot open {directory} for writing: {error}; mend the disk"
                ) from error
            raise

    def append(self, messages: Sequence[tuple[bytes, Sequence[Buffer]]]) -> int:
        """Write messages (key, value in pieces); returns the offset of the first once all are durable.

        `BusUnavailable` where that failed: none of them is in the log then, unless the file could not even be
        cut back; what the next opening finds whole it keeps.
        """
        first = self._put(messages)
        self.sync()
        return first

    def write(self, messages: Sequence[tuple[bytes, Sequence[Buffer]]]) -> int:
        """Write messages (key, value in pieces); returns the offset of the first.

        They are with the operating system then, and readers see them after the next `sync`. `BusUnavailable`
        as for `append`.
        """
        first = self._put(messages)
        self._promised_position = self._position
        return first

    def _put(self, messages: Sequence[tuple[bytes, Sequence[Buffer]]]) -> int:
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
        """Make durable what was written, and let readers see it.

        `BusUnavailable` where that failed. What `write` has taken before stays in the file, and the next
        opening keeps what of it is whole.
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
            self._cut_back()
            self.usable = False
            if isinstance(error, WindvaneError):
                raise
            raise BusUnavailable(
                f"fdatasync of {self._path} failed: {error.strerror}. Its writer has stopped for good, since "
                "another fdatasync would report success for lost pages; the next message opens the log again "
                "from its last durable byte. Look at the disk (dmesg)"
            ) from error
        self._promised_position = self._position
        self._committed.words[END_WORD] = self.next_offset

    @property
    def is_in_place(self) -> bool:
        """Whether its files can still be found by others: False once the topic was deleted."""
        return bool(os.fstat(self._fd).st_nlink and os.fstat(self._committed.fd).st_nlink)

    def _check_in_place(self) -> None:
        """What was written to a deleted file would be acknowledged and lost."""
        if self.is_in_place:
            return
        raise BusUnavailable(
            f"{self._directory} was deleted while it was written to. What was not acknowledged is not in it; "
            "the next message goes to the log that is there now"
        )

    def close(self) -> None:
        """Let go of the files and the lock."""
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
            self._cut_back()
            raise BusUnavailable(
                f"cannot write {self._path}: {error.strerror}. Nothing of it was kept; make room on the disk "
                "or mend it, the next message is tried again"
            ) from error
        return position - self._position

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._fd, self._position)
        except OSError:
            # Left to the check that comes with opening again.
            self.usable = False

    def _begin_segment(self) -> None:
        path = segment_path(self._directory, self.next_offset)
        try:
            # An empty one may be left of an attempt that failed.
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                sync_directory(self._directory)
            except OSError:
                os.close(fd)
                raise
        except OSError as error:
            raise BusUnavailable(
                f"cannot begin {path}: {error.strerror}; make room on the disk or mend it, the next message "
                "is tried again"
            ) from error
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._path, self._position, self._promised_position = fd, path, 0, 0

    def _drop_old_segments(self) -> None:
        """Retention. That it fails is no reason to refuse messages."""
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
            _log.warning("old segments of %s stay, dropping them failed: %s", self._directory, error)

    def _recover(self) -> None:
        end_offset = self._committed.words[END_WORD]
        bases = segment_bases(self._directory)
        if not bases:
            if end_offset:
                raise BusCorrupt(
                    f"{self._directory} has no segments, and {end_offset} messages were durable; restore "
                    "its files from a copy; a new log would begin at 0, below where its readers stand"
                )
            self._begin_segment()
            return
        self._path = segment_path(self._directory, bases[-1])
        self._fd = os.open(self._path, os.O_RDWR)
        found = _scan(self._fd, bases[-1], end_offset)
        if found.next_offset < end_offset:
            raise BusCorrupt(
                f"{self._path} is damaged at byte {found.stop}: message {found.next_offset} of {end_offset} "
                f"durable ones cannot be read: {found.reason or 'the file ends'}. Nothing is written to this "
                "partition until `windvane verify --repair` has set the damage aside, or the file is restored"
            )
        size = os.fstat(self._fd).st_size
        if found.stop < size:
            torn = f"{size - found.stop} bytes from byte {found.stop} on ({found.reason})"
            if next_whole_record(self._path, found.stop, found.next_offset) is not None:
                # Out of order on the way to the disk, most likely; but perhaps damaged since.
                kept = set_aside_tail(self._directory, self._path, found.stop)
                _log.warning("%s: moved a write that had not finished to %s, %s", self._path, kept, torn)
            else:
                _log.warning("%s: cut off a write that had not finished, %s", self._path, torn)
            os.ftruncate(self._fd, found.stop)
        sync_directory(self._directory)
        # Written once more: an fdatasync that failed before a crash has left pages that look clean.
        for position in range(found.committed_stop, found.stop, READ_BYTES):
            data = os.pread(self._fd, min(READ_BYTES, found.stop - position), position)
            if os.pwrite(self._fd, data, position) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        os.fdatasync(self._fd)
        self._position = self._promised_position = found.stop
        self.next_offset = found.next_offset
        self._committed.words[END_WORD] = found.next_offset


class _Scan(NamedTuple):
    """How far a segment holds well-formed records."""

    stop: int
    """One past the last byte of the last one."""
    next_offset: int
    committed_stop: int
    """One past the last byte that was known to be durable."""
    reason: str | None
    """What is wrong with the bytes at `stop`; None at the end of the file."""


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
