"""Reads the levels of a pyramid, also while they grow."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from ...errors import RangeGone
from ..interface.pyramids import PyramidLevel
from ..pyramid.cells import CellLayout, rows_per_cell
from .rows import Rows
from .segmented_file import SegmentedFile

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

VERSION = 1
MOST_LEVELS = 10
"""A cell of level 10 covers 2^60 rows."""
_NAME = "pyramid.json"


@dataclass(frozen=True, slots=True)
class Description:
    """The file `pyramid.json`: which array the cells are of, in hexadecimal, and from which row on.

    `first_row` is 0, or the first row that the array kept when the pyramid was created. The first cell of
    level n is the first whole one after it.
    """

    version: int
    uid: str
    first_row: int

    def first_cell(self, level: int) -> int:
        """The number of the first cell in the file of a level; cell i covers rows from i * 64^level on."""
        return -(-self.first_row // rows_per_cell(level))

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """The description in the directory of a pyramid; None if there is none, or one of another version."""
        try:
            found = json.loads((directory / _NAME).read_bytes())
            if found["version"] != VERSION:
                return None
            return cls(VERSION, str(found["uid"]), int(found["first_row"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def write(self, directory: Path) -> None:
        """Write the description; a reader sees all of it, or none."""
        draft = directory / f"{_NAME}.new"
        draft.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        os.replace(draft, directory / _NAME)


class Level(PyramidLevel):
    """One level: the cells of a segmented file that are known to be durable."""

    def __init__(self, directory: Path, layout: CellLayout, level: int, description: Description) -> None:
        """Raises FileNotFoundError if there is no such level."""
        self._file = SegmentedFile(directory)
        self.number = level
        self.rows_per_cell = rows_per_cell(level)
        self._first_cell = description.first_cell(level)
        self._cells = Rows(self._file, layout.dtype(level))

    @property
    def first_row(self) -> int:
        """The first row of the first cell that is kept."""
        return (self._first_cell + self._cells.start) * self.rows_per_cell

    @property
    def stop_row(self) -> int:
        """The row after the last cell that is known to be durable, so that no power failure changes it."""
        durable = self._file.committed // self._cells.dtype.itemsize
        return (self._first_cell + durable) * self.rows_per_cell

    def cells(self, first_row: int, stop_row: int) -> NDArray[Any]:
        """The cells of rows [first_row, stop_row), both at the edge of a cell: a read-only view.

        Raises RangeGone if they are not there any more.
        """
        first = first_row // self.rows_per_cell - self._first_cell
        stop = stop_row // self.rows_per_cell - self._first_cell
        cells: NDArray[Any] = self._cells[first:stop]
        if len(cells) != stop - first:
            raise RangeGone(f"cells of rows {first_row} to {stop_row} were dropped")
        return cells


def pyramid_directory(array: Path) -> Path:
    """Where the pyramid of the array in a directory is: `pyramid.json`, and a segmented file each level."""
    return array / "pyramid"


def open_levels(array: Path, uid: bytes, layout: CellLayout) -> list[Level]:
    """The levels of the pyramid in the directory of the array of this uid; none if there is no such pyramid.

    Bound: a mapping for each level, and one for each of its segments that is read.
    """
    directory = pyramid_directory(array)
    description = Description.read(directory)
    if description is None or description.uid != uid.hex():
        return []
    levels: list[Level] = []
    try:
        for number in range(1, MOST_LEVELS + 1):
            levels.append(Level(directory / str(number), layout, number, description))  # noqa: PERF401
    except (OSError, ValueError):  # not created yet, or damaged: the next owner creates it again
        pass
    # If the pyramid was created again meanwhile, the levels may be those of the new one.
    return levels if Description.read(directory) == description else []
