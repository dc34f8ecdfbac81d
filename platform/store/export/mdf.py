"""MDF4 (ASAM MDF 4.10), by asammdf: one channel group, a channel for each number of a row.

The master channel is seconds since the start of the measurement, which is the time of the first row in ns.
Its float64 is exact to the nanosecond for 104 days; the channel `time_ns` has every time exactly. The
header's comment is the array's description as JSON.

asammdf builds the file on the disk, so it is written to a temporary directory, and copied from there.
"""

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...errors import ExportFailed
from .column_names import distinct_names, element_names
from .rows_to_export import BLOCK_BYTES, RowsToExport, imported, unsupported

TIME_CHANNEL = "time_ns"
_MASTER = "time"
MAX_CHANNELS = 4096
"""Readers list channels one by one: a spectrum of more lines than this belongs into another format."""


def mdf_names(export: RowsToExport) -> dict[str, str]:
    """The names of the channels after `time_ns`, each with the array's own."""
    own = [name for column in export.columns for name in element_names(column)]
    return dict(zip(distinct_names(TIME_CHANNEL, [_MASTER, *own])[1:], own, strict=True))


def write_mdf(export: RowsToExport, output: BinaryIO) -> Iterator[int]:
    """Write the file; yields the count of rows of each block, and then the file is copied to `output`."""
    asammdf = imported("asammdf", format="MDF4", extra="mdf")
    _check(export)
    with tempfile.TemporaryDirectory(prefix="windvane-export-") as folder:
        file = Path(folder) / "export.mf4"
        with asammdf.MDF(version="4.10", temporary_folder=folder) as mdf:
            first_ns = int(export.source.times_ns[export.rows.start]) if export.rows else 0
            # The attribute that counts is abs_time; start_time has microseconds.
            mdf.header.start_time = datetime.fromtimestamp(first_ns // 1_000_000_000, UTC)
            mdf.header.abs_time = first_ns
            mdf.header.description = export.described_as_json()
            yield from _channels(export, mdf, asammdf.Signal, first_ns)
            mdf.save(file, overwrite=True)
        with file.open("rb") as written:
            while block := written.read(BLOCK_BYTES):
                output.write(block)
                yield 0


def _check(export: RowsToExport) -> None:
    for column in export.columns:
        if column.dtype.kind not in "biuf" or column.dtype.itemsize > 8:
            raise unsupported(column, format="MDF4", alternative=".parquet or .npy")
    channels = len(mdf_names(export))
    if channels > MAX_CHANNELS:
        raise ExportFailed(
            f"a row of {export.source.reference} has {channels:,} numbers, and an MDF4 file can have "
            f"{MAX_CHANNELS:,} channels here; export it as .zarr or .parquet"
        )


def _channels(export: RowsToExport, mdf: Any, signal: Any, first_ns: int) -> Iterator[int]:
    names = [TIME_CHANNEL, *mdf_names(export)]
    units = ["ns", *(export.unit_of(column) for column in export.columns for _ in element_names(column))]
    group: int | None = None
    blocks = export.blocks() if export.rows else iter([_no_rows(export)])
    for rows, times_ns in blocks:
        seconds = (times_ns - first_ns) / 1e9
        channels = [times_ns, *_numbers(export, rows)]
        if group is None:
            signals = [
                signal(samples, seconds, name=name, unit=unit)
                for samples, name, unit in zip(channels, names, units, strict=True)
            ]
            group = mdf.append(signals, common_timebase=True)
        else:
            mdf.extend(group, [(samples, None) for samples in (seconds, *channels)])
        yield len(rows)


def _no_rows(export: RowsToExport) -> tuple[NDArray[Any], NDArray[np.int64]]:
    return np.empty((0, *export.source.row_shape), export.source.dtype), np.empty(0, np.int64)


def _numbers(export: RowsToExport, rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for column in export.columns:
        for samples in column.of(rows).reshape(len(rows), -1).T:
            yield np.ascontiguousarray(samples).astype("u1" if samples.dtype == bool else samples.dtype)
