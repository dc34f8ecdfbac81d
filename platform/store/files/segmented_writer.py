"""The one writer of a segmented file."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NoReturn, Self

from ...errors import DiskFull, RangeGone, StoreFailed, StreamDamaged
from .file_errors import NO_SPACE, UNTOUCHED
from .head import new_head
from .locked_head import LockedHead
from .mapping import PAGE_BYTES
from .open_segments import open_segments
from .segment_files import has_bytes, remove_segments, stored_length

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from typing_extensions import Buffer

DEFAULT_SEGMENT_BYTES = 64 * 1024 * 1024
# The kernel takes no more buffers than this in one call (UIO_MAXIOV).
_MOST_BUFFERS = 1024
_CLOSED = "the writer is closed"
_NOT_RESUMED = "the writer has not been resumed: call `resume` first"


class SegmentedWriter:
    """The one writer of a segmented file (the format is described at `SegmentedFile`).

    `LockedHead` has the lock. Segments are opened when they are written to; all writers of a process share a
    bounded number of open ones (`OpenSegments`).

    Opening an existing file looks at it and changes nothing. `resume` sets where the file continues; until
    then nothing can be appended or cut. `resume` also writes a head that is missing or empty, unless the
    segments have bytes: after a power cut it may be that of a new file, else it was lost (`lacks_head`).

    Nothing is synced by `append`. `Store.sync` makes the whole store durable at once, `flush` this file.

    After a failed write or sync every call raises StoreFailed, since the kernel reports lost pages only once:
    close it, fix the cause, open a new one, and cut back to a length that is known to be durable.

    One thread at a time may call a writer; different writers may be used by different threads at once.
    """

    def __init__(
        self,
        directory: Path,
        *,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        dimensions: int | None = None,
        uid: bytes | None = None,
    ) -> None:
        """Open the file in `directory`, or make it; the other arguments are for a new one.

        With `dimensions` a new file has format 2: its segments are the chunks of a Zarr array of so many
        dimensions. Raises StoreLocked while another writer has it, in this process or in another;
        StreamDamaged if its head is damaged; StoreFailed if it cannot be made.
        """
        if segment_bytes <= 0 or (dimensions is None and segment_bytes % PAGE_BYTES):
            raise ValueError(
                f"segment_bytes must be a positive multiple of {PAGE_BYTES}, not {segment_bytes}"
            )
        self.directory = directory
        self._path = str(directory)
        self._failure: str | None = _NOT_RESUMED
        self._failure_kind: type[StoreFailed] = StoreFailed
        self._locked = LockedHead(
            directory, new_head(segment_bytes, uid or os.urandom(16), dimensions=dimensions)
        )
        self._unsynced_directories: set[Path] = set(self._locked.new_directories)
        self._head = self._locked.head
        self.uid = self._head.uid
        self.segment_bytes = self._head.segment_bytes
        self.version = self._head.version
        self.names = self._head.names
        self._start = self._head.start
        # A writer that was killed while it cut a file to 0 leaves a start past the length.
        self._length = self._head.length or self._start
        # Whether the writer before this one has synced is not known.
        self._unsynced_from = self._start

    def resume(self, length: int | None = None) -> Self:
        """Continue at `length`, cutting off later bytes; None: at the length that was found.

        First checks that the segments hold all of it. Raises StreamDamaged if they do not, or if the
        head of a file with bytes is missing, RangeGone as `cut`; then the file is as it was.
        """
        self.check_held(self._length if length is None else length)
        try:
            self._head = self._locked.write()
        except OSError as error:
            self._fail("making its head", error)
        self._failure = None
        try:
            if length is not None:
                self.cut(length)
        except BaseException:
            self._failure = _NOT_RESUMED
            raise
        return self

    @property
    def lacks_head(self) -> bool:
        """Whether the head of a file with bytes is missing or empty: lost, or not synced before a power cut.

        Set the bytes aside only if you know that nothing was committed.
        """
        return self._locked.is_missing and has_bytes(self._path, self.names)

    def require_head(self) -> None:
        """Raise StreamDamaged if the head of a file with bytes is missing or empty."""
        if self.lacks_head:
            raise StreamDamaged(
                f"{self.directory}/head is missing or empty, and there are bytes in its segments. "
                + UNTOUCHED
            )

    def check_held(self, length: int) -> None:
        """Raise StreamDamaged unless bytes `start` to `length` are there; looks at sizes, reads nothing."""
        self.require_head()
        found = self._length
        if found < self._start or self._start % self.segment_bytes:
            raise StreamDamaged(
                f"{self.directory}/head is damaged: it says that bytes {self._start} to {found} are kept. "
                + UNTOUCHED
            )
        if length > found:
            raise StreamDamaged(
                f"{self.directory} has {found} bytes, fewer than {length} that were committed: data is "
                "missing. " + UNTOUCHED
            )
        held = self._held(length)
        if held < length:
            raise StreamDamaged(
                f"{self._segment_path(held - held % self.segment_bytes)} is missing or short: bytes "
                f"{held} to {length} were committed and are not there. " + UNTOUCHED
            )

    @property
    def held(self) -> int:
        """The length up to which segments are there without a gap, at most `length`."""
        return self._held(self._length)

    def _held(self, length: int) -> int:
        return stored_length(
            self._path, self.names, start=self._start, length=length, segment_bytes=self.segment_bytes
        )

    @property
    def committed(self) -> int:
        """Bytes that a checkpoint is known to cover, 0 if none is known."""
        return self._head.committed

    def mark_committed(self, length: int) -> None:
        """Remember that a checkpoint covers `length` bytes; after its commit."""
        self._head.committed = length

    @property
    def tail(self) -> int:
        """The word `tail` of the head, of a file of format 2."""
        return self._head.tail

    @tail.setter
    def tail(self, word: int) -> None:
        self._head.tail = word

    @property
    def start(self) -> int:
        """Offset of the first byte kept."""
        return self._start

    @property
    def length(self) -> int:
        """Length in bytes, counted from the first byte ever written: where the next append begins."""
        return self._length

    def append(self, *buffers: Buffer) -> int:
        """Append the buffers (contiguous bytes) one after another; give the offset of the first byte.

        Readers see all of it on return, and nothing of it if StoreFailed is raised.
        """
        if self._failure is not None:
            self.check()
        offset = self._length
        total = 0
        for buffer in buffers:
            total += len(buffer) if type(buffer) is bytes else memoryview(buffer).nbytes
        if len(buffers) > _MOST_BUFFERS:
            buffers = (b"".join(buffers),)
        if total <= self.segment_bytes - offset % self.segment_bytes:
            if total:
                self._write(offset, buffers, total)
        else:
            self._write_across_segments(offset, buffers)
        self._length = self._head.length = offset + total
        return offset

    def cut(self, length: int) -> None:
        """Make the file end at `length`; readers see that at once, and the next append begins there.

        `length` lies between `start` and the present length, or is 0: then the file restarts at 0 even if
        its beginning was dropped. Raises RangeGone for other lengths below `start`, and StreamDamaged,
        without stopping the writer, for one past the end: bytes that the caller knows of are not there.
        """
        self.check()
        if length > self._length:
            raise StreamDamaged(
                f"{self.directory} has {self._length} bytes, fewer than {length} to cut back to: committed "
                "data is missing. " + UNTOUCHED
            )
        if length < 0:
            raise ValueError(f"cannot cut {self.directory} back to {length} bytes")
        if 0 < length < self._start:
            raise RangeGone(
                f"{self.directory} cannot be cut back to {length} bytes: all before {self._start} was dropped"
            )
        if length < self._head.committed:
            self._head.committed = length
        self._length = self._head.length = length
        self._unsynced_from = min(self._unsynced_from, length)
        if length < self._start:
            # The epoch moves before the start: who sees the new start must not use a mapping of the old
            # segments.
            self._head.epoch += 1
            self._start = self._head.start = 0

    def drop_before(self, offset: int) -> None:
        """Drop the whole segments that end at or before `offset`, and free their space; `start` moves up.

        Views that readers hold stay valid. Reading what was dropped raises RangeGone from now on.
        """
        self.check()
        offset = min(offset, self._length)
        start = offset - offset % self.segment_bytes
        if start <= self._start:
            return
        self._start = self._head.start = start
        self._unsynced_from = max(self._unsynced_from, start)
        # On the disk first: a start below the segments that are left would make the next writer see none.
        self._sync(f"{self._path}/head")
        try:
            remove_segments(self._path, self.names, 0, start)
        except OSError as error:
            self._fail("dropping its beginning", error)
        self._sync_directory(self._path)

    def flush(self) -> None:
        """Make what was appended or cut durable: fdatasync of segments and head, fsync of new directories."""
        self.check()
        first = self._unsynced_from - self._unsynced_from % self.segment_bytes
        for segment in range(first, self._length, self.segment_bytes):
            self._sync(self._segment_path(segment))
        self._sync(f"{self._path}/head")
        for directory in self._unsynced_directories:
            self._sync_directory(directory)
        self._unsynced_directories.clear()
        self._unsynced_from = self._length

    def check(self) -> None:
        """Raise StoreFailed if the writer has stopped after a failure, ValueError if it is closed or was not
        resumed.
        """
        if self._failure in (_CLOSED, _NOT_RESUMED):
            raise ValueError(f"{self.directory}: {self._failure}")
        if self._failure is not None:
            raise self._failure_kind(self._failure)

    def close(self) -> None:
        """Close the file and release its lock. Does not sync."""
        if self._failure != _CLOSED:
            self._failure = _CLOSED
            open_segments.close(id(self))
            self._locked.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Without a lock the constructor has failed, and there is nothing to close.
        if hasattr(self, "_locked"):
            self.close()

    def _segment_path(self, segment: int) -> str:
        return f"{self._path}/{self.names.name(segment)}"

    def _write(self, offset: int, buffers: Sequence[Buffer], total: int) -> None:
        """Write `total` > 0 bytes that fit into the segment of `offset`."""
        position = offset % self.segment_bytes
        segment = offset - position
        taken = open_segments.take(id(self))
        if taken is not None and taken[0] != segment:
            os.close(taken[1])
            taken = None
        descriptor = self._open_segment(segment) if taken is None else taken[1]
        try:
            written = os.pwritev(descriptor, buffers, position)
            if written < total:
                rest = memoryview(b"".join(buffers))
                while written < total:
                    written += os.pwrite(descriptor, rest[written:], position + written)
        except OSError as error:
            os.close(descriptor)
            self._fail(f"writing {total} bytes at {offset}", error)
        open_segments.put(id(self), segment, descriptor)

    def _write_across_segments(self, offset: int, buffers: Sequence[Buffer]) -> None:
        for buffer in buffers:
            whole = memoryview(buffer)
            rest = whole.cast("B") if whole.nbytes else whole[:0]  # an empty one cannot be cast
            while rest.nbytes:
                piece = rest[: self.segment_bytes - offset % self.segment_bytes]
                self._write(offset, (piece,), piece.nbytes)
                offset += piece.nbytes
                rest = rest[piece.nbytes :]

    def _open_segment(self, segment: int, mode: int = os.O_WRONLY) -> int:
        path = self._segment_path(segment)
        try:
            try:
                return _open(path, mode)
            except FileNotFoundError:
                if segment < self._length:
                    raise
            descriptor = _open(path, mode | os.O_CREAT)
        except FileNotFoundError:
            self._failure = f"{path} is missing, and bytes of it were committed. {UNTOUCHED}"
            raise StreamDamaged(self._failure) from None
        except OSError as error:
            self._fail(f"opening {path}", error)
        # No checkpoint covers the segment before a sync, which syncs its name too: an append does not wait.
        self._unsynced_directories.add(self.directory)
        return descriptor

    def _sync_directory(self, path: Path | str) -> None:
        # Not fdatasync, which may leave names that were added to a directory to a later journal commit.
        self._sync(path, os.fsync)

    def _sync(self, path: Path | str, sync: Callable[[int], None] | None = None) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                (sync or os.fdatasync)(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._fail(f"syncing {path}", error)

    def _fail(self, doing: str, error: OSError) -> NoReturn:
        if error.errno in NO_SPACE:
            self._failure = (
                f"{self.directory}: {doing} failed ({error.strerror}), so this writer has stopped. Make room "
                "on the file system; the worker continues from its last checkpoint"
            )
            self._failure_kind = DiskFull
        else:
            self._failure = (
                f"{self.directory}: {doing} failed ({error.strerror}), so this writer has stopped. Check the "
                "disk, then restart the worker: it continues from its last checkpoint"
            )
        raise self._failure_kind(self._failure) from error


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
    open_segments.make_room()
    return os.open(path, flags | os.O_CLOEXEC, 0o666)
