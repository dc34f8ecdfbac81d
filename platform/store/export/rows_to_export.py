"""What a format writes: rows of an array, or some columns of them, in blocks of bounded size."""

import importlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ColumnNotFound, ExportFailed, ExportUnavailable
from ..selection.columns import Column, ColumnReader, column_named, columns_of

if TYPE_CHECKING:
    from ..interface import ArrayReader, RowReader

BLOCK_BYTES = 1024 * 1024
"""Rows are read and written in blocks of about this size, at least one row: memory does not grow with the
array."""
_TIME_BYTES = 8


@dataclass(frozen=True)
class RowsToExport:
    """The `rows` of `source`, of which `chosen` names columns; without names, whole rows."""

    source: "ArrayReader"
    rows: range
    chosen: Sequence[str] = ()

    @cached_property
    def columns(self) -> list[Column]:
        """The chosen columns, or all. Raises ColumnNotFound; ExportFailed if the rows have none."""
        if self.chosen:
            return [column_named(self.source, name) for name in self.chosen]
        try:
            return columns_of(self.source)
        except ColumnNotFound as error:
            raise ExportFailed(f"{error}, and only .npy can hold them; export it as .npy") from None

    @cached_property
    def values(self) -> "RowReader":
        """Whole rows, or the one chosen column. Raises ColumnNotFound, ExportFailed for several columns."""
        if not self.chosen:
            return self.source
        if len(self.chosen) > 1:
            raise ExportFailed(
                "this format holds whole rows or one column; choose one column, or another format"
            )
        return ColumnReader(self.source, self.columns[0])

    @property
    def block_rows(self) -> int:
        """Rows of each block but the last; their times count, too."""
        return max(1, BLOCK_BYTES // (self.source.row_bytes + _TIME_BYTES))

    def slices(self) -> Iterator[slice]:
        """The rows in blocks, ascending."""
        for at in range(self.rows.start, self.rows.stop, self.block_rows):
            yield slice(at, min(at + self.block_rows, self.rows.stop))

    def blocks(self) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
        """Each block, and the event times of its rows."""
        for part in self.slices():
            yield self.source[part], np.asarray(self.source.times_ns[part], dtype=np.int64)

    def described(self) -> dict[str, Any]:
        """The array's description in the metadata of the file."""
        return {
            "reference": self.source.reference,
            "first_row": self.rows.start,
            "row_shape": list(self.source.row_shape),
            "attrs": dict(self.source.attrs),
        }

    def described_as_json(self) -> str:
        """The same, for formats whose metadata is text."""
        return json.dumps(self.described(), ensure_ascii=False)

    def unit_of(self, column: Column) -> str:
        """The unit of its values, "" if it is unknown: `unit` is of whole rows, named columns have others."""
        unit = self.source.attrs.get("unit")
        return unit if isinstance(unit, str) and column.place is None and not column.path else ""


def imported(module: str, *, format: str, extra: str) -> Any:
    """An optional module. Raises ExportUnavailable, which says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ExportUnavailable(
            f"{format} needs {error.name or module}, which is not installed: "
            f"pip install 'windvane[{extra}]', or choose .csv or .npy"
        ) from None


def unsupported(column: Column, *, format: str, alternative: str = ".npy") -> ExportFailed:
    """The error for values that a format cannot hold."""
    return ExportFailed(
        f"the column {column.name!r} is {column.dtype}, which {format} cannot hold; "
        f"export it as {alternative}"
    )
