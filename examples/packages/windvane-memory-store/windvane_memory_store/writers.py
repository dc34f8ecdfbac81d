"""Writers of streams and arrays in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import google_crc32c
import numpy as np
from windvane.errors import CheckpointMissing, RangeGone, StreamDamaged
from windvane.store.databases.checkpoint_records import OutputLength
from windvane.store.interface import ARRIVAL, EVENT, ArrayWriter, StreamWriter

from .content import SEGMENT, TIME, Output, Shelf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from typing_extensions import Buffer


class _MemoryWriter:
    """The lock, and the rules by which an output is resumed."""

    def __init__(self, shelf: Shelf, output: Output, attrs: Mapping[str, Any]) -> None:
        self._shelf = shelf
        self._output = output
        self._is_resumed = self._is_closed = False
        self.attrs = attrs
        self.reference, self.uid = output.reference, output.uid
        output.is_locked = True

    @property
    def found(self) -> OutputLength:
        """The present length."""
        return self._output.length

    def mark_committed(self, length: OutputLength) -> None:
        """A checkpoint covers this length."""
        if length.uid == self.uid and not self._is_closed:
            self._output.committed = length.length

    def flush(self) -> None:
        """Nothing outlives the process."""
        self._require_resumed()

    def close(self) -> None:
        """Release the lock."""
        if not self._is_closed:
            self._output.is_locked = False
        self._is_closed = True

    def _resume_at(self, committed: OutputLength | None, database_id: bytes) -> OutputLength:
        """Where to resume: the length that is committed, or 0 if nothing can have been."""
        output = self._output
        if committed is not None and committed.uid == output.uid:
            length = committed
        elif output.length.length or output.length.chunks:
            if output.committed or output.database_id not in (None, database_id):
                raise CheckpointMissing(f"{self.reference} has data, and no checkpoint covers it")
            length = OutputLength(output.uid, 0)
        else:
            if committed is not None and committed.length and not self._is_kept(committed.uid):
                raise StreamDamaged(f"{self.reference} is empty, and {committed.length} were committed")
            length = OutputLength(output.uid, 0)
        if length.length < output.committed:
            raise CheckpointMissing(f"{self.reference}: the checkpoint is older than the data")
        if length.length > output.length.length or length.chunks > output.length.chunks:
            raise StreamDamaged(f"{self.reference}: {length.length} were committed, and fewer are there")
        return length

    def _is_kept(self, uid: bytes) -> bool:
        return any(each.uid == uid for each in self._shelf.outputs.values())

    def _made(self, database_id: bytes) -> None:
        self._output.database_id, self._output.attrs = database_id, self.attrs
        self._output.is_made = self._is_resumed = True

    def _require_resumed(self) -> None:
        if self._is_closed or not self._is_resumed:
            raise ValueError(f"the writer of {self.reference} is closed, or was not resumed")

    def _check_cut(self, table: int, length: int) -> None:
        self._require_resumed()
        present = self._output.tables[table]
        if length > present.length:
            raise StreamDamaged(f"{self.reference} ends at {present.length}, before {length}")
        if length < 0:
            raise ValueError(f"{self.reference} cannot be cut back to {length}")
        if 0 < length < present.start:
            raise RangeGone(f"{self.reference} begins at {present.start}, after {length}")


class MemoryArrayWriter(_MemoryWriter, ArrayWriter):
    """The one writer of a data array."""

    def __init__(
        self,
        shelf: Shelf,
        output: Output,
        *,
        dtype: np.dtype[Any],
        row_shape: tuple[int, ...],
        attrs: Mapping[str, Any],
    ) -> None:
        super().__init__(shelf, output, attrs)
        self.dtype = dtype
        self.row_shape = row_shape

    @property
    def length(self) -> int:
        """Count of rows."""
        return self._output.tables[0].length

    def resume(self, committed: OutputLength | None, *, database_id: bytes) -> Self:
        """Resume at the committed end; an array that differs is set aside."""
        with self._shelf.lock:
            found = self._output
            if found.is_made and (found.dtype, found.row_shape, found.attrs) != (
                self.dtype,
                self.row_shape,
                self.attrs,
            ):
                self._begin_another()
                committed = None
            length = self._resume_at(committed, database_id).length
            self._made(database_id)
            self._cut(length)
        return self

    def snapshot(self) -> OutputLength:
        """The present length."""
        return self.found

    def start_over(self, *, database_id: bytes) -> Self:
        """Continue with an empty array."""
        with self._shelf.lock:
            if self.length:
                self._begin_another()
            return self.resume(None, database_id=database_id)

    def append(self, rows: NDArray[Any], times_ns: NDArray[np.int64]) -> int:
        """Append rows and their times."""
        self._require_resumed()
        if rows.ndim == 0 or rows.dtype != self.dtype or rows.shape[1:] != self.row_shape:
            raise ValueError(f"{self.reference} takes rows of {self.dtype} {self.row_shape}")
        if times_ns.dtype != TIME or times_ns.shape != rows.shape[:1]:
            raise ValueError(f"{self.reference}: {len(rows)} rows need as many times of int64")
        first = self.length
        stored, times = self._output.tables
        self._output.tables = stored.appended(rows), times.appended(times_ns)
        return first

    def cut(self, rows: int) -> None:
        """End after `rows` rows."""
        self._check_cut(0, rows)
        self._cut(rows)

    def drop_before(self, row: int) -> None:
        """Drop the segments before `row`."""
        self._require_resumed()
        row -= row % SEGMENT
        stored, times = self._output.tables
        self._output.tables = stored.dropped_before(row), times.dropped_before(row)

    def _cut(self, rows: int) -> None:
        stored, times = self._output.tables
        self._output.tables = stored.cut(rows), times.cut(rows)
        self._output.committed = min(self._output.committed, rows)

    def _begin_another(self) -> None:
        self._output.is_locked = False
        self._shelf.set_aside(self.reference, by="layout")
        self._output = self._shelf.make(
            self.reference, dtype=self.dtype, row_shape=self.row_shape, attrs=self.attrs
        )
        self.uid = self._output.uid
        self._output.is_locked = True


class MemoryStreamWriter(_MemoryWriter, StreamWriter):
    """The one writer of a data stream."""

    @property
    def size(self) -> int:
        """Bytes ever appended."""
        return self._output.tables[0].length

    @property
    def chunks(self) -> int:
        """Chunks ever appended."""
        return self._output.tables[1].length

    @property
    def events(self) -> int:
        """Events ever appended."""
        return self._end_of(self.chunks)[1]

    def resume(self, committed: OutputLength | None, *, database_id: bytes) -> Self:
        """Resume at the committed end."""
        with self._shelf.lock:
            length = self._resume_at(committed, database_id)
            if self._end_of(length.chunks)[0] != length.length:
                raise StreamDamaged(f"{self.reference}: no chunk ends at byte {length.length}")
            self._made(database_id)
            self._cut(length.length, length.chunks)
        return self

    def append(
        self,
        data: Buffer,
        *,
        arrived_ns: int,
        chunk_id: bytes | None,
        events: int,
        event_times: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    ) -> int:
        """Append a chunk."""
        self._require_resumed()
        content, arrivals, times = self._output.tables
        offset = content.length
        added = np.frombuffer(memoryview(data).cast("B") if len(memoryview(data)) else b"", np.uint8)
        arrival = np.zeros(1, ARRIVAL)
        identifier = chunk_id or b""
        arrival[0] = (
            offset,
            len(added),
            arrived_ns,
            self.events + events,
            google_crc32c.value(added.tobytes()),
            len(identifier),
            identifier[:32],
        )
        if event_times is not None:
            records = np.empty(len(event_times[0]), EVENT)
            records["end"], records["time_ns"] = event_times
            times = times.appended(records)
        self._output.tables = content.appended(added), arrivals.appended(arrival), times
        return offset

    def cut(self, size: int, chunks: int) -> None:
        """End after `size` bytes in `chunks` chunks."""
        self._check_cut(0, size)
        self._check_cut(1, chunks)
        if self._end_of(chunks)[0] != size:
            raise ValueError(f"{self.reference}: the first {chunks} chunks do not end at byte {size}")
        self._cut(size, chunks)

    def drop_before(self, offset: int) -> None:
        """Drop the segments before `offset`, and the arrivals of chunks that are gone as a whole."""
        self._require_resumed()
        content, arrivals, times = self._output.tables
        content = content.dropped_before(offset - offset % SEGMENT)
        # The record of the chunk that ends there stays: it has the count of events.
        gone = int(np.searchsorted(arrivals.rows["offset"], content.start)) - 1
        arrivals = arrivals.dropped_before(arrivals.start + max(gone, 0))
        gone = int(np.searchsorted(times.rows["end"], content.start, side="right"))
        self._output.tables = content, arrivals, times.dropped_before(times.start + gone)

    def _end_of(self, chunks: int) -> tuple[int, int]:
        """The end of the first `chunks` chunks, in bytes and in events."""
        arrivals = self._output.tables[1]
        if chunks == 0:
            return 0, 0
        last = arrivals.rows[chunks - 1 - arrivals.start]
        return int(last["offset"] + last["size"]), int(last["events_total"])

    def _cut(self, size: int, chunks: int) -> None:
        content, arrivals, times = self._output.tables
        events = self._end_of(chunks)[1]
        kept = times.start + int(np.searchsorted(times.rows["end"], size, side="right"))
        self._output.tables = content.cut(size), arrivals.cut(chunks), times.cut(min(kept, events))
        self._output.committed = min(self._output.committed, size)
