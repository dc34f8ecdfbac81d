"""What the writers of data streams and data arrays promise."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Self

from .closing import Closing

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from ..databases.checkpoint_records import OutputLength


class _Writer(Closing):
    """What the writers of streams and of arrays have in common.

    Opening changes nothing. `resume` sets where the output continues; before, and after `close`, all other
    methods that change it raise ValueError. One thread at a time may call a writer; different writers may be
    used by different threads at once.

    After a failed write or sync every call raises StoreFailed (DiskFull if there is no room), since it is not
    known what is stored: close it, fix the cause, open a new one, and resume at the last checkpoint.
    """

    reference: str
    """`stream`, or `stream:output`."""

    uid: bytes
    """16 random bytes, made with the output; `resume` may begin another output, with another one."""

    attrs: Mapping[str, Any]
    """As JSON has them: tuples are lists."""

    @property
    @abstractmethod
    def found(self) -> OutputLength:
        """The present length; before `resume`, the length that was found."""

    @abstractmethod
    def resume(self, committed: OutputLength | None, *, database_id: bytes) -> Self:
        """Resume at the committed end, and cut off what follows: it will be appended again.

        Args:
            committed: The length in the checkpoint; None if it lacks this output.
            database_id: Identifies the checkpoint database; an output that was never committed starts over
                at 0 only if it is of the same database.

        Raises StreamDamaged if committed data is missing, and CheckpointMissing, a StreamDamaged, if more may
        have been committed than `committed` says; then nothing was changed.
        """

    @abstractmethod
    def mark_committed(self, length: OutputLength) -> None:
        """Remember, after the commit of `length`, that a checkpoint covers it.

        A later `resume` with an older checkpoint, or with none, then raises CheckpointMissing. Lengths of
        another uid, and closed writers, are ignored. Not durable by itself: the next `sync` makes it so.
        """

    @abstractmethod
    def flush(self) -> None:
        """Make this output durable; `StoreEngine.sync` does it for all outputs at once."""

    @abstractmethod
    def close(self) -> None:
        """Release the output for another writer. Does not sync. Closing twice is allowed."""


class StreamWriter(_Writer):
    """The one writer of a data stream."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes ever appended: the offset of the next one."""

    @property
    @abstractmethod
    def chunks(self) -> int:
        """Chunks ever appended."""

    @property
    @abstractmethod
    def events(self) -> int:
        """Events ever appended."""

    @abstractmethod
    def append(
        self,
        data: Buffer,
        *,
        arrived_ns: int,
        chunk_id: bytes | None,
        events: int,
        event_times: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    ) -> int:
        """Append the bytes of one chunk, contiguous, possibly none; return the offset of the first byte.

        `event_times`, for bytes that do not contain them, are two int64 arrays of shape (events,): the offset
        in the stream past each event's last byte, and its time in ns. Readers on this host see all of it on
        return, and `data` may change then.
        """

    @abstractmethod
    def cut(self, size: int, chunks: int) -> None:
        """Make the stream end after `size` bytes and `chunks` chunks; the next append begins there.

        Raises ValueError if the last of these chunks does not end at `size`, RangeGone for an end below
        `start` (0 is allowed: the stream restarts), StreamDamaged for one past the end.
        """

    @abstractmethod
    def drop_before(self, offset: int) -> None:
        """Drop bytes before `offset`, as far as the engine frees space by it, and their arrival records.

        The last record stays in any case. `offset` is at most what is committed.
        """


class ArrayWriter(_Writer):
    """The one writer of a data array, whose dtype, row shape and attrs never change.

    If there is an array of this reference that differs in them, `resume` sets it aside, as `…~1` (`~2`, …),
    which can still be read, and begins one with a new uid.
    """

    dtype: np.dtype[Any]
    """Of each element."""

    row_shape: tuple[int, ...]
    """The shape of one row."""

    @property
    @abstractmethod
    def length(self) -> int:
        """Count of rows ever appended: the number of the next row."""

    @abstractmethod
    def snapshot(self) -> OutputLength:
        """The present length, for a checkpoint; `mark_committed` gets it after the commit."""

    @abstractmethod
    def start_over(self, *, database_id: bytes) -> Self:
        """Set the present array aside, if it has rows, and continue with an empty one."""

    @abstractmethod
    def append(self, rows: NDArray[Any], times_ns: NDArray[np.int64]) -> int:
        """Append rows, shape (n, *row_shape), with their event times, shape (n,), int64 ns since the epoch.

        Returns the number of the first one. Readers on this host see all of them on return, and both arrays
        may change then. Raises ValueError if dtype or shape differ from the array's.
        """

    @abstractmethod
    def cut(self, rows: int) -> None:
        """Make the array end after `rows` rows; the next append begins there.

        Raises as `StreamWriter.cut`.
        """

    @abstractmethod
    def drop_before(self, row: int) -> None:
        """Drop rows before `row`, as far as the engine frees space by it; at most what is committed."""
