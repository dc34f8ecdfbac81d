"""The one primitive of the store: bytes that only grow, in files of equal size, read while being written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from ...errors import RangeGone, StreamDamaged
from .head import Head
from .mapping import ContiguousMapping

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


class SegmentedFile:
    """A segmented file, for reading; any number of processes may read while one writes.

    **Format.** A directory with

    - `head`: see `Head`: segment size, first kept byte, committed length, uid;
    - the segments. In format 1 they are named by the offset of their first byte in 20 digits and `.seg`, in
      format 2 by their number, as chunks of a Zarr array (`ChunkNames`). Byte n of the file is byte
      `n % segment_bytes` of the segment that begins at `n - n % segment_bytes`. Segments grow to
      `segment_bytes` (in format 1 a multiple of the page size) and are never truncated: cutting the file
      back lowers `length` alone, and what is appended then overwrites. So a process that has mapped a
      segment never gets a SIGBUS. Bytes past `length`, old or half-written, have no meaning.

    **Order.** A writer writes bytes into the segment first and `length` last; a reader of `length` sees
    all bytes below it. Dropping the beginning moves `start` first, on the disk too, and unlinks segments
    then. So a segment that a reader does not find was lost only if `start` and `epoch` have not changed
    since the reader read the length.

    **What a crash can do.** Killing the writer leaves `length` as it was before or after an append, never
    between; bytes past it may have been written. A power failure takes back, in any order, whatever was not
    synced since. So the checkpoint remembers a length of which the sync succeeded, and the next writer cuts
    back to it, once it has seen that the segments hold it. Until then a reader may see zeros past the synced
    length, or StreamDamaged if a segment is short. A crash while dropping leaves segments below `start`;
    the next drop removes them.

    Bound: one mapping for the head and one a segment that `view` has looked at; no file descriptor. Reading
    from several threads is safe. A view of bytes that are cut and overwritten shows the new ones.
    """

    def __init__(self, directory: Path) -> None:
        """Open for reading. Raises FileNotFoundError if there is no file, or none with a head yet."""
        self.directory = directory
        path = directory / "head"
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._head = Head(descriptor, path)
            self._status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        self.uid = self._head.uid
        self.segment_bytes = self._head.segment_bytes
        self.names = self._head.names
        self.version = self._head.version
        self._path = str(directory)
        self._mapping: ContiguousMapping | None = None

    @property
    def start(self) -> int:
        """Offset of the first byte kept, now."""
        return self._head.start

    @property
    def length(self) -> int:
        """The committed length in bytes, now; offsets count from the first byte ever written."""
        return self._head.length

    @property
    def committed(self) -> int:
        """Bytes that are known to be durable, 0 if none is known; never more than that (`Head`)."""
        return self._head.committed

    @property
    def epoch(self) -> int:
        """How often the file restarted at 0 after its beginning was dropped: the length may be lower then."""
        return self._head.epoch

    @property
    def tail(self) -> int:
        """The word `tail` of the head, of a file of format 2."""
        return self._head.tail

    @property
    def replaced(self) -> bool:
        """Whether the directory now holds another file, or none: what is open here will not grow any more."""
        try:
            return not os.path.samestat(os.stat(self.directory / "head"), self._status)
        except FileNotFoundError:
            return True

    def read(self, offset: int, size: int) -> bytes:
        """Read up to `size` bytes from `offset`; fewer at the end, none past it.

        Raises RangeGone below `start`, StreamDamaged if the disk cannot return the bytes.
        """
        if offset < 0 or size < 0:
            raise ValueError(f"cannot read {size} bytes from offset {offset}: neither may be negative")
        while True:
            start, epoch, length = self.bounds()
            self._require_kept(offset, start)
            stop = min(offset + size, length)
            pieces: list[bytes] = []
            position = offset
            while position < stop:
                segment = position - position % self.segment_bytes
                end = min(stop, segment + self.segment_bytes)
                piece = self._read_segment(segment, position - segment, end - position)
                if not piece:
                    break
                pieces.append(piece)
                position += len(piece)
            else:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if self._has_kept(start, epoch):
                raise StreamDamaged(
                    f"{self._path}/{self.names.name(segment)} is missing or short: byte {position} of "
                    f"{length} is not there. `windvane verify` shows what is missing"
                )

    def view(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Give bytes [start, stop) as a read-only array of shape (stop - start,).

        Not copied, however long it is, unless it has bytes of several segments that are not whole pages.

        `stop` is at most a `length` that was read. Raises RangeGone below `start`, StreamDamaged if a segment
        is missing or short, IndexError past the end: also if the file restarted at 0 since `length` was read,
        which `epoch` tells, and has not grown to `stop` again.
        """
        if not 0 <= start <= stop:
            raise ValueError(f"cannot view bytes {start} to {stop}: they must be ordered and not negative")
        mapping = self._mapping
        if mapping is None:
            mapping = self._mapping = ContiguousMapping(self._path, self.segment_bytes, self.names)
        while True:
            origin, epoch, length = self.bounds()
            if start < min(origin, stop):  # no bytes are never gone
                self._require_kept(start, origin)
            try:
                return mapping.view(start, stop, origin=origin, length=length, epoch=epoch)
            except FileNotFoundError as error:
                reason = f"{error.filename} is missing"
            except IndexError as error:
                reason = str(error)
            if self._has_kept(origin, epoch):
                break
        if stop > length:
            raise IndexError(f"{self.directory} has {length} bytes, and byte {stop - 1} was requested")
        raise StreamDamaged(
            f"{self.directory}: {reason}, below the length of {length}. After a power failure the "
            "worker cuts back to its checkpoint when the stream resumes; else `windvane verify` shows what "
            "is missing"
        )

    def close(self) -> None:
        """Close the file; views that exist stay valid. Nothing else may be called afterwards."""
        if self._mapping is not None:
            self._mapping.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def bounds(self) -> tuple[int, int, int]:
        """The start, the epoch and the length, read in this order.

        A writer that restarts at 0 changes the epoch before the start: so a new start is never returned
        with an old epoch. A decision has to use these values: read again, they may differ.
        """
        return self._head.bounds()

    def mapped(self, start: int, epoch: int) -> tuple[int, int]:
        """Offsets [low, high) that views have mapped, if `bounds` still returns this start and epoch."""
        return (0, 0) if self._mapping is None else self._mapping.mapped(origin=start, epoch=epoch)

    def _has_kept(self, start: int, epoch: int) -> bool:
        """Whether the writer has unlinked nothing at or after `start` since `bounds` returned these values.

        If so, a segment that was missing meanwhile, below the length that was returned, is lost.
        """
        return (self._head.start, self._head.epoch) == (start, epoch)

    def _require_kept(self, offset: int, start: int) -> None:
        if offset < start:
            raise RangeGone(
                f"byte {offset} of {self.directory} was dropped; the first that is kept is byte {start}"
            )

    def _read_segment(self, segment: int, position: int, size: int) -> bytes:
        path = f"{self._path}/{self.names.name(segment)}"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            return os.pread(descriptor, size, position)
        except OSError as error:
            raise StreamDamaged(
                f"cannot read {path} at byte {position}: {error.strerror}. Check the disk; the data is "
                "untouched. Then restart"
            ) from error
        finally:
            os.close(descriptor)
