"""Scrubbing of data arrays: lengths, times and checksums. Only reads; a worker may be running."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..files.checksums import read_extents, tail_extent
from ..files.description import dtype_from_json, read_description
from ..files.rows import row_bytes
from .scrub import RECORDS_A_READ, Committed, Damage, latest_checkpoint
from .stored_segments import StoredSegments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_TIME_BYTES = 8


class ArrayScrub:
    """The check of one data array; `committed` and `reread` are as for `StreamScrub`.

    Rows of format 1 have no checksums: of those only the lengths and the times are checked.
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
        stream = reference.partition(":")[0]
        self._rebuild = f"windvane recover rebuild {stream}"
        self._adopt = f"windvane recover adopt {stream}"
        self.description = read_description(directory)
        # Rows last: they are written last.
        self.times, self.rows = StoredSegments(directory / "times"), StoredSegments(directory / "rows")
        self._later = latest_checkpoint(committed, reread)
        self._width = 0
        self._unusable: str | None = None
        try:
            if self.description is None:
                raise ValueError("it is missing or unreadable")
            dtype, row_shape = self.description["dtype"], self.description["row_shape"]
            self._width = row_bytes(dtype_from_json(dtype), tuple(row_shape))
        except (KeyError, TypeError, ValueError) as error:
            self._unusable = f"the description cannot be used ({error}): readers do not find the array"
        length = committed.length
        self._is_covered = length is not None and self.rows.uid == length.uid
        self.count = 0
        """Rows that must be there."""
        if length is not None and self._is_covered:
            self.count = length.length
        elif self._width and not self._is_new:
            self.count = min(self.rows.length // self._width, self.times.length // _TIME_BYTES)

    @property
    def _is_new(self) -> bool:
        """Whether its first commit was after its heads were read."""
        later = self._later.length
        return not self._is_covered and later is not None and self.rows.uid == later.uid

    @property
    def total_bytes(self) -> int:
        """The bytes to read."""
        return max(0, self.count * (self._width + _TIME_BYTES) - self.rows.start - self.times.start)

    def damages(self, done: Callable[[int], object] = lambda _: None) -> Iterator[Damage]:
        """Read all of it; `done` receives the bytes read so far."""
        yield from self.stops()
        if self._unusable is not None:
            return
        if self.rows.version == 2 and self.rows.problem is None and self.times.problem is None:
            yield from self._wrong_extents(done)
        yield from self._zero_times()
        done(self.total_bytes)

    def stops(self) -> Iterator[Damage]:
        """Damage of heads, description, and lengths; reads no rows."""
        for file in (self.rows, self.times):
            if file.problem is not None:
                yield self._damage("head", file.directory / "head", 0, file.problem)
        meta = self.directory / "meta.json"
        if self._unusable is not None or self.description is None:
            yield self._damage("description", meta, 0, str(self._unusable))
            return
        if self.rows.problem is None and self.description.get("uid") != self.rows.uid.hex():
            uids = f"the description is of {self.description.get('uid')}, the head of {self.rows.uid.hex()}"
            yield self._damage("description", meta, 0, uids)
        is_former = "~" in self.reference
        is_marked = bool(self.rows.length and self.rows.committed)
        if (
            self.committed.is_known
            and not self._is_covered
            and not self._is_new
            and not is_former
            and is_marked
        ):
            missing = f"no checkpoint covers its {self.count} rows: the stream stops"
            head = self.rows.directory / "head"
            yield Damage("no-checkpoint", head, 0, self.reference, missing, self._adopt)
        yield from self._missing(self.rows, self._width, "rows")
        yield from self._missing(self.times, _TIME_BYTES, "times")

    def _missing(self, file: StoredSegments, item: int, what: str) -> Iterator[Damage]:
        if file.problem is None and file.length < self.count * item:
            missing = f"the head says {file.length // item} {what}, and {self.count} were committed"
            yield self._damage("head", file.directory / "head", 24, missing)
        for hole in file.holes(self.count * item):
            first, last = hole.start // item, -(-hole.stop // item) - 1
            missing = f"{hole.reason}: {what} {first} to {last} are missing"
            yield self._damage("segment", hole.path, hole.at, missing)

    def _wrong_extents(self, done: Callable[[int], object]) -> Iterator[Damage]:
        """Extents that do not have their checksums; missing bytes are reported elsewhere."""
        extents = read_extents(self.directory / "checksums")
        tail = tail_extent(extents[-1].end if extents else 0, self.rows.tail, self.times.tail)
        kept_from = max(-(-self.rows.start // self._width), -(-self.times.start // _TIME_BYTES))
        for extent in extents if tail is None else [*extents, tail]:
            if extent.first < kept_from or extent.end > self.count:
                continue
            for file, item, expected, what in (
                (self.rows, self._width, extent.rows_crc32c, "rows"),
                (self.times, _TIME_BYTES, extent.times_crc32c, "times"),
            ):
                start, size = extent.first * item, (extent.end - extent.first) * item
                checksum = file.crc32c(start, size)
                if checksum is not None and checksum != expected:
                    path, at = file.place(start)
                    wrong = f"{what} of rows {extent.first} to {extent.end - 1} do not have their checksum"
                    yield self._damage(what, path, at, wrong)
            done((extent.end - kept_from) * (self._width + _TIME_BYTES))

    def _zero_times(self) -> Iterator[Damage]:
        """Rows whose time is 0 between others: zeros left by a power failure or a disk."""
        first = -(-self.times.start // _TIME_BYTES)
        for start in range(first, self.count, RECORDS_A_READ):
            size = min(RECORDS_A_READ, self.count - start) * _TIME_BYTES
            raw = self.times.read(start * _TIME_BYTES, size)
            values = np.frombuffer(raw, np.int64, len(raw) // _TIME_BYTES)
            zeros = np.flatnonzero(values == 0)
            if (len(zeros) and (values != 0).any()) or len(zeros) > 1:
                row = start + int(zeros[0])
                file, at = self.times.place(row * _TIME_BYTES)
                yield self._damage("times", file, at, f"{len(zeros)} rows from row {row} on have the time 0")

    def _damage(self, code: str, file: Path, offset: int, missing: str) -> Damage:
        return Damage(code, file, offset, self.reference, missing, self._rebuild)
