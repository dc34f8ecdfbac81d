"""`difference`: each sample minus the one before, such as jerk from acceleration."""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from windvane.operations import Block, Operation, operation


@dataclass(frozen=True)
class DifferenceState:
    """The row before the next block, shape (channels,), if there was one, and the index that follows it."""

    last: NDArray[np.float64] | None = None
    next_row: int = 0


@operation("difference")
class Difference(Operation):
    """Each sample minus the one before, times `scale`; 0 at the beginning of a stream and behind a gap."""

    input = "samples"
    output = "samples"
    state_type = DifferenceState

    def __init__(self, *, scale: Annotated[float, Meta(gt=0)] = 1.0) -> None:
        self._scale = scale
        self._state = DifferenceState()

    def process(self, block: Block) -> Block:
        """A row for each row of the block: float64 of shape (n, channels)."""
        samples = block.rows.astype(np.float64)
        last = self._state.last
        if last is None or block.first != self._state.next_row:
            last = samples[0]
        self._state = DifferenceState(samples[-1].copy(), block.stop)
        return replace(block, rows=np.diff(samples, axis=0, prepend=last[np.newaxis]) * self._scale)

    def state(self) -> DifferenceState:
        """All that is kept between blocks."""
        return self._state

    def restore(self, state: DifferenceState | None) -> None:
        """Resume from a state, or start over from None."""
        self._state = state or DifferenceState()
