"""NumPy's own format, version 1.0 or 2.0 (NEP 1): whole rows of any dtype, or one column; no times."""

import io
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format

from .rows_to_export import RowsToExport


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The bytes before the data of C-ordered rows."""
    header = io.BytesIO()
    fields = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    try:
        npy_format.write_array_header_1_0(header, fields)
    except ValueError:  # a header over 64 KiB, of very many fields
        header = io.BytesIO()
        npy_format.write_array_header_2_0(header, fields)
    return header.getvalue()


def write_npy(export: RowsToExport, output: BinaryIO) -> Iterator[int]:
    """Write the file; yields the count of rows of each block."""
    values = export.values
    output.write(npy_header(values.dtype, (len(export.rows), *values.row_shape)))
    for part in export.slices():
        output.write(values[part].tobytes())
        yield part.stop - part.start
