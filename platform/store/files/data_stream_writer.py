"""Writes a data stream."""

from __future__ import annotations

import logging
import struct
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import google_crc32c
import numpy as np

from ...errors import StreamDamaged
from ..databases.checkpoint_records import OutputLength
from ..interface.arrivals import ARRIVAL, EVENT
from ..interface.writers import StreamWriter
from .description import as_json, read_description, sync_description, write_description
from .resumption import no_checkpoint, older_checkpoint
from .rows import Rows
from .segmented_file import SegmentedFile
from .segmented_writer import DEFAULT_SEGMENT_BYTES, SegmentedWriter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from typing_extensions import Buffer

_ARRIVAL = struct.Struct("<QQqQII32s")
_EVENTS_A_READ = 4096
_log = logging.getLogger(__name__)


class DataStreamWriter(StreamWriter):
    """The one writer of a data stream (the format is described at `DataStream`).

    Opening changes nothing. `resume` passes what is committed and cuts off later bytes; then chunks can be
    appended. Errors and threads as with `SegmentedWriter`.
    """

    def __init__(
        self,
        directory: Path,
        reference: str,
        *,
        attrs: Mapping[str, Any],
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
    ) -> None:
        """Open the stream, or create it; `attrs` replace the former ones when it is resumed.

        Raises StoreLocked while another writer has it, StreamDamaged if its files contradict each other,
        ValueError for attrs that cannot be stored.
        """
        self.reference = reference
        self.directory = directory
        plain = as_json(attrs)
        self.attrs: Mapping[str, Any] = MappingProxyType(plain)
        self._segment_bytes = segment_bytes
        self._closed = False
        self._open()

    def _open(self) -> None:
        directory, segment_bytes = self.directory, self._segment_bytes
        self._bytes = SegmentedWriter(directory / "bytes", segment_bytes=segment_bytes)
        self._event_times: SegmentedWriter | None = None
        try:
            self._arrivals = SegmentedWriter(directory / "arrivals", segment_bytes=segment_bytes)
            if (directory / "events").exists():
                self._event_times = SegmentedWriter(directory / "events", segment_bytes=segment_bytes)
        except BaseException:
            # Their locks must not last as long as the traceback of the error.
            self._bytes.close()
            if hasattr(self, "_arrivals"):
                self._arrivals.close()
            raise
        self.uid = self._bytes.uid
        self._events = 0

    def resume(self, committed: OutputLength | None, *, database_id: bytes) -> Self:
        """Resume at the committed end of the stream; the worker rereads later chunks from the bus.

        `committed` is the length in the checkpoint, None if it lacks this stream; `database_id` identifies
        the checkpoint database. Checks that all committed data is there before it changes anything. Raises
        StreamDamaged if it is not, and CheckpointMissing, a StreamDamaged, if the stream has bytes that may
        have been committed without this checkpoint: then the files are as they were.
        """
        found = read_description(self.directory) or {}
        if committed is not None:
            for file in self._files():
                file.require_head()
        if committed is not None and committed.uid == self.uid:
            size, chunks = committed.length, committed.chunks
        else:
            self._require_never_committed(committed, found, database_id)
            if any(file.lacks_head or (file.length and not found) for file in self._files()):
                self._begin_another()
            size = chunks = 0
        if size < self._bytes.committed or chunks < self._arrivals.committed // ARRIVAL.itemsize:
            raise older_checkpoint(
                self.reference,
                f"it covers {size} bytes in {chunks} chunks, and {self._bytes.committed} bytes in "
                f"{self._arrivals.committed // ARRIVAL.itemsize} chunks were committed",
            )
        self._bytes.check_held(size)
        self._arrivals.check_held(chunks * ARRIVAL.itemsize)
        events = self._check_chain(size, chunks)
        times = self._event_times_until(size, events)
        if self._event_times is not None and times < self._event_times.committed:
            raise StreamDamaged(
                f"{self.directory}/events: {self._event_times.committed // EVENT.itemsize} times of events "
                f"were committed, and {times // EVENT.itemsize} are there. Nothing was changed; "
                f"`windvane verify {self.reference}` shows what is damaged"
            )
        self._bytes.resume(size)
        self._arrivals.resume(chunks * ARRIVAL.itemsize)
        if self._event_times is not None:
            self._event_times.resume(times)
        self._events = events
        description = {"attrs": dict(self.attrs), "uid": self.uid.hex(), "database_id": database_id.hex()}
        if found != description:
            write_description(self.directory, description)
        return self

    def roll_back(self, committed: OutputLength, *, database_id: bytes) -> Self:
        """Resume at `committed`, although later lengths are marked as committed: for a restored copy.

        The copied heads can be later than the copied checkpoint. `committed` must be of this `uid`.
        """
        for file in self._files():
            file.mark_committed(0)
        self.resume(committed, database_id=database_id)
        self.mark_committed(committed)
        return self

    @property
    def found(self) -> OutputLength:
        """The present length of the stream; before `resume`, the length that was found."""
        return OutputLength(self.uid, self.size, self.chunks)

    def mark_committed(self, length: OutputLength) -> None:
        """Remember, after the commit of `length`, that a checkpoint covers it: words in the files' heads.

        A later `resume` with an older checkpoint, or with none, then fails. Closed writers ignore it.
        """
        if length.uid != self.uid or self._closed:
            return
        # Before the bytes: another thread may be appending, and writes event times after bytes.
        event_times = None if self._event_times is None else self._event_times.length
        self._bytes.mark_committed(length.length)
        self._arrivals.mark_committed(length.chunks * ARRIVAL.itemsize)
        if self._event_times is not None and event_times and length.length == self._bytes.length:
            self._event_times.mark_committed(event_times)

    @property
    def size(self) -> int:
        """Bytes ever appended: the offset of the next one."""
        return self._bytes.length

    @property
    def chunks(self) -> int:
        """Chunks ever appended."""
        return self._arrivals.length // ARRIVAL.itemsize

    @property
    def events(self) -> int:
        """Events ever appended."""
        return self._events

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
        in the stream past each event's last byte, and its time in ns. Readers see all of it on return.
        """
        size = len(data) if type(data) is bytes else memoryview(data).nbytes
        # The checksum accepts no writeable buffers, but arrays over them.
        checksum = google_crc32c.value(
            data if type(data) is bytes else np.frombuffer(memoryview(data), np.uint8)
        )
        identifier = chunk_id or b""
        self._arrivals.check()
        offset = self._bytes.append(data)
        if event_times is not None:
            self._append_event_times(*event_times)
        self._events += events
        self._arrivals.append(
            _ARRIVAL.pack(offset, size, arrived_ns, self._events, checksum, len(identifier), identifier[:32])
        )
        return offset

    def cut(self, size: int, chunks: int) -> None:
        """Make the stream end after `size` bytes and `chunks` chunks, which belong together.

        Raises ValueError if the last of these chunks does not end at `size`, and as `SegmentedWriter.cut`.
        """
        if size <= self.size and chunks <= self.chunks:
            end, events = self._end_of(chunks)
            if end != size:
                raise ValueError(
                    f"{self.reference}: the first {chunks} chunks end at byte {end}, not at {size}"
                )
        else:
            events = self._events  # one of the two below says what is missing
        self._bytes.cut(size)
        self._arrivals.cut(chunks * ARRIVAL.itemsize)
        if self._event_times is not None:
            self._event_times.cut(self._event_times_until(size, events))
        self._events = events

    def drop_before(self, offset: int) -> None:
        """Drop bytes before `offset`, as far as they fill whole segments, and their arrival records."""
        start = self._bytes.start
        self._bytes.drop_before(offset)
        if self._bytes.start == start:
            return
        with SegmentedFile(self._arrivals.directory) as file:
            arrivals = Rows(file, ARRIVAL)[:]
        gone = int(np.searchsorted(arrivals["offset"], self._bytes.start, side="right")) - 1
        # The last record stays in any case: it has the count of events.
        self._arrivals.drop_before((self.chunks - len(arrivals) + max(gone, 0)) * ARRIVAL.itemsize)
        if self._event_times is not None:
            with SegmentedFile(self._event_times.directory) as file:
                events = Rows(file, EVENT)
                gone = int(np.searchsorted(events[:]["end"], self._bytes.start, side="right"))
                self._event_times.drop_before((events.start + gone) * EVENT.itemsize)

    def flush(self) -> None:
        """Make all chunks durable; `Store.sync` does it for a whole store at once."""
        sync_description(self.directory)
        for file in self._files():
            file.flush()

    def close(self) -> None:
        """Close the files and release their locks. Does not sync."""
        self._closed = True
        for file in self._files():
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _files(self) -> list[SegmentedWriter]:
        files = [self._bytes, self._arrivals, self._event_times]
        return [file for file in files if file is not None]

    def _append_event_times(self, ends: NDArray[np.int64], times_ns: NDArray[np.int64]) -> None:
        if self._event_times is None:
            self._event_times = SegmentedWriter(
                self.directory / "events", segment_bytes=self._segment_bytes
            ).resume()
        records = np.empty(len(ends), EVENT)
        records["end"], records["time_ns"] = ends, times_ns
        self._event_times.append(records.view(np.uint8).data)

    def _require_never_committed(
        self, committed: OutputLength | None, found: Mapping[str, Any], database_id: bytes
    ) -> None:
        """Nothing is lost by cutting to 0 only if no checkpoint ever covered any of it."""
        is_other = committed is not None and bool(committed.length or committed.chunks)
        lacks_head = any(file.lacks_head for file in self._files())
        if not self._bytes.length and not self._arrivals.length and not lacks_head:
            if committed is not None and is_other:
                raise StreamDamaged(
                    f"{self.reference}: {committed.length} bytes in {committed.chunks} chunks were "
                    f"committed, and {self.directory} holds none of them (it was removed, or moved?). Put it "
                    f"back, or make the stream again with `windvane recover rebuild {self.reference}`"
                )
            return
        marked = any(file.committed for file in self._files())
        # The description is written before the first byte: without it, no commit has synced the stream.
        is_ours = not found or found.get("database_id") == database_id.hex()
        if marked or is_other or not is_ours:
            raise no_checkpoint(
                self.reference,
                f"{self._bytes.length} bytes in {self.chunks} chunks",
                other=committed is not None,
            )

    def _begin_another(self) -> None:
        """Set aside the remains of a stream of which nothing was committed before a power cut."""
        number = 1
        while (aside := self.directory.with_name(f"{self.directory.name}~{number}")).exists():
            number += 1
        # Renamed while it is locked, so that no other writer can have it open.
        self.directory.rename(aside)
        _log.warning(
            "%s: nothing of the stream was committed before a power cut; its remains are in %s, and the "
            "worker reads its chunks from the bus again",
            self.reference,
            aside,
        )
        for file in self._files():
            file.close()
        self._open()

    def _event_times_until(self, size: int, events: int) -> int:
        """The length of the file of event times at which the stream ends after `size` bytes and `events`
        events: an event may have no bytes, so the bytes alone do not say it.
        """
        if self._event_times is None or not self._event_times.length:
            return 0
        # Arrival records that were repaired may count too few.
        events = max(events, self._event_times.committed // EVENT.itemsize)
        # After a power failure the last records can be zeros, or not there.
        kept = min(self._event_times.held // EVENT.itemsize, events)
        with SegmentedFile(self._event_times.directory) as file:
            start = -(-file.start // EVENT.itemsize)
            while kept > start:
                first = max(start, kept - _EVENTS_A_READ)
                read = file.read(first * EVENT.itemsize, (kept - first) * EVENT.itemsize)
                records = np.frombuffer(read, EVENT)
                is_there = (records["end"] > 0) | (records["time_ns"] != 0)
                whole = np.flatnonzero(is_there & (records["end"] <= size))
                kept = first if not len(whole) else first + int(whole[-1]) + 1
                if len(whole):
                    break
        return kept * EVENT.itemsize

    def _arrival(self, chunk: int) -> tuple[int, int, int]:
        """The start and end of one chunk's bytes, and the events of the stream up to it."""
        with SegmentedFile(self._arrivals.directory) as file:
            record = file.read(chunk * ARRIVAL.itemsize, ARRIVAL.itemsize)
        if len(record) < ARRIVAL.itemsize:
            raise StreamDamaged(f"{self.reference}: the arrival record of chunk {chunk} is not there")
        offset, size, _, events, _, _, _ = _ARRIVAL.unpack(record)
        return offset, offset + size, events

    def _end_of(self, chunks: int) -> tuple[int, int]:
        """The end of the first `chunks` chunks, in bytes and in events."""
        return self._arrival(chunks - 1)[1:] if chunks else (0, 0)

    def _check_chain(self, size: int, chunks: int) -> int:
        """Check that the last committed arrival record ends at `size`, and follows the one before it.

        Gives the count of events. Raises StreamDamaged.
        """
        if chunks == 0 and size == 0:
            return 0
        begin, end, events = self._arrival(chunks - 1) if chunks else (0, 0, 0)
        before, events_before = begin, 0
        if (chunks - 1) * ARRIVAL.itemsize > self._arrivals.start + ARRIVAL.itemsize:
            _, before, events_before = self._arrival(chunks - 2)
        if end != size or begin != before or events < events_before:
            raise StreamDamaged(
                f"{self.reference}: {size} bytes in {chunks} chunks were committed, and the arrival records "
                f"say that chunk {chunks - 1} has bytes {begin} to {end}, behind {before}. Nothing was "
                f"changed; `windvane verify {self.reference}` shows what is damaged"
            )
        return events
