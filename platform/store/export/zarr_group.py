"""Zarr v3: a group with the array `time` and an array for each column, in chunks of one block of rows.

`time` has the attributes of the CF conventions (int64, nanoseconds since 1970-01-01), so that xarray decodes
it as a coordinate. The attributes of the group describe the array; a unit is the attribute `units` of its
array. zarr-python encodes chunks and metadata; where they go is the caller's matter: files of a directory, or
members of a zip file, which zarr-python opens too.
"""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .column_names import distinct_names
from .rows_to_export import RowsToExport, imported, unsupported

TIME_ARRAY = "time"
_NUMBERS = "biufc"

Put = Callable[[str, bytes], object]
"""Stores an entry of the group: its key, as in `time/c/0`, and its bytes."""


def zarr_names(export: RowsToExport) -> dict[str, str]:
    """The names of the arrays next to `time`, each with the column's own: a slash would begin a group."""
    own = [column.name for column in export.columns]
    plain = [name.replace("/", "_").lstrip(".").removeprefix("__") for name in own]
    return dict(zip(distinct_names(TIME_ARRAY, plain), own, strict=True))


def write_zarr_zip(export: RowsToExport, output: BinaryIO) -> Iterator[int]:
    """Write the group as an uncompressed zip file; yields the count of rows of each block."""
    with zipfile.ZipFile(output, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        yield from _write(export, archive.writestr)


def write_zarr_directory(export: RowsToExport, directory: Path) -> Iterator[int]:
    """Write the group into the empty `directory`; yields the count of rows of each block."""

    def put(key: str, data: bytes) -> None:
        file = directory / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    yield from _write(export, put)


def _write(export: RowsToExport, put: Put) -> Iterator[int]:
    entries: dict[str, Any] = {}
    arrays = _arrays(export, entries)
    at = 0
    for rows, times_ns in export.blocks():
        values = [times_ns, *(column.of(rows) for column in export.columns)]
        for array, part in zip(arrays, values, strict=True):
            array[at : at + len(rows)] = part
        at += len(rows)
        _move(entries, put, metadata=False)
        yield len(rows)
    _move(entries, put, metadata=True)


def _arrays(export: RowsToExport, entries: dict[str, Any]) -> list[Any]:
    """The empty arrays of the group, `time` first, whose entries appear in `entries`."""
    zarr = imported("zarr", format="Zarr", extra="zarr")
    for column in export.columns:
        if column.dtype.kind not in _NUMBERS:
            raise unsupported(column, format="Zarr", alternative=".parquet or .npy")
    store = zarr.storage.MemoryStore(entries)
    group = zarr.create_group(store, attributes=export.described(), zarr_format=3)
    count, chunk = len(export.rows), min(export.block_rows, max(1, len(export.rows)))

    def array(name: str, dtype: Any, shape: tuple[int, ...], attributes: dict[str, Any]) -> Any:
        return group.create_array(
            name,
            shape=(count, *shape),
            chunks=(chunk, *shape),
            dtype=dtype,
            dimension_names=(TIME_ARRAY, *(f"{name}_axis_{axis}" for axis in range(1, len(shape) + 1))),
            attributes=attributes,
        )

    of_times = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian", "timezone": "UTC"}
    arrays = [array(TIME_ARRAY, "int64", (), of_times)]
    for name, column in zip(zarr_names(export), export.columns, strict=True):
        unit = export.unit_of(column)
        attributes = {"units": unit} if unit else {}
        arrays.append(array(name, column.dtype.newbyteorder("="), column.shape, attributes))
    return arrays


def _move(entries: dict[str, Any], put: Put, *, metadata: bool) -> None:
    for key in list(entries):
        if metadata or not key.endswith("zarr.json"):
            put(key, entries.pop(key).to_bytes())
