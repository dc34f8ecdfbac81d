"""Parquet and Arrow IPC files: a column `time` (timestamp[ns, UTC]), and one for each column of the array.

What is more than one number is a fixed-size list. The array's description is JSON in the schema's metadata,
under `windvane`; a unit is in the metadata of its field, under `unit`.
"""

import math
from collections.abc import Iterator
from typing import Any, BinaryIO

from numpy.typing import NDArray

from ..selection.columns import Column
from .column_names import distinct_names
from .rows_to_export import RowsToExport, imported, unsupported

TIME_COLUMN = "time"
_EXTRA = "parquet"


def table_names(export: RowsToExport) -> dict[str, str]:
    """The names of the columns after `time`, each with the array's own."""
    own = [column.name for column in export.columns]
    return dict(zip(distinct_names(TIME_COLUMN, own), own, strict=True))


def write_parquet(export: RowsToExport, output: BinaryIO) -> Iterator[int]:
    """Write the file, a row group for each block; yields the count of rows of each."""
    parquet = imported("pyarrow.parquet", format="Parquet", extra=_EXTRA)
    schema = _schema(export, format="Parquet")
    with parquet.ParquetWriter(output, schema) as writer:
        for table in _tables(export, schema):
            writer.write_table(table)
            yield table.num_rows


def write_arrow(export: RowsToExport, output: BinaryIO) -> Iterator[int]:
    """Write the file, a record batch for each block; yields the count of rows of each."""
    ipc = imported("pyarrow.ipc", format="Arrow IPC", extra=_EXTRA)
    schema = _schema(export, format="Arrow IPC")
    with ipc.new_file(output, schema) as writer:
        for table in _tables(export, schema):
            writer.write_table(table)
            yield table.num_rows


def _schema(export: RowsToExport, *, format: str) -> Any:
    import pyarrow as pa

    fields = [pa.field(TIME_COLUMN, pa.timestamp("ns", tz="UTC"))]
    for name, column in zip(table_names(export), export.columns, strict=True):
        unit = export.unit_of(column)
        fields.append(pa.field(name, _type(column, format=format), metadata={"unit": unit} if unit else None))
    return pa.schema(fields, metadata={"windvane": export.described_as_json()})


def _tables(export: RowsToExport, schema: Any) -> Iterator[Any]:
    import pyarrow as pa

    for rows, times_ns in export.blocks():
        arrays = [pa.array(times_ns, pa.int64()).cast(schema.field(0).type)]
        for number, column in enumerate(export.columns, start=1):
            arrays.append(_array(column.of(rows), schema.field(number).type))
        yield pa.table(arrays, schema=schema)


def _array(values: NDArray[Any], type: Any) -> Any:
    import pyarrow as pa

    if values.ndim == 1:
        return pa.array(values, type)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), type.value_type), type.list_size)


def _type(column: Column, *, format: str) -> Any:
    import pyarrow as pa

    try:
        text = column.dtype.kind == "U"
        type = pa.string() if text else pa.from_numpy_dtype(column.dtype.newbyteorder("="))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise unsupported(column, format=format) from None
    return pa.list_(type, math.prod(column.shape)) if column.shape else type
