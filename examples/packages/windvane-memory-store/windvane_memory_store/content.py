"""What a store in memory holds: outputs, and their rows in tables that never change.

A writer replaces a table by another one, so a reader that has taken one sees one moment, without a lock.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from windvane.store.databases.checkpoint_records import OutputLength
from windvane.store.interface import ARRIVAL, EVENT

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIME = np.dtype(np.int64)
SEGMENT = 64
"""Rows, or bytes of a stream, that are dropped together."""

_NUMBERED = re.compile(r"(.+)~[1-9][0-9]*")


@dataclass(frozen=True)
class Table:
    """Rows that are kept; the first of them has the number `start`."""

    rows: NDArray[Any]
    start: int = 0

    @property
    def length(self) -> int:
        """Rows ever appended."""
        return self.start + len(self.rows)

    def appended(self, rows: NDArray[Any]) -> Table:
        """With these rows at the end."""
        return Table(read_only(np.concatenate([self.rows, rows], dtype=self.rows.dtype)), self.start)

    def cut(self, length: int) -> Table:
        """With the first `length` rows ever appended."""
        return Table(self.rows[: max(length - self.start, 0)], min(self.start, length))

    def dropped_before(self, row: int) -> Table:
        """Without the rows before `row`."""
        first = min(max(row, self.start), self.length)
        return Table(self.rows[first - self.start :], first)


def segment_stop(position: int) -> int:
    """The end of the segment of a row or byte."""
    return position - position % SEGMENT + SEGMENT


@dataclass
class Output:
    """A stream or an array. Its tables are (bytes, arrivals, events), or (rows, times)."""

    reference: str
    uid: bytes
    attrs: Mapping[str, Any]
    tables: tuple[Table, ...]
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    database_id: bytes | None = None
    committed: int = 0
    is_made: bool = False
    is_locked: bool = False
    replaced_ns: int = 0
    by: str | None = None

    @property
    def name(self) -> str:
        """Of the output that it was before it was replaced."""
        match = _NUMBERED.fullmatch(self.reference.partition(":")[2])
        return match[1] if match else ""

    @property
    def kept_bytes(self) -> int:
        """Of all tables."""
        return sum(table.rows.nbytes for table in self.tables)

    @property
    def length(self) -> OutputLength:
        """The present length, for a checkpoint."""
        chunks = self.tables[1].length if ":" not in self.reference else 0
        return OutputLength(self.uid, self.tables[0].length, chunks)


@dataclass
class Shelf:
    """The outputs of one store, by reference."""

    outputs: dict[str, Output] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def references(self) -> list[str]:
        """Of the outputs that readers see, sorted."""
        with self.lock:
            return sorted(reference for reference, each in self.outputs.items() if each.is_made)

    def find(self, reference: str) -> Output | None:
        """The output, unless it was never resumed."""
        found = self.outputs.get(reference)
        return found if found is not None and found.is_made else None

    def set_aside(self, reference: str, *, by: str) -> None:
        """Rename an array to the first free of `…~1`, `…~2`, …"""
        number = 1
        while f"{reference}~{number}" in self.outputs:
            number += 1
        output = self.outputs.pop(reference)
        output.reference, output.by = f"{reference}~{number}", by
        output.replaced_ns = max([time.time_ns(), *(each.replaced_ns + 1 for each in self.outputs.values())])
        self.outputs[output.reference] = output

    def make(
        self, reference: str, *, dtype: np.dtype[Any], row_shape: tuple[int, ...], attrs: Mapping[str, Any]
    ) -> Output:
        """An empty output, which readers do not see yet."""
        second = (TIME,) if ":" in reference else (ARRIVAL, EVENT)
        tables = (Table(empty(dtype, row_shape)), *(Table(empty(each)) for each in second))
        output = Output(reference, os.urandom(16), attrs, tables, dtype, row_shape)
        self.outputs[reference] = output
        return output


def empty(dtype: np.dtype[Any], row_shape: tuple[int, ...] = ()) -> NDArray[Any]:
    """No rows."""
    return read_only(np.empty((0, *row_shape), dtype))


def read_only(rows: NDArray[Any]) -> NDArray[Any]:
    """The rows, which cannot be written from now on."""
    rows.flags.writeable = False
    return rows
