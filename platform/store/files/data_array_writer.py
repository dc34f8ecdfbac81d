"""Writes a data array."""

from __future__ import annotations

import glob
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ...errors import StreamDamaged
from ..databases.checkpoint_records import OutputLength
from ..interface.writers import ArrayWriter
from .checksums import ChecksumWriter
from .data_array import TIME
from .description import as_json, dtype_to_json, read_description, sync_description, write_description
from .preallocated_writer import PreallocatedWriter
from .replaced_arrays import set_aside
from .resumption import no_checkpoint, older_checkpoint
from .rows import row_bytes
from .sealing import Sealing
from .segment_sizes import rows_per_segment
from .segmented_file import SegmentedFile
from .segmented_writer import SegmentedWriter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


class DataArrayWriter(ArrayWriter):
    """The one writer of a data array (the format is described at `DataArray`).

    Opening changes nothing. `resume` passes how many rows are committed and cuts off later rows; then rows
    can be appended. An array's dtype, row shape and attrs never change: if the directory holds one that
    differs, `resume` sets it aside, renamed to `…~1` (`~2`, …), still readable as such, and a new one with
    a new uid begins.

    Errors and threads as with `SegmentedWriter`.
    """

    def __init__(
        self,
        directory: Path,
        reference: str,
        *,
        dtype: np.dtype[Any],
        row_shape: tuple[int, ...],
        attrs: Mapping[str, Any],
        rate_hz: float = 0.0,
        segment_bytes: int | None = None,
        zarr_root: Path | None = None,
        uid: bytes | None = None,
    ) -> None:
        """Open the array, or make it; `rate_hz`, `segment_bytes` (see `rows_per_segment`) and `uid` (random
        by default) are for a new one. An array of format 1 is continued in that format. Directories up to
        `zarr_root` become Zarr groups.

        Raises StoreLocked while another writer has it, StreamDamaged if its files contradict each other,
        ValueError for a dtype, a row shape or attrs that cannot be stored.
        """
        self.reference = reference
        self.directory = directory
        self.dtype = np.dtype(dtype)
        self.row_shape = tuple(row_shape)
        self._row_bytes = row_bytes(self.dtype, self.row_shape)
        self._new_segment_bytes = [
            rows_per_segment(width, rate_hz=rate_hz, segment_bytes=segment_bytes) * width
            for width in (self._row_bytes, TIME.itemsize)
        ]
        self._zarr_root = zarr_root or directory
        self._new_uid = uid
        # The kinds of which NumPy gives a buffer.
        self._is_plain = self.dtype.kind in "biufc"
        self._wanted = as_json(
            {"dtype": dtype_to_json(self.dtype), "row_shape": self.row_shape, "attrs": dict(attrs)}
        )
        self.attrs: Mapping[str, Any] = MappingProxyType(self._wanted["attrs"])
        self._closed = False
        self._open()

    def _open(self) -> None:
        self._rows = SegmentedWriter(
            self.directory / "rows",
            segment_bytes=self._new_segment_bytes[0],
            dimensions=1 + len(self.row_shape),
            uid=self._new_uid,
        )
        try:
            self._times = PreallocatedWriter(
                self.directory / "times",
                segment_bytes=self._new_segment_bytes[1],
                dimensions=1,
            )
        except BaseException:
            self._rows.close()
            raise
        self.uid = self._rows.uid
        self._checksums: ChecksumWriter | None = None
        self._sealing: Sealing | None = None

    def resume(self, committed: OutputLength | None, *, database_id: bytes) -> Self:
        """Resume at the committed end of the array; later rows are recomputed.

        As `DataStreamWriter.resume`. An array with another dtype, row shape or attrs is set aside first, so
        `uid` may change. Raises StreamDamaged, and CheckpointMissing; then the files are as they were.
        """
        found = read_description(self.directory)
        files = (self._rows, self._times)
        for file in files:
            if file.lacks_head and committed is not None and not self._is_set_aside(committed.uid):
                file.require_head()
        is_torn = any(file.lacks_head for file in files)
        is_empty = not is_torn and not any(file.length for file in files)
        is_marked = any(file.committed for file in files)
        if found is None and not is_empty:
            if committed is not None and committed.uid == self.uid:
                raise StreamDamaged(
                    f"{self.directory}/meta.json is missing or unreadable, and {committed.length} rows were "
                    "committed. Nothing was changed; put it back from a copy, or make the array again with "
                    f"`windvane recover rebuild {self.reference.partition(':')[0]}`"
                )
            if is_marked:
                raise no_checkpoint(
                    self.reference, f"{self.length} rows without a meta.json", other=committed is not None
                )
        is_ours = found is None or found.get("database_id") == database_id.hex()
        if is_torn and (is_marked or not is_ours):
            raise no_checkpoint(self.reference, "rows in a file without a head", other=committed is not None)
        if is_torn or (not _describes(found, self._wanted) and (found is not None or not is_empty)):
            self._begin_another()
            found = None
        elif committed is not None and committed.uid == self.uid:
            self._resume_at(committed.length)
            self._describe(found, database_id)
            return self
        elif not is_empty:
            if is_marked or not is_ours:
                raise no_checkpoint(self.reference, f"{self.length} rows", other=committed is not None)
        elif committed is not None and committed.length and not self._is_set_aside(committed.uid):
            raise StreamDamaged(
                f"{self.reference}: {committed.length} rows were committed, and {self.directory} holds none "
                "of them (it was removed, or moved?). Put it back, or make the array again from the stream "
                f"with `windvane recover rebuild {self.reference.partition(':')[0]}`"
            )
        self._resume_at(0)
        self._describe(found, database_id)
        return self

    def roll_back(self, committed: OutputLength, *, database_id: bytes) -> Self:
        """As `DataStreamWriter.roll_back`."""
        for file in (self._rows, self._times):
            file.mark_committed(0)
        self.resume(committed, database_id=database_id)
        self.mark_committed(committed)
        return self

    def start_over(self, *, database_id: bytes) -> Self:
        """Set aside the present array, if there is one, and continue with an empty array."""
        if any(file.length or file.lacks_head for file in (self._rows, self._times)):
            self._begin_another()
        return self.resume(None, database_id=database_id)

    @property
    def found(self) -> OutputLength:
        """How many rows the array has now; before `resume`, how many were found."""
        return OutputLength(
            self.uid, min(self._rows.length // self._row_bytes, self._times.length // TIME.itemsize)
        )

    @property
    def committed(self) -> int:
        """Rows that a checkpoint is known to cover; 0 if none is known."""
        return min(self._rows.committed // self._row_bytes, self._times.committed // TIME.itemsize)

    def snapshot(self) -> OutputLength:
        """The present length, for a checkpoint."""
        if self._checksums is not None:
            self._checksums.snapshot()
        return OutputLength(self.uid, self.length)

    def mark_committed(self, length: OutputLength) -> None:
        """Remember, after the commit of `length`, that a checkpoint covers it; see `DataStreamWriter`.

        Writes the checksums up to there and seals whole segments. Raises StoreFailed if the disk fails.
        """
        if length.uid == self.uid and not self._closed:
            self._rows.mark_committed(length.length * self._row_bytes)
            self._times.mark_committed(length.length * TIME.itemsize)
            if self._checksums is not None and self._sealing is not None:
                self._checksums.commit(length.length)
                self._sealing.commit(length.length)

    def _resume_at(self, rows: int) -> None:
        marked = self._rows.committed // self._row_bytes
        if rows < marked:
            raise older_checkpoint(self.reference, f"it covers {rows} rows, and {marked} rows were committed")
        self._rows.check_held(rows * self._row_bytes)
        self._times.check_held(rows * TIME.itemsize)
        self._rows.resume(rows * self._row_bytes)
        self._times.resume(rows * TIME.itemsize)
        if self._rows.version == 1:
            return
        self._checksums = ChecksumWriter(
            self.directory / "checksums", self._rows, self._times, row_bytes=self._row_bytes + TIME.itemsize
        )
        self._resume_checksums()
        self._sealing = Sealing(
            self.directory,
            (self._rows, self._times),
            root=self._zarr_root,
            dtype=self.dtype,
            row_shape=self.row_shape,
            attrs=self.attrs,
            row_bytes=self._row_bytes,
        )
        self._sealing.resume(rows)

    def _resume_checksums(self) -> None:
        if self._checksums is not None:
            start = max(-(-self._rows.start // self._row_bytes), -(-self._times.start // TIME.itemsize))
            self._checksums.resume(start, self.length, self._read)

    def _read(self, first: int, end: int) -> tuple[bytes, bytes]:
        with SegmentedFile(self._rows.directory) as rows, SegmentedFile(self._times.directory) as times:
            return (
                rows.read(first * self._row_bytes, (end - first) * self._row_bytes),
                times.read(first * TIME.itemsize, (end - first) * TIME.itemsize),
            )

    def _describe(self, found: Mapping[str, Any] | None, database_id: bytes) -> None:
        description = {**self._wanted, "uid": self.uid.hex(), "database_id": database_id.hex()}
        if found != description:
            write_description(self.directory, description)

    def _begin_another(self) -> None:
        # Renamed while it is locked, so that no other writer can have it open.
        set_aside(self.directory, by="layout")
        self._rows.close()
        self._times.close()
        self._new_uid = None
        self._open()

    def _is_set_aside(self, uid: bytes) -> bool:
        """Whether the array of this uid is next to this one, renamed."""
        for other in self.directory.parent.glob(f"{glob.escape(self.directory.name)}~*"):
            found = read_description(other)
            if found is not None and found.get("uid") == uid.hex():
                return True
        return False

    @property
    def length(self) -> int:
        """Count of rows ever appended: the number of the next row."""
        return self._rows.length // self._row_bytes

    def append(self, rows: NDArray[Any], times_ns: NDArray[np.int64]) -> int:
        """Append rows, shape (n, *row_shape), with their event times, shape (n,); give the first one's
        number.

        Readers see all of them on return. Raises ValueError if dtype or shape differ from the array's.
        """
        if rows.dtype != self.dtype or rows.shape[1:] != self.row_shape or rows.ndim == 0:
            raise ValueError(
                f"{self.reference} takes rows of {self.dtype} {self.row_shape}, "
                f"not of {rows.dtype} {rows.shape[1:]}"
            )
        count = len(rows)
        if times_ns.dtype != TIME or times_ns.shape != (count,):
            raise ValueError(
                f"{self.reference}: {count} rows need times of int64 ({count},), "
                f"not {times_ns.dtype} {times_ns.shape}"
            )
        if not self._is_plain or not rows.flags.c_contiguous:
            # As bytes, since NumPy gives no buffer of dates.
            rows = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
        times_ns = np.ascontiguousarray(times_ns)
        self._times.append(times_ns.data)
        first = self._rows.append(rows.data) // self._row_bytes
        if self._checksums is not None:
            self._checksums.extend(rows, times_ns, count)
        return first

    def cut(self, rows: int) -> None:
        """Make the array end after `rows` rows; the next append begins there. Raises as
        `SegmentedWriter.cut`.
        """
        if self._sealing is not None:
            self._sealing.cut(rows)
        self._rows.cut(rows * self._row_bytes)
        self._times.cut(rows * TIME.itemsize)
        self._resume_checksums()

    def drop_before(self, row: int) -> None:
        """Drop rows before `row`, as far as they fill whole segments, and free their space."""
        self._rows.drop_before(row * self._row_bytes)
        self._times.drop_before(row * TIME.itemsize)
        if self._sealing is not None:
            self._sealing.drop()

    def flush(self) -> None:
        """Make all rows durable; `Store.sync` does it for a whole store at once."""
        sync_description(self.directory)
        self._times.flush()
        self._rows.flush()

    def close(self) -> None:
        """Close the files and release their locks. Does not sync."""
        self._closed = True
        self._rows.close()
        self._times.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _describes(found: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    return found is not None and {name: found.get(name) for name in wanted} == dict(wanted)
