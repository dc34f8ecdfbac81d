"""What the levels of a pyramid promise to readers, and its writer to the worker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from .closing import Closing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class PyramidLevel(ABC):
    """The cells of one level of the pyramid of an array, each of `rows_per_cell` rows.

    Cells are records of `CellLayout.dtype(number)`. All that a reader sees is exact and durable.
    """

    number: int
    """1 for cells of 64 rows, 2 for cells of 64 of these, and so on."""

    rows_per_cell: int
    """64 to the power of `number`."""

    @property
    @abstractmethod
    def first_row(self) -> int:
        """The first row of the first cell that is kept, now."""

    @property
    @abstractmethod
    def stop_row(self) -> int:
        """The row after the last cell, now."""

    @abstractmethod
    def cells(self, first_row: int, stop_row: int) -> NDArray[Any]:
        """The cells of rows [first_row, stop_row), both at the edge of a cell; read-only.

        Raises RangeGone if they are not there any more.
        """


class PyramidWriter(Closing):
    """The one writer of the pyramid of an array. One thread at a time may call it.

    A pyramid is derived: it covers only rows that a checkpoint has committed, which never change while the
    array has its uid. A crash at any moment leaves readers cells that are exact, or fewer cells.
    """

    @property
    @abstractmethod
    def covered_rows(self) -> int:
        """The row after the last complete cell of level 1."""

    @property
    @abstractmethod
    def lengths(self) -> Sequence[int]:
        """How far each level is complete, for `mark_durable` and for the next writer."""

    @abstractmethod
    def extend(self, committed_rows: int) -> None:
        """Add the cells of rows before `committed_rows`, of which a checkpoint must cover each.

        If retention has dropped rows before they were covered, the pyramid starts over at the first row kept.
        Raises RangeGone if it drops rows meanwhile: the next writer starts over then.
        """

    @abstractmethod
    def mark_durable(self, lengths: Sequence[int]) -> None:
        """Let readers use the cells up to these `lengths`: a sync of the store that began after they were
        complete has succeeded.
        """

    @abstractmethod
    def drop_before(self, row: int) -> None:
        """Drop the cells of rows before `row`, as far as the engine frees space by it."""

    @abstractmethod
    def close(self) -> None:
        """Release the pyramid for another writer. Does not sync."""
