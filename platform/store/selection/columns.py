"""The columns of the rows of a data array: their names, and which numbers of a row each holds."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import ColumnNotFound
from ..interface import RowReader

if TYPE_CHECKING:
    from ..interface import ArrayReader

_SHOWN_NAMES = 30


class Column(NamedTuple):
    """One field of a row: values of `dtype` (no record), each of `shape` (() for a single value).

    `path` are the names of the fields that lead to it in a record; `place` is its index in any other row.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...] = ()
    path: tuple[str, ...] = ()
    place: int | None = None

    def view(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Its values in `rows`, without a copy: shape (rows, *shape), the strides of whole rows."""
        found = rows
        for name in self.path:
            found = found[name]
        return found if self.place is None else found[:, self.place]

    def of(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Its values in `rows`: shape (rows, *shape), C order, native byte order."""
        found = np.ascontiguousarray(self.view(rows), dtype=self.dtype.newbyteorder("="))
        return found.reshape(len(rows), *self.shape)


class ColumnReader(RowReader):
    """One column of an array, read like an array: shape (rows, *column.shape)."""

    def __init__(self, rows: RowReader, column: Column) -> None:
        self.dtype = column.dtype
        self.row_shape = column.shape
        self._rows = rows
        self._column = column

    @property
    def start(self) -> int:
        """Number of the first row kept, now."""
        return self._rows.start

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> Any:
        first, *rest = key if isinstance(key, tuple) and key else (key,)
        if isinstance(first, slice):
            found = self._column.view(self._rows[first])
            return found[(slice(None), *rest)] if rest else found
        return self._column.view(np.asarray(self._rows[first])[np.newaxis])[(0, *rest)]


def columns_of(source: "ArrayReader") -> list[Column]:
    """The columns of an array: its fields, nested ones by dotted names, or its named numbers.

    Rows without names are one column, `value`, or `values` if a row is not a single number. Raises
    `ColumnNotFound` if the rows contain blocks of records.
    """
    dtype, row_shape = source.dtype, source.row_shape
    if dtype.names:
        if row_shape:
            raise ColumnNotFound(
                f"the rows of {source.reference} are blocks of records, which have no columns"
            )
        return list(_fields(dtype, "", ()))
    named = source.attrs.get("columns")
    if isinstance(named, list | tuple) and row_shape == (len(named),):
        return [Column(str(name), dtype, place=place) for place, name in enumerate(named)]
    return [Column("values" if row_shape else "value", dtype, row_shape)]


def column_named(source: "ArrayReader", name: str) -> Column:
    """The column of that name; the first, if several have it. Raises ColumnNotFound."""
    columns = columns_of(source)
    found = next((column for column in columns if column.name == name), None)
    if found is None:
        shown = ", ".join(column.name for column in columns[:_SHOWN_NAMES])
        more = "" if len(columns) <= _SHOWN_NAMES else f" and {len(columns) - _SHOWN_NAMES} more"
        raise ColumnNotFound(f"{source.reference} has no column {name[:80]!r}; it has {shown}{more}")
    return found


def _fields(dtype: np.dtype[Any], prefix: str, path: tuple[str, ...]) -> Iterator[Column]:
    for field in dtype.names or ():
        base, shape = dtype[field].base, dtype[field].shape
        inner = (*path, field)
        if base.names and shape:
            raise ColumnNotFound(
                f"the field {prefix + field!r} holds blocks of records, which have no columns"
            )
        if base.names:
            yield from _fields(base, f"{prefix}{field}.", inner)
        else:
            yield Column(prefix + field, base, shape, inner)
