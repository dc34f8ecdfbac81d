"""What the readers of data streams and data arrays promise."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from .closing import Closing
from .rows import RowReader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from .pyramids import PyramidLevel


class _Reader(Closing):
    """What the readers of streams and of arrays have in common."""

    reference: str
    """`stream`, or `stream:output`."""

    uid: bytes
    """16 random bytes, made with the output: another output of this reference has others."""

    attrs: Mapping[str, Any]
    """Constant attributes, as JSON has them: `policy` and `tag` of a stream, `rate_hz` of an array."""

    @property
    @abstractmethod
    def replaced(self) -> bool:
        """Whether another output has this reference now, or none.

        This one no longer grows, and what was not read yet may be gone: StreamDamaged.
        """

    @property
    @abstractmethod
    def kept_bytes(self) -> int:
        """The bytes of storage of what is kept, about, now."""

    @abstractmethod
    def segment_stop(self, position: int) -> int:
        """The end of the segment that has this row of an array, or byte of a stream; it may lie past the end.

        `drop_before` drops whole segments: one ends here, whatever its beginning was.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what the reader holds; arrays that it returned stay valid. Closing twice is allowed."""


class ArrayReader(RowReader, _Reader):
    """A data array, for reading: the rows, and the event time of each.

    A reader sees a row together with its time, or neither.
    """

    @property
    @abstractmethod
    def times_ns(self) -> RowReader:
        """The event time of each row, int64 ns since the epoch, UTC: indexed like the array itself."""

    def levels(self) -> Sequence[PyramidLevel]:
        """The levels of the array's pyramid, level 1 first; none if it has no pyramid (yet)."""
        return ()

    @property
    def zarr_path(self) -> Path | None:
        """The directory that Zarr opens as the array of the sealed rows; None without sealed rows."""
        return None


class StreamReader(_Reader):
    """A data stream, for reading by byte offset, while it grows. Thread-safe.

    A reader sees a chunk's bytes no later than its arrival record.
    """

    @property
    @abstractmethod
    def start(self) -> int:
        """Offset of the first byte kept, now."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes ever appended, now: the offset past the last byte."""

    @property
    @abstractmethod
    def chunks(self) -> int:
        """Chunks ever appended."""

    @property
    @abstractmethod
    def events(self) -> int:
        """Events ever appended."""

    @property
    @abstractmethod
    def first_arrival_ns(self) -> int | None:
        """Arrival of the first chunk whose record is kept, ns since the epoch, UTC; None if there is none."""

    @property
    @abstractmethod
    def last_arrival_ns(self) -> int | None:
        """Arrival of the last chunk, ns since the epoch, UTC; None if there is none."""

    @property
    @abstractmethod
    def arrivals(self) -> RowReader:
        """One record of dtype `arrivals.ARRIVAL` a chunk, in order of arrival."""

    @property
    @abstractmethod
    def outdated(self) -> bool:
        """Whether opening the stream again may give another one, or other attributes."""

    @abstractmethod
    def event_times(self, start: int, stop: int) -> NDArray[np.void]:
        """The ends and times of the events in the bytes from `start` to `stop`.

        Returns shape (n,) of dtype `arrivals.EVENT`: the events that end after `start` and at `stop` at the
        latest; empty if the stream keeps no times of events.
        """

    @abstractmethod
    def read(self, offset: int, size: int) -> bytes:
        """Read up to `size` bytes from `offset`; fewer at the end, none past it.

        Raises RangeGone below `start`, ValueError for negative arguments, StreamDamaged if bytes are lost.
        """
