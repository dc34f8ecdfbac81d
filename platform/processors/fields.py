"""`fields`: records to rows of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import PolicyInvalid
from .block import Block, Events, EventTimes
from .operation import Operation, operation

MAX_FIELDS = 1024
"""Columns that a record may give on its own; one with more is told to name those that count."""


@dataclass(frozen=True, slots=True)
class FieldsState:
    """`columns`: fixed for good, None while no record had a number; `rows`: given so far."""

    columns: tuple[str, ...] | None
    rows: int


@operation("fields")
class Fields(Operation):
    """Numeric fields of records, one float64 row an event: shape (n, columns).

    True and false count as 1 and 0; what is missing or no number is NaN, and so is all of a record that is no
    map. Without `fields`, the numeric fields of the first record that has any are the columns for good, in
    its order (at most 1,024), and what came before it gives no rows. A row has the time of its event.

    Keeps the names of the columns.
    """

    input = "events"
    output = "values"

    def __init__(self, *, fields: list[str] | None = None) -> None:
        """`fields`: names of fields at the top of the record, in the order of the columns."""
        if fields is not None and (not fields or len(set(fields)) < len(fields)):
            raise PolicyInvalid(
                f"fields cannot be {fields}: name each field once, or leave it out for all numeric ones."
            )
        self._given = None if fields is None else tuple(fields)
        self._state = FieldsState(self._given, 0)

    def process(self, block: Events) -> Block | None:
        """Takes events; gives one row for each."""
        records, times_ns, columns, rows = (
            block.records,
            block.times_ns,
            self._state.columns,
            self._state.rows,
        )
        if columns is None:
            begin = next(
                (index for index, record in enumerate(records) if _numeric_fields(record)), len(records)
            )
            if begin == len(records):
                return None
            columns = _numeric_fields(records[begin])
            records, times_ns = records[begin:], times_ns[begin:]
        if not records:
            return None
        values = np.empty((len(records), len(columns)))
        maps = [record if isinstance(record, dict) else {} for record in records]
        for index, column in enumerate(columns):
            key = column.encode()
            values[:, index] = [_number(record.get(key)) for record in maps]
        self._state = FieldsState(columns, rows + len(values))
        return Block(
            rows=values,
            first=rows,
            times=EventTimes(np.arange(rows + 1, rows + len(values) + 1), np.array(times_ns, dtype=np.int64)),
            columns=columns,
            attrs={"kind": self.output, "columns": list(columns)},
        )

    def state(self) -> FieldsState:
        """The columns, and how many rows there were."""
        return self._state

    def restore(self, state: FieldsState | None) -> None:
        """Goes on from `state()`."""
        self._state = state if state is not None else FieldsState(self._given, 0)


def _numeric_fields(record: Any) -> tuple[str, ...]:
    if not isinstance(record, dict):
        return ()
    numeric = [
        key for key, value in record.items() if isinstance(value, (int, float)) and isinstance(key, bytes)
    ]
    return tuple(name for key in numeric[:MAX_FIELDS] if (name := _text(key)) is not None)


def _text(key: bytes) -> str | None:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else np.nan
