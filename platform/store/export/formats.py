"""The formats of exports: for each its suffix, its media type, and the function that writes it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

from .arrow_tables import table_names, write_arrow, write_parquet
from .csv_text import csv_names, write_csv
from .mdf import mdf_names, write_mdf
from .npy import write_npy
from .rows_to_export import RowsToExport
from .wav import write_wav
from .zarr_group import write_zarr_zip, zarr_names

Write: TypeAlias = Callable[[RowsToExport, BinaryIO], Iterator[int]]
"""Writes rows to a file, in order and without seeking; yields, block by block, how many rows were written.

Raises ExportFailed before the first byte if the format cannot hold the rows.
"""


def _no_names(_export: RowsToExport) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class ExportFormat:
    """One format. `names` gives the columns of a file, each with the array's own name; it may have none."""

    name: str
    suffix: str
    media_type: str
    write: Write
    names: Callable[[RowsToExport], Mapping[str, str]] = _no_names


FORMATS: Mapping[str, ExportFormat] = {
    made.name: made
    for made in (
        ExportFormat("npy", ".npy", "application/octet-stream", write_npy),
        ExportFormat("csv", ".csv", "text/csv; charset=utf-8; header=present", write_csv, csv_names),
        ExportFormat("parquet", ".parquet", "application/vnd.apache.parquet", write_parquet, table_names),
        ExportFormat("arrow", ".arrow", "application/vnd.apache.arrow.file", write_arrow, table_names),
        ExportFormat("zarr", ".zarr.zip", "application/zip", write_zarr_zip, zarr_names),
        ExportFormat("wav", ".wav", "audio/wav", write_wav),
        ExportFormat("mdf", ".mf4", "application/octet-stream", write_mdf, mdf_names),
    )
}


def renamed_columns(export: RowsToExport, made: ExportFormat) -> Mapping[str, str]:
    """The columns that have another name in the file: that name, and the array's own."""
    return {name: own for name, own in made.names(export).items() if name != own}
