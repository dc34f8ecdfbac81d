"""The columns that the rows of a data array have in a file: which numbers each holds, and its name.

A file needs names that differ, and one for the time of the row. A record may have any keys: `time` itself,
the same one twice once nested records are flattened, or an empty one. Those get a number behind them.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import ExportFailed

if TYPE_CHECKING:
    from ...store.interface import ArrayReader

UNNAMED = "unnamed"
"""The name of a column whose own is empty: readers of CSV invent one each."""


class Column(NamedTuple):
    """One field of a row: values of `dtype` (no record), each of `shape` (() for a single value).

    `path` are the names of the fields that lead to it in a record; `place` is its index in any other row.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...] = ()
    path: tuple[str, ...] = ()
    place: int | None = None

    def of(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Its values in `rows`: shape (rows, *shape), C order, native byte order."""
        found = rows
        for name in self.path:
            found = found[name]
        if self.place is not None:
            found = found.reshape(len(found), -1)[:, self.place]
        return np.ascontiguousarray(found, dtype=self.dtype.newbyteorder("=")).reshape(len(rows), *self.shape)


def columns_of(source: "ArrayReader") -> list[Column]:
    """The columns of an array: its fields, nested ones by dotted names, or its named numbers.

    Rows without names are one column, `value`, or `values` if a row is not a single number. Raises
    `ExportFailed` if the rows are blocks of records.
    """
    dtype, row_shape = source.dtype, source.row_shape
    if dtype.names:
        if row_shape:
            raise ExportFailed(
                "the rows of this array are blocks of records, which only .npy can hold; export it as .npy"
            )
        return list(_fields(dtype, "", ()))
    named = source.attrs.get("columns")
    if isinstance(named, list | tuple) and row_shape == (len(named),):
        return [Column(str(name), dtype, place=place) for place, name in enumerate(named)]
    return [Column("values" if row_shape else "value", dtype, row_shape)]


def _fields(dtype: np.dtype[Any], prefix: str, path: tuple[str, ...]) -> Iterator[Column]:
    for field in dtype.names or ():
        base, shape = dtype[field].base, dtype[field].shape
        inner = (*path, field)
        if base.names and shape:
            raise ExportFailed(
                f"the field {prefix + field!r} holds blocks of records, which only .npy can hold; "
                "export it as .npy"
            )
        if base.names:
            yield from _fields(base, f"{prefix}{field}.", inner)
        else:
            yield Column(prefix + field, base, shape, inner)


def element_names(column: Column) -> list[str]:
    """A name for each number of a column, for formats without lists: `name.0`, `name.1.0`.

    A row without names has the indices alone.

    >>> element_names(Column("peaks", np.dtype("f4"), (2,), ("peaks",)))
    ['peaks.0', 'peaks.1']
    >>> element_names(Column("values", np.dtype("f4"), (2, 1)))
    ['0.0', '1.0']
    """
    if not column.shape:
        return [column.name]
    prefix = f"{column.name}." if column.path else ""
    return [prefix + ".".join(map(str, index)) for index in np.ndindex(*column.shape)]


def distinct_names(time_name: str, names: Sequence[str]) -> list[str]:
    """`names`, each unchanged if it is new, else with the first free number appended.

    `time_name` is reserved for the time of the row.

    >>> distinct_names("time", ["time", "kw", "kw", "", "time_2"])
    ['time_3', 'kw', 'kw_2', 'unnamed', 'time_2']
    """
    taken, wanted = {time_name}, set(names)
    next_number: dict[str, int] = {}
    distinct = []
    for name in names:
        chosen = base = name or UNNAMED
        if base in taken or (not name and base in wanted):
            number = next_number.get(base, 2)
            while (chosen := f"{base}_{number}") in taken or chosen in wanted:
                number += 1
            next_number[base] = number + 1
        taken.add(chosen)
        distinct.append(chosen)
    return distinct
