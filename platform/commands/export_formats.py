"""A data array as a file: .npy, .csv or .parquet, written piece by piece, whatever its length."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import ExportFailed, WindvaneError

if TYPE_CHECKING:
    from ..store.data_array import DataArray

PIECE_BYTES = 1024 * 1024

Writer = Callable[["DataArray", BinaryIO, range], Iterator[int]]


def export_array(source: "DataArray", file: Path, *, first: int, stop: int) -> Iterator[int]:
    """Write rows `first` to `stop` of `source` to `file`; yields, piece by piece, how many rows were written.

    The file appears under its name when it is whole. Raises `ExportFailed`.
    """
    writers: dict[str, Writer] = {".npy": _write_npy, ".csv": _write_csv, ".parquet": _write_parquet}
    write = writers.get(file.suffix.lower())
    if write is None:
        raise ExportFailed(
            f"{file.name} has none of the suffixes {', '.join(writers)}, which name the format"
        )
    part = file.with_name(f"{file.name}.part")
    try:
        with part.open("wb") as output:
            yield from write(source, output, range(first, stop))
        part.replace(file)
    except WindvaneError:
        raise
    except OSError as error:
        raise ExportFailed(
            f"{file} cannot be written: {error.strerror or error}; name a file in a folder that exists, that "
            "you may write and that has room"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def column_names(source: "DataArray") -> list[str]:
    """Names of the numbers in a row, in their order in memory: the array's own names, or their indices.

    >>> class Source: dtype, row_shape, attrs = np.dtype("f4"), (2, 2), {}
    >>> column_names(Source)
    ['0.0', '0.1', '1.0', '1.1']
    """
    if source.dtype.names:
        if source.row_shape:
            raise ExportFailed(
                "the rows of this array are blocks of records, which only .npy can hold; export it as .npy"
            )
        return list(source.dtype.names)
    named = source.attrs.get("columns")
    if isinstance(named, list | tuple) and source.row_shape == (len(named),):
        return [str(name) for name in named]
    if not source.row_shape:
        return ["value"]
    return [".".join(map(str, index)) for index in np.ndindex(*source.row_shape)]


def _pieces(source: "DataArray", rows: range) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
    row_bytes = source.dtype.itemsize * int(np.prod(source.row_shape, dtype=np.int64))
    step = max(1, PIECE_BYTES // max(1, row_bytes))
    for at in range(rows.start, rows.stop, step):
        part = slice(at, min(at + step, rows.stop))
        yield source[part], np.asarray(source.times_ns[part], dtype=np.int64)


def _write_npy(source: "DataArray", output: BinaryIO, rows: range) -> Iterator[int]:
    """NumPy's own format, version 1.0 or 2.0: numpy.lib.format."""
    header = {
        "descr": np.lib.format.dtype_to_descr(source.dtype),
        "fortran_order": False,
        "shape": (len(rows), *source.row_shape),
    }
    try:
        np.lib.format.write_array_header_1_0(output, header)
    except ValueError:  # a header over 64 KiB, of very many fields
        output.seek(0)
        np.lib.format.write_array_header_2_0(output, header)
    for piece, _ in _pieces(source, rows):
        output.write(piece.tobytes())
        yield len(piece)


def _write_csv(source: "DataArray", output: BinaryIO, rows: range) -> Iterator[int]:
    """RFC 4180, times as nanoseconds since 1970; every number reads back as the same number."""
    text = io.TextIOWrapper(output, encoding="utf-8", newline="")
    text.write(",".join(["time_ns", *map(_csv_name, column_names(source))]) + "\r\n")
    for piece, times_ns in _pieces(source, rows):
        # NumPy's own words for a number are the shortest that give the same number again, in its precision.
        columns = [times_ns.astype(str)]
        if source.dtype.names:
            columns += [piece[name].astype(str) for name in source.dtype.names]
        else:
            columns += list(piece.reshape(len(piece), -1).astype(str).T)
        text.writelines(",".join(line) + "\r\n" for line in zip(*columns, strict=True))
        yield len(piece)
    text.flush()
    text.detach()


def _csv_name(name: str) -> str:
    if any(character in name for character in ',"\r\n'):
        doubled = name.replace('"', '""')
        return f'"{doubled}"'
    return name


def _write_parquet(source: "DataArray", output: BinaryIO, rows: range) -> Iterator[int]:
    """A column `time`, and either a column for each name or one column `values` of fixed-size lists.

    The array's attributes stand as JSON in the schema's metadata, under `windvane`.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ExportFailed(
            "Parquet needs pyarrow, which is not installed: pip install 'windvane[parquet]', or take .csv"
        ) from None
    described = {"reference": source.reference, "row_shape": source.row_shape, "attrs": dict(source.attrs)}
    metadata = {b"windvane": json.dumps(described, ensure_ascii=False).encode()}
    named = bool(source.dtype.names) or not source.row_shape or "columns" in source.attrs
    time = pa.field("time", pa.timestamp("ns", tz="UTC"))
    if named:
        types = (
            [source.dtype[name] for name in source.dtype.names]
            if source.dtype.names
            else [source.dtype] * len(column_names(source))
        )
        names = column_names(source)
        values = [pa.field(n, pa.from_numpy_dtype(t)) for n, t in zip(names, types, strict=True)]
    else:
        width = int(np.prod(source.row_shape, dtype=np.int64))
        values = [pa.field("values", pa.list_(pa.from_numpy_dtype(source.dtype), width))]
    schema = pa.schema([time, *values], metadata=metadata)
    with pq.ParquetWriter(output, schema) as writer:
        for piece, times_ns in _pieces(source, rows):
            times = pa.array(times_ns, pa.int64()).cast(time.type)
            if source.dtype.names:
                columns = [pa.array(np.ascontiguousarray(piece[name])) for name in source.dtype.names]
            elif named:
                flat = piece.reshape(len(piece), -1)
                columns = [pa.array(np.ascontiguousarray(flat[:, i])) for i in range(flat.shape[1])]
            else:
                numbers = pa.array(np.ascontiguousarray(piece).reshape(-1))
                columns = [pa.FixedSizeListArray.from_arrays(numbers, width)]
            writer.write_table(pa.table([times, *columns], schema=schema))
            yield len(piece)
