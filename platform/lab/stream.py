"""A data stream as an analyst uses it: bytes by offset, or a file for any library that reads one."""

import io
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..records.bounds import Instant, bound_of
from ..store.interface import StreamReader
from ..store.selection.time_ranges import byte_range
from .describe import readable_bytes

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from .array import Array


class Stream:
    """One data stream: bytes that only grow, addressed by offset from the first ever written.

    `stream.read_range(offset, length)` and `stream[a:b]` give bytes, `stream.open()` a file; `arrays` are its
    outputs, by name (`spectrum`) or reference. `stream["2026-11-01T00:00Z":]` gives the chunks that arrived
    at that time or later.
    """

    def __init__(self, source: StreamReader, arrays: "Mapping[str, Array]") -> None:
        self._source = source
        self.arrays = arrays

    @property
    def reference(self) -> str:
        """The name, which is the tag of its events."""
        return self._source.reference

    @property
    def size(self) -> int:
        """The offset after the last byte, now."""
        return self._source.size

    @property
    def start(self) -> int:
        """Offset of the first byte kept; retention may have dropped those before it."""
        return self._source.start

    @property
    def chunks(self) -> int:
        """Number of chunks received."""
        return self._source.chunks

    @property
    def events(self) -> int:
        """Number of events in them."""
        return self._source.events

    @property
    def first_arrival(self) -> np.datetime64 | None:
        """When its first chunk arrived, UTC."""
        return _moment(self._source.first_arrival_ns)

    @property
    def last_arrival(self) -> np.datetime64 | None:
        """When its last chunk arrived, UTC."""
        return _moment(self._source.last_arrival_ns)

    def read_range(self, offset: int, length: int) -> bytes:
        """The `length` bytes from `offset`; fewer at the end, none past it.

        Raises RangeGone below `start`, ValueError if one of them is negative.
        """
        return self._source.read(offset, length)

    def read(self, offset: int | None = None, size: int | None = None) -> bytes:
        """All bytes that are kept.

        Deprecated with arguments: `read(10)` gives the bytes from offset 10 to the end, although the same
        call of a file gives 10 bytes. Use `read_range(offset, length)`, or `stream[offset:]`.
        """
        if offset is None and size is None:
            return self._source.read(self.start, self.size - self.start)
        warnings.warn(
            "Stream.read(offset, size) is deprecated: use stream.read_range(offset, length) for some bytes, "
            "stream[offset:] for those to the end",
            DeprecationWarning,
            stacklevel=2,
        )
        offset = 0 if offset is None else offset
        return self._source.read(offset, max(0, self.size - offset) if size is None else size)

    def open(self) -> io.BufferedReader:
        """A binary file over what is there now, from the first byte kept: for wave.open and its kin."""
        return io.BufferedReader(_StreamFile(self._source))

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: slice) -> bytes:
        if not isinstance(key, slice):
            raise TypeError(
                f"a stream is cut by slices, not by {key!r}: stream[a:b] gives bytes, stream[0:1] the first"
            )
        first, end = bound_of(key.start), bound_of(key.stop)
        if isinstance(first, Instant) or isinstance(end, Instant):
            offsets = byte_range(self._source, first, end)
            start, stop = offsets.start, offsets.stop
        else:
            start, stop, _ = slice(first, end).indices(self.size)
        if key.step not in (None, 1):
            raise ValueError("a stream gives its bytes in order: leave out the step")
        return self._source.read(start, max(0, stop - start))

    def row_of_table(self) -> tuple[str, ...]:
        """Its row in the list of streams."""
        last = self.last_arrival
        return (
            self.reference,
            readable_bytes(self.size - self.start),
            f"{self.events:,} events",
            "" if last is None else f"last {np.datetime_as_string(last, unit='s')} UTC",
        )

    def __repr__(self) -> str:
        lines = [
            f"data stream {self.reference}: {readable_bytes(self.size)}, "
            f"{self.events:,} events in {self.chunks:,} chunks"
        ]
        if self.start:
            lines.append(f"  bytes before {self.start:,} are no longer kept")
        if self.first_arrival is not None:
            lines.append(f"  arrived {self.first_arrival} to {self.last_arrival} UTC")
        if len(self.arrays):
            lines.append(f"  arrays: {', '.join(reference.partition(':')[2] for reference in self.arrays)}")
        return "\n".join(lines)


class _StreamFile(io.RawIOBase):
    """The bytes of a stream from `start` to the `size` at the time of opening, as a file that can seek."""

    def __init__(self, source: StreamReader) -> None:
        self._source = source
        self._start = source.start
        self._size = source.size - source.start
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            raise ValueError(f"cannot seek to {origin + offset}: a file begins at 0")
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        target = memoryview(buffer).cast("B")
        wanted = min(len(target), max(0, self._size - self._position))
        data = self._source.read(self._start + self._position, wanted)
        target[: len(data)] = data
        self._position += len(data)
        return len(data)


def _moment(time_ns: int | None) -> np.datetime64 | None:
    return None if time_ns is None else np.datetime64(time_ns, "ns")
