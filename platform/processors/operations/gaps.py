"""`gaps`: the gaps in the rows of another step, as rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base.block import Block, EventTimes
from .base.operation import Operation, operation

COLUMNS = ("index", "missing", "missing_s")


@dataclass(frozen=True, slots=True)
class GapsState:
    """`next_index`: of the next expected row, None before the first; `gaps`: number of gaps so far."""

    next_index: int | None = None
    gaps: int = 0


@operation("gaps")
class Gaps(Operation):
    """One float64 row (3,) for each gap: the number of the first missing row, how many are missing, and for
    how many seconds (NaN without a rate).

    A row has the time of the event that brought the first row behind the gap. Keeps two numbers.
    """

    input = "samples"
    accepts = ("values", "spectrum", "features")
    output = "gaps"
    state_type = GapsState

    def __init__(self) -> None:
        self._state = GapsState()

    def process(self, block: Block) -> Block | None:
        """Takes any rows."""
        before, expected = self._state, self._state.next_index
        gap = expected is not None and expected != block.first
        self._state = GapsState(block.stop, before.gaps + gap)
        if expected is None or not gap:
            return None
        missing = block.first - expected
        seconds = missing / block.rate_hz if block.rate_hz > 0 else np.nan
        return Block(
            rows=np.array([[expected, missing, seconds]], dtype=np.float64),
            first=before.gaps,
            times=EventTimes(np.array([before.gaps + 1]), block.times.at(np.array([block.first]))),
            columns=COLUMNS,
            attrs={"kind": self.output, "columns": list(COLUMNS), "rate_hz": block.rate_hz},
        )

    def state(self) -> GapsState:
        """The index of the next row."""
        return self._state

    def restore(self, state: GapsState | None) -> None:
        """Resumes from `state()`."""
        self._state = state if state is not None else GapsState()
