"""The names of columns in a file: they differ from each other and from that of the row's time.

A record may have any keys: `time` itself, the same one twice once nested records are flattened, or an empty
one. Those get a number behind them.
"""

from collections.abc import Sequence

import numpy as np

from ..selection.columns import Column

UNNAMED = "unnamed"
"""The name of a column whose own is empty: readers of CSV invent one each."""


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
