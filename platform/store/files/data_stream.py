"""Data streams: the unchanged bytes of one source, and the time of arrival of each chunk."""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..interface.arrivals import ARRIVAL, EVENT
from ..interface.readers import StreamReader
from .description import changed_at, read_description
from .rows import Rows
from .segmented_file import SegmentedFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_SETTLED_NS = 2_000_000_000
"""A file may change again within the tick of the clock that its time of change shows."""


class DataStream(StreamReader):
    """A data stream, for reading, by byte offset, while it grows.

    **Format.** A directory with

    - `bytes/`: a segmented file of the bytes;
    - `arrivals/`: a segmented file of one record of 72 bytes a chunk, `ARRIVAL`, in order of arrival;
    - `events/`: if the bytes do not contain the event times, a segmented file of one record of 16 bytes an
      event, `EVENT`, in ascending order of the end;
    - `meta.json`: `attrs` (tag and policy), and the `uid` of `bytes/` in hexadecimal. It is written last when
      a stream is created: without it there is no stream yet.

    If a power cut leaves parts of a stream that was never committed, they are set aside as `stream~1`, and
    the stream starts over.

    Bytes and events are appended before their arrival record: a crash between leaves bytes of no chunk at the
    end, which the next writer cuts off.

    Raises FileNotFoundError if there is no stream. Bound: as `SegmentedFile`, for three of them.
    """

    def __init__(self, directory: Path, reference: str) -> None:
        self._opened_ns = time.time_ns()
        self._described_at = changed_at(directory)
        description = read_description(directory)
        if description is None:
            raise FileNotFoundError(f"{directory} holds no data stream")
        self.reference = reference
        self.directory = directory
        self.attrs: Mapping[str, Any] = MappingProxyType(description["attrs"])
        self._bytes = SegmentedFile(directory / "bytes")
        self._arrivals_file = SegmentedFile(directory / "arrivals")
        self.uid = self._bytes.uid
        self._arrivals = Rows(self._arrivals_file, ARRIVAL)
        self._events_file: SegmentedFile | None = None  # created with the first event that has a time

    @property
    def start(self) -> int:
        """Offset of the first byte kept, now."""
        return self._bytes.start

    @property
    def size(self) -> int:
        """Bytes ever appended, now: the offset past the last byte."""
        return self._bytes.length

    def segment_stop(self, position: int) -> int:
        """The first byte past the segment of byte `position`."""
        segment_bytes: int = self._bytes.segment_bytes
        return position - position % segment_bytes + segment_bytes

    @property
    def kept_bytes(self) -> int:
        """From the first kept byte of each file to its end; without the event times."""
        return self._bytes.length - self._bytes.start + self._arrivals.kept_bytes

    @property
    def chunks(self) -> int:
        """Chunks ever appended."""
        return len(self._arrivals)

    @property
    def events(self) -> int:
        """Events ever appended."""
        last = self._last_arrival()
        return 0 if last is None else int(last["events_total"])

    @property
    def first_arrival_ns(self) -> int | None:
        """Arrival of the first chunk whose record is kept, ns since the epoch, UTC; None if there is none."""
        # An open slice does not fail if retention drops its beginning meanwhile.
        kept = self._arrivals[: self._arrivals.start + 1]
        return int(kept[0]["arrived_ns"]) if len(kept) else None

    @property
    def last_arrival_ns(self) -> int | None:
        """Arrival of the last chunk, ns since the epoch, UTC; None if there is none."""
        last = self._last_arrival()
        return None if last is None else int(last["arrived_ns"])

    @property
    def arrivals(self) -> Rows:
        """One record of dtype `ARRIVAL` a chunk, in order of arrival."""
        return self._arrivals

    def event_times(self, start: int, stop: int) -> NDArray[np.void]:
        """The ends and times of the events in the bytes from `start` to `stop`.

        Returns shape (n,) of dtype `EVENT`: the events that end after `start` and at `stop` at the latest;
        empty if the stream keeps no times of events.
        """
        if self._events_file is None and (self.directory / "events" / "head").exists():
            self._events_file = SegmentedFile(self.directory / "events")
        if self._events_file is None:
            return np.empty(0, EVENT)
        kept = Rows(self._events_file, EVENT)[:]
        first, last = np.searchsorted(kept["end"], [start, stop], side="right")
        found: NDArray[np.void] = kept[first:last]
        return found

    @property
    def replaced(self) -> bool:
        """Whether another stream has replaced this one, so that it no longer grows."""
        return self._bytes.replaced

    @property
    def outdated(self) -> bool:
        """Whether opening the stream again may give another one, or other attributes; costs two stat(2)."""
        mark = changed_at(self.directory)
        if mark is None or mark != self._described_at or self._opened_ns - mark[0] < _SETTLED_NS:
            return True
        return self.replaced

    def read(self, offset: int, size: int) -> bytes:
        """Read up to `size` bytes from `offset`; fewer at the end. Raises RangeGone below `start`."""
        return self._bytes.read(offset, size)

    def close(self) -> None:
        """Close the files; views that exist stay valid."""
        self._bytes.close()
        self._arrivals_file.close()
        if self._events_file is not None:
            self._events_file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<DataStream {self.reference} {self.size} bytes>"

    def _last_arrival(self) -> Any:
        last = self._arrivals[-1:]
        return last[0] if len(last) else None
