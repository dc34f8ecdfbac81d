"""Describes the sealed rows of a data array as a Zarr v3 array, so that other programs read them.

A segment of format 2 is byte for byte an uncompressed chunk. `zarr.json` in the array's directory and in
those above makes them groups; those in `rows` and `times` describe the arrays. `shape` counts sealed rows:
rows of whole segments that a checkpoint covers, or all committed rows if the tail was sealed on request (its
segment then has its full size on the disk, and the rest of it is a hole).

Source: Zarr core specification, version 3; dimension names and attributes as xarray reads them.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

NAME = "zarr.json"
_GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {}}
_TIME_ATTRIBUTES = {
    "standard_name": "time",
    "units": "nanoseconds since 1970-01-01T00:00:00+00:00",
    "calendar": "proleptic_gregorian",
}
_NAMED = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_FLOATS = ("float16", "float32", "float64")
_COMPLEX = ("complex64", "complex128")


def can_describe(dtype: np.dtype[Any]) -> bool:
    """Whether rows of this dtype have a data type in Zarr's core specification."""
    return dtype.name in (*_NAMED, *_FLOATS, *_COMPLEX)


def sealed_rows(directory: Path) -> int:
    """The number of rows that `directory/rows/zarr.json` describes; 0 without one that can be read."""
    try:
        shape = json.loads((directory / "rows" / NAME).read_bytes())["shape"]
        return int(shape[0])
    except (OSError, ValueError, LookupError, TypeError):
        return 0


@contextmanager
def locked_metadata(directory: Path) -> Iterator[None]:
    """Hold the lock under which the metadata of the array in `directory` is read and written."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_metadata(
    directory: Path,
    *,
    root: Path,
    dtype: np.dtype[Any],
    row_shape: tuple[int, ...],
    attrs: Mapping[str, Any],
    rows: int,
    first_row: int,
    segment_rows: tuple[int, int],
) -> None:
    """Describe the first `rows` rows; the caller has the lock. `segment_rows` are those of rows and times.

    Rows before `first_row` were dropped and read as the fill value: NaN, or 0 for integers. Raises OSError.
    A crash leaves the former description or this one; a power failure may leave an empty file, which the
    next writer writes again.
    """
    kept = {"first_row": first_row}
    unit = {"units": str(attrs["unit"])} if attrs.get("unit") else {}
    _write(
        directory / "times",
        _array(np.dtype(np.int64), (rows,), segment_rows[1], ["time"], {**_TIME_ATTRIBUTES, **kept}),
    )
    _write(
        directory / "rows",
        _array(
            dtype,
            (rows, *row_shape),
            segment_rows[0],
            ["time", *dimension_names(attrs, row_shape)],
            {**attrs, **unit, **kept, "coordinates": "times"},
        ),
    )
    for group in (directory, *directory.parents):
        if not (group / NAME).exists():
            _write(group, _GROUP)
        if group == root:
            break


def dimension_names(attrs: Mapping[str, Any], row_shape: tuple[int, ...]) -> list[str]:
    """Names of the axes after the first one, by the kind of the rows."""
    kind = attrs.get("kind")
    if kind == "spectra" and len(row_shape) in (1, 2):
        return ["channel", "frequency"][-len(row_shape) :]
    if len(row_shape) == 1 and attrs.get("columns"):
        return ["column"]
    if len(row_shape) == 1 and kind == "samples":
        return ["channel"]
    return [f"axis_{number}" for number in range(1, len(row_shape) + 1)]


def _array(
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    segment_rows: int,
    dimensions: list[str],
    attributes: Mapping[str, Any],
) -> Mapping[str, Any]:
    fill: Any = 0
    if dtype.name == "bool":
        fill = False
    elif dtype.name in _FLOATS:
        fill = "NaN"
    elif dtype.name in _COMPLEX:
        fill = ["NaN", "NaN"]
    endian = "big" if dtype.str.startswith(">") else "little"
    codec: dict[str, Any] = {"name": "bytes"}
    if dtype.itemsize > 1:
        codec["configuration"] = {"endian": endian}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [segment_rows, *shape[1:]]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": fill,
        "codecs": [codec],
        "attributes": dict(attributes),
        "dimension_names": dimensions,
    }


def _write(directory: Path, metadata: Mapping[str, Any]) -> None:
    # Groups are shared: another array, or another process, may describe the same one at this moment.
    draft = directory / f".{NAME}.{os.getpid()}.{threading.get_ident()}"
    draft.write_text(json.dumps(metadata, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(draft, directory / NAME)
