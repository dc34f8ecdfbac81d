"""A data array as a file: .npy, .csv or .parquet, written piece by piece, whatever its length."""

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...errors import ColumnNotFound, ExportFailed, WindvaneError
from ..selection.columns import Column, columns_of
from .column_names import distinct_names, element_names

if TYPE_CHECKING:
    import pyarrow as pa

    from ..interface import ArrayReader

PIECE_BYTES = 1024 * 1024
CSV_TIME, PARQUET_TIME = "time_ns", "time"
"""The column with the time of the row."""

Writer = Callable[["ArrayReader", BinaryIO, range], Iterator[int]]


def export_array(source: "ArrayReader", file: Path, rows: range) -> Iterator[int]:
    """Write `rows` of `source` to `file`; yields, piece by piece, how many rows were written.

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
            yield from write(source, output, rows)
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


def renamed_columns(source: "ArrayReader", file: Path) -> Mapping[str, str]:
    """The columns that have another name in `file`: that name, and the array's own."""
    columns = _columns(source) if file.suffix.lower() != ".npy" else []
    if file.suffix.lower() == ".csv":
        own, names = [name for column in columns for name in element_names(column)], csv_names(columns)
    else:
        own, names = [column.name for column in columns], parquet_names(columns)
    return {name: before for before, name in zip(own, names, strict=True) if name != before}


def _columns(source: "ArrayReader") -> list[Column]:
    try:
        return columns_of(source)
    except ColumnNotFound as error:
        raise ExportFailed(f"{error}, and only .npy can hold them; export it as .npy") from None


def _pieces(source: "ArrayReader", rows: range) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
    row_bytes = source.dtype.itemsize * int(np.prod(source.row_shape, dtype=np.int64))
    step = max(1, PIECE_BYTES // max(1, row_bytes))
    for at in range(rows.start, rows.stop, step):
        part = slice(at, min(at + step, rows.stop))
        yield source[part], np.asarray(source.times_ns[part], dtype=np.int64)


def _write_npy(source: "ArrayReader", output: BinaryIO, rows: range) -> Iterator[int]:
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


def _write_csv(source: "ArrayReader", output: BinaryIO, rows: range) -> Iterator[int]:
    """RFC 4180, times as nanoseconds since 1970; every number reads back as the same number."""
    columns = _columns(source)
    texts_of = [_csv_texts(column) for column in columns]
    text = io.TextIOWrapper(output, encoding="utf-8", newline="")
    text.write(",".join(map(_csv_cell, [CSV_TIME, *csv_names(columns)])) + "\r\n")
    for piece, times_ns in _pieces(source, rows):
        cells = [times_ns.astype(str)]
        for column, texts in zip(columns, texts_of, strict=True):
            cells += list(texts(column.of(piece).reshape(len(piece), -1)).T)
        text.writelines(",".join(line) + "\r\n" for line in zip(*cells, strict=True))
        yield len(piece)
    text.flush()
    text.detach()


def csv_names(columns: Sequence[Column]) -> list[str]:
    """The headings behind `time_ns`."""
    return distinct_names(CSV_TIME, [name for column in columns for name in element_names(column)])


def _csv_texts(column: Column) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """What makes cells of its values."""
    kind = column.dtype.kind
    if kind in "US":
        return np.vectorize(_csv_text, otypes=[object])
    if kind not in "biufcmM":
        raise ExportFailed(
            f"the column {column.name!r} is {column.dtype}, which only .npy can hold; export it as .npy"
        )
    # NumPy's own words for a number are the shortest that give the same number again, in its precision.
    return lambda values: values.astype(str)


def _csv_text(value: str | bytes) -> str:
    return _csv_cell(value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value)


def _csv_cell(text: str) -> str:
    if any(character in text for character in ',"\r\n'):
        doubled = text.replace('"', '""')
        return f'"{doubled}"'
    return text


def _write_parquet(source: "ArrayReader", output: BinaryIO, rows: range) -> Iterator[int]:
    """A column `time`, and one for each column of the array; what is more than a number is a fixed-size list.

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
    columns = _columns(source)
    time = pa.field(PARQUET_TIME, pa.timestamp("ns", tz="UTC"))
    types = [_parquet_type(column) for column in columns]
    schema = pa.schema([time, *map(pa.field, parquet_names(columns), types)], metadata=metadata)
    with pq.ParquetWriter(output, schema) as writer:
        for piece, times_ns in _pieces(source, rows):
            arrays = [pa.array(times_ns, pa.int64()).cast(time.type)]
            for column, type in zip(columns, types, strict=True):
                values = column.of(piece).reshape(-1)
                if column.shape:
                    numbers = pa.array(values, type.value_type)
                    arrays.append(pa.FixedSizeListArray.from_arrays(numbers, type.list_size))
                else:
                    arrays.append(pa.array(values, type))
            writer.write_table(pa.table(arrays, schema=schema))
            yield len(piece)


def parquet_names(columns: Sequence[Column]) -> list[str]:
    """The names behind `time`."""
    return distinct_names(PARQUET_TIME, [column.name for column in columns])


def _parquet_type(column: Column) -> "pa.DataType":
    import pyarrow as pa

    type: pa.DataType
    try:
        if column.dtype.kind == "U":
            type = pa.string()
        else:
            type = pa.from_numpy_dtype(column.dtype.newbyteorder("="))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise ExportFailed(
            f"the column {column.name!r} is {column.dtype}, which Parquet cannot hold; export it as .npy"
        ) from error
    return pa.list_(type, math.prod(column.shape)) if column.shape else type
