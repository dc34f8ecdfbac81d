"""Scrubbing: finds damaged or missing parts of a data stream by reading all of it.

Only reads; a worker may be running. A data stream's bytes are checked against the CRC32C of their arrival
records, and these against each other. Event times and the other words of an arrival record have no checksum:
their lengths are checked, and impossible values (decreasing times, records of zeros). `array_scrub` does the
same for data arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..files.description import read_description
from ..interface.arrivals import ARRIVAL, EVENT
from .stored_segments import StoredSegments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ..databases.checkpoint_records import OutputLength

RECORDS_A_READ = 65_536


@dataclass(frozen=True, slots=True)
class Damage:
    """One damaged or missing part.

    `code` is its kind: head, segment, bytes, arrivals, events, description, rows, times, no-checkpoint,
    database, log. `offset` counts bytes in `file`; `missing` is what is lost or unreliable, `remedy` the
    command that repairs it.
    """

    code: str
    file: Path
    offset: int
    reference: str
    missing: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Committed:
    """The committed length of one output by the checkpoint database; None without a checkpoint.

    `is_known` is False if the database cannot be read.
    """

    length: OutputLength | None
    database_id: bytes
    is_known: bool = True


def latest_checkpoint(committed: Committed, reread: Callable[[], Committed] | None) -> Committed:
    """The current checkpoint; the previous one if it cannot be read now."""
    if reread is None or not committed.is_known:
        return committed
    later = reread()
    return later if later.is_known else committed


class StreamScrub:
    """The check of one data stream; `damages` does it, `records` has the arrival records to repair.

    A worker may commit meanwhile. It lengthens the files, commits, and then marks the heads. So `committed`
    must have been read before, and `reread` reads it again after the heads: a head and a checkpoint disagree
    only if the head disagrees with both.
    """

    def __init__(
        self,
        directory: Path,
        reference: str,
        committed: Committed,
        reread: Callable[[], Committed] | None = None,
    ) -> None:
        self.directory = directory
        self.reference = reference
        self.committed = committed
        self.description = read_description(directory)
        # The bytes last: they are written first.
        self.events = StoredSegments(directory / "events") if (directory / "events").exists() else None
        self.arrivals = StoredSegments(directory / "arrivals")
        self.bytes = StoredSegments(directory / "bytes")
        self.later = latest_checkpoint(committed, reread)
        length = committed.length
        self.is_covered = self._covers(committed)
        if length is not None and self.is_covered:
            self.size, self.chunks = length.length, length.chunks
        elif self._covers(self.later):
            self.is_covered, self.size, self.chunks = True, 0, 0  # its first commit was after the read
        else:
            self.chunks = self.arrivals.length // ARRIVAL.itemsize
            self.size = self._end_of_last()
        self.bad_records: list[tuple[int, int]] = []
        """Chunks [first, stop) whose arrival records are damaged."""

    @property
    def uid(self) -> bytes:
        """As in the head, or else in the description."""
        if self.bytes.uid:
            return self.bytes.uid
        return bytes.fromhex(str((self.description or {}).get("uid", "")))

    def _covers(self, committed: Committed) -> bool:
        length = committed.length
        return length is not None and (self.uid == length.uid or self.bytes.problem is not None)

    @property
    def total_bytes(self) -> int:
        """The bytes to read."""
        return max(0, self.size - self.bytes.start)

    def damages(self, done: Callable[[int], object] = lambda _: None) -> Iterator[Damage]:
        """Read all of it; `done` receives the bytes read so far."""
        yield from self.stops()
        yield from self._chunks(done)
        yield from self._events()

    def stops(self) -> Iterator[Damage]:
        """Damage that stops the stream: heads, description, checkpoint, sizes; reads no bytes."""
        verify = f"windvane verify --repair {self.reference}"
        for file in (self.bytes, self.arrivals, self.events):
            if file is not None and file.problem is not None:
                yield self._damage("head", file.directory / "head", 0, file.problem, verify)
        if self.description is None:
            missing = "the description is missing or unreadable: readers do not find the stream"
            yield self._damage("description", self.directory / "meta.json", 0, missing, verify)
        elif self.bytes.uid and self.description.get("uid") != self.bytes.uid.hex():
            missing = f"its uid is {self.description.get('uid')}, that of the head {self.bytes.uid.hex()}"
            yield self._damage("description", self.directory / "meta.json", 0, missing, verify)
        yield from self._checkpoint()
        yield from self._holes(self.bytes, self.size, "segment", "bytes")
        yield from self._holes(
            self.arrivals, self.chunks * ARRIVAL.itemsize, "segment", "arrival records, bytes"
        )

    def _checkpoint(self) -> Iterator[Damage]:
        if not self.committed.is_known or not (self.bytes.length or self.arrivals.length):
            return
        head = self.directory / "bytes" / "head"
        adopt = f"windvane recover adopt {self.reference}"
        if not self.is_covered:
            was_ours = (self.description or {}).get("database_id") == self.committed.database_id.hex()
            if self.bytes.committed or self.arrivals.committed or not was_ours:
                missing = f"no checkpoint covers its {self.bytes.length} bytes: the stream stops"
                yield self._damage("no-checkpoint", head, 0, missing, adopt)
        elif self.bytes.problem is None and self.bytes.committed > (covered := self._covered_bytes()):
            missing = f"the checkpoint covers {covered} bytes, and {self.bytes.committed} were committed"
            yield self._damage("no-checkpoint", head, 56, missing, adopt)
        if self.is_covered and self.bytes.problem is None and self.bytes.length < self.size:
            missing = f"the head says {self.bytes.length} bytes, and {self.size} were committed"
            yield self._damage("head", head, 24, missing, f"windvane verify --repair {self.reference}")

        records = self.chunks * ARRIVAL.itemsize
        if self.is_covered and self.arrivals.problem is None and self.arrivals.length < records:
            missing = (
                f"the head says {self.arrivals.length} bytes of arrival records, and {records} were committed"
            )
            remedy = f"windvane verify --repair {self.reference}"
            yield self._damage("head", self.directory / "arrivals" / "head", 24, missing, remedy)

    def _covered_bytes(self) -> int:
        """As in the latest checkpoint."""
        later = self.later.length
        return max(self.size, later.length) if later is not None and self._covers(self.later) else self.size

    def _holes(self, file: StoredSegments, stop: int, code: str, what: str) -> Iterator[Damage]:
        for hole in file.holes(stop):
            missing = f"{hole.reason}: {what} {hole.start} to {hole.stop} are missing"
            yield self._damage(
                code, hole.path, hole.at, missing, f"windvane verify --repair {self.reference}"
            )

    def _end_of_last(self) -> int:
        """The end of the last plausible arrival record."""
        for chunk in range(self.chunks - 1, max(self.chunks - 1000, -1), -1):
            record = np.frombuffer(self._record(chunk), ARRIVAL)
            if len(record) and record.tobytes() != bytes(ARRIVAL.itemsize):
                end = int(record[0]["offset"]) + int(record[0]["size"])
                if end <= self.bytes.length:
                    return end
        return self.bytes.length if self.chunks else 0

    def _record(self, chunk: int) -> bytes:
        read = self.arrivals.read(chunk * ARRIVAL.itemsize, ARRIVAL.itemsize)
        return read if len(read) == ARRIVAL.itemsize else b""

    def _chunks(self, done: Callable[[int], object]) -> Iterator[Damage]:
        first = -(-self.arrivals.start // ARRIVAL.itemsize)
        expected: int | None = None if self.arrivals.start else 0
        bad_from: int | None = None
        wrong: tuple[int, int, int, int] | None = None
        events = 0
        for chunk, record, next_offset in self._records(first):
            offset, size, total = int(record["offset"]), int(record["size"]), int(record["events_total"])
            end = offset + size
            follows = expected is None or offset == expected
            leads = end == next_offset
            in_file = offset <= end <= self.size and record.tobytes() != bytes(ARRIVAL.itemsize)
            dropped = offset < self.bytes.start
            checksum = self.bytes.crc32c(offset, size) if in_file and not dropped else None
            matches = dropped or checksum == int(record["crc32c"])
            is_whole = (
                in_file and total >= events and ((follows and leads) or (matches and (leads or follows)))
            )
            if not is_whole:
                bad_from = chunk if bad_from is None else bad_from
                expected = None
                continue
            if bad_from is not None:
                yield self._bad_records(bad_from, chunk)
                bad_from = None
            if not matches and checksum is not None:
                if wrong is not None and wrong[1] == chunk:
                    wrong = (wrong[0], chunk + 1, wrong[2], end)
                else:
                    if wrong is not None:
                        yield self._wrong_bytes(*wrong)
                    wrong = (chunk, chunk + 1, offset, end)
            expected, events = end, total
            done(end - self.bytes.start)
        if bad_from is not None:
            yield self._bad_records(bad_from, self.chunks)
        if wrong is not None:
            yield self._wrong_bytes(*wrong)

    def _wrong_bytes(self, first: int, stop: int, start: int, end: int) -> Damage:
        file, at = self.bytes.place(start)
        which = f"chunk {first}" if stop == first + 1 else f"chunks {first} to {stop - 1}"
        missing = f"{which}: bytes {start} to {end} do not have the checksums of their arrival"
        return self._damage("bytes", file, at, missing, self._rebuild)

    @property
    def _rebuild(self) -> str:
        return f"windvane recover rebuild {self.reference}, if the bus still has it"

    def _records(self, first: int) -> Iterator[tuple[int, np.void, int]]:
        """The existing arrival records, each with the offset that the next one should have."""
        for start in range(first, self.chunks, RECORDS_A_READ):
            stop = min(start + RECORDS_A_READ, self.chunks)
            raw = self.arrivals.read(start * ARRIVAL.itemsize, (stop - start + 1) * ARRIVAL.itemsize)
            raw = raw.ljust((stop - start) * ARRIVAL.itemsize, b"\0")
            records = np.frombuffer(raw, ARRIVAL, len(raw) // ARRIVAL.itemsize)
            for number in range(stop - start):
                is_last = start + number + 1 == self.chunks
                following = (
                    self.size if is_last or number + 1 >= len(records) else int(records[number + 1]["offset"])
                )
                yield start + number, records[number], following

    def _bad_records(self, first: int, stop: int) -> Damage:
        self.bad_records.append((first, stop))
        file, at = self.arrivals.place(first * ARRIVAL.itemsize)
        which = f"of chunk {first}" if stop == first + 1 else f"of chunks {first} to {stop - 1}"
        missing = f"the arrival record {which} is damaged: ids, times and checksums of {stop - first} chunks"
        return self._damage("arrivals", file, at, missing, f"windvane verify --repair {self.reference}")

    def _events(self) -> Iterator[Damage]:
        verify = f"windvane verify --repair {self.reference}"
        if self.bytes.committed > self.size:
            return  # the checkpoint is older, so its lengths mean nothing
        attrs = (self.description or {}).get("attrs") or {}
        if self.events is None:
            if attrs.get("format") == "raw" and self.size:
                missing = "the times of all events are missing"
                yield self._damage("events", self.directory / "events" / "head", 0, missing, verify)
            return
        stop = self.events.committed or self._committed_events()
        yield from self._holes(self.events, stop, "events", "times of events, bytes")
        for first, last in self.bad_events(stop):
            file, at = self.events.place(first * EVENT.itemsize)
            missing = f"the times of events {first} to {last - 1} are damaged"
            yield self._damage("events", file, at, missing, verify)

    def _committed_events(self) -> int:
        """Committed size of the event records: to the end of the last one that ends in committed bytes."""
        assert self.events is not None
        if self.events.problem is not None or not self.is_covered:
            return self.events.length - self.events.length % EVENT.itemsize
        kept = self.events.length // EVENT.itemsize
        while kept > 0:
            first = max(0, kept - 4096)
            read = self.events.read(first * EVENT.itemsize, (kept - first) * EVENT.itemsize)
            ends = np.frombuffer(read, EVENT, len(read) // EVENT.itemsize)["end"]
            whole = np.flatnonzero((ends > 0) & (ends <= self.size))
            if len(whole):
                return (first + int(whole[-1]) + 1) * EVENT.itemsize
            kept = first
        return 0

    def bad_events(self, stop: int) -> Iterator[tuple[int, int]]:
        """Runs [first, stop) of impossible event records: an end that falls, is 0, or is past the stream."""
        assert self.events is not None
        before = 0
        bad_from: int | None = None
        start = -(-self.events.start // EVENT.itemsize)
        for first in range(start, stop // EVENT.itemsize, RECORDS_A_READ):
            count = min(RECORDS_A_READ, stop // EVENT.itemsize - first)
            raw = self.events.read(first * EVENT.itemsize, count * EVENT.itemsize)
            ends = np.frombuffer(raw, EVENT, len(raw) // EVENT.itemsize)["end"]
            is_rising = len(ends) > 0 and bool((np.diff(ends) >= 0).all())
            if bad_from is None and is_rising and max(before, 1) <= ends[0] and ends[-1] <= self.size:
                before = int(ends[-1])
                continue
            # An end is compared with all later ends: compared with the previous one alone, a flipped high bit
            # would make all later ends look wrong.
            lowest_after = np.minimum.accumulate(ends[::-1])[::-1] if len(ends) else ends
            for number, end in enumerate(ends.tolist()):
                after = int(lowest_after[number + 1]) if number + 1 < len(ends) else self.size
                is_good = 0 < end <= self.size and end >= before and (end <= after or after < before)
                if is_good:
                    if bad_from is not None:
                        yield bad_from, first + number
                        bad_from = None
                    before = end
                elif bad_from is None:
                    bad_from = first + number
        if bad_from is not None:
            yield bad_from, stop // EVENT.itemsize

    def _damage(self, code: str, file: Path, offset: int, missing: str, remedy: str) -> Damage:
        return Damage(code, file, offset, self.reference, missing, remedy)
