"""References of the healthy condition, one for each operating state, extended by healthy rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

KEPT_ROWS = 128
"""Maximum rows of a reference: then every other one is dropped, and the sampling interval doubles."""
LONGEST_LEARNING = 4
"""Maximum factor by which learning is extended while the reference still changes."""
MAX_STATES = 12
MOST_RISE = 2.0
"""Maximum rise of a reference above its minimum, in least spreads: else it would follow a slow failure."""

_SIGMA_OF_MAD = 1.4826
_STATE_WIDTH = 0.15  # of the range seen
_NEAR_ZERO = 0.02  # of the largest value
_LEAST_WIDTH = 0.05  # of the largest value: smaller variations are one state

Vector = NDArray[np.float64]


@dataclass(slots=True)
class Reference:
    """Median and spread of the healthy rows of one operating state.

    The rows are a thinned sample of all healthy rows so far, not just of the first ones: a machine that runs
    in, or warms up, moves its reference, while shocks and outliers in fewer than half of the rows move
    neither median nor spread. The spread is 1.4826 times the median absolute deviation (normal rows: their
    standard deviation), at least `floor`. Keeps at most 128 rows.

    Attributes:
        floor: least spread of each column.
        center: median of each column, NaN if a column has had no value; if there is a floor, at most two
            floors above its minimum so far. Empty before there are enough rows.
        spread: of each column.
        learned: whether there are enough rows to score others by.
    """

    floor: Vector
    center: Vector = field(default_factory=lambda: np.empty(0))
    spread: Vector = field(default_factory=lambda: np.empty(0))
    learned: bool = False
    _rows: list[Vector] = field(default_factory=list)
    _every: int = 1
    _count: int = 0
    _lowest: Vector | None = None

    def add(self, row: Vector, learn_rows: int) -> None:
        """Takes a healthy row."""
        taken = self._count % self._every == 0
        self._count += 1
        if taken:
            self._rows.append(row)
            if len(self._rows) == KEPT_ROWS:
                self._rows = self._rows[::2]
                self._every *= 2
        if self.learned and taken:
            self._fit()
        elif not self.learned and self._count >= learn_rows:
            self._fit()
            self.learned = self._is_steady() or self._count >= LONGEST_LEARNING * learn_rows

    @property
    def count(self) -> int:
        """Rows added since the beginning or the last `forget`."""
        return self._count

    def forget(self) -> None:
        """Starts over, with nothing learned."""
        self._rows, self._every, self._count, self.learned = [], 1, 0, False
        self._lowest = None

    def deviations(self, row: Vector) -> Vector:
        """Deviation of each column, in spreads; NaN without a value."""
        return (row - self.center) / self.spread

    def _fit(self) -> None:
        rows = np.array(self._rows)
        center = medians(rows)
        mad = medians(np.abs(rows - center))
        self._lowest = center if self._lowest is None else np.fmin(self._lowest, center)
        highest = self._lowest + np.where(self.floor > 0, MOST_RISE * self.floor, np.inf)
        self.center = np.fmin(center, highest)
        relative = np.abs(self.center) * 1e-3
        self.spread = np.fmax(_SIGMA_OF_MAD * mad, np.where(self.floor > 0, self.floor, relative + 1e-12))

    def _is_steady(self) -> bool:
        half = len(self._rows) // 2
        moved = medians(np.array(self._rows[half:])) - medians(np.array(self._rows[:half]))
        moved /= self.spread
        return not bool(np.any(np.abs(moved) >= 1.0))


def medians(rows: Vector) -> Vector:
    """Median of each column without its NaN; NaN if all are NaN. np.nanmedian is much slower."""
    ordered = np.sort(rows, axis=0)  # NaN comes last
    counts = np.count_nonzero(ordered == ordered, axis=0)
    columns = np.arange(rows.shape[1])
    low = ordered[np.maximum(counts - 1, 0) // 2, columns]
    high = ordered[np.minimum(counts // 2, len(ordered) - 1), columns]
    middle: Vector = 0.5 * low + 0.5 * high
    return middle


@dataclass(slots=True)
class OperatingStates:
    """Groups rows by operating state, such as the speed and power of the machine.

    A row belongs to the nearest state if that lies within 15 % of the range of every operating column (or 5 %
    of its largest value); else it begins a new one. If there are 12, the two nearest are merged.
    Keeps 12 references.

    Attributes:
        references: of the states, in the order of their first rows.
    """

    floor: Vector = field(default_factory=lambda: np.empty(0))
    references: list[Reference] = field(default_factory=list)
    _centers: list[Vector] = field(default_factory=list)
    _numbers: list[int] = field(default_factory=list)
    _met: int = 0
    _low: Vector | None = None
    _high: Vector | None = None

    def of(self, operating: Vector) -> tuple[int, Reference]:
        """The number and the reference of a row's state; `operating` is finite, possibly without columns."""
        if self._low is None or self._high is None:
            self._low, self._high = operating, operating
        self._low, self._high = np.minimum(self._low, operating), np.maximum(self._high, operating)
        width = np.maximum(
            _STATE_WIDTH * (self._high - self._low),
            _LEAST_WIDTH * np.maximum(np.abs(self._low), np.abs(self._high)),
        )
        width = np.maximum(width, 1e-12)
        distances = [_distance(center, operating, width) for center in self._centers]
        nearest = int(np.argmin(distances)) if distances else -1
        if nearest < 0 or distances[nearest] > 1.0:
            if len(self._centers) == MAX_STATES:
                self._merge(width)
            self.references.append(Reference(self.floor))
            self._centers.append(operating)
            self._numbers.append(self._met)
            self._met += 1
            nearest = len(self._centers) - 1
        return self._numbers[nearest], self.references[nearest]

    def is_near_zero(self, operating: Vector, places: list[int]) -> bool:
        """Whether these columns of a row with a state are near 0, relative to their values so far."""
        if not places or self._low is None or self._high is None:
            return False
        largest = np.maximum(np.abs(self._low), np.abs(self._high))[places]
        return bool(np.all(np.abs(operating[places]) <= _NEAR_ZERO * largest))

    def known(
        self, operating: Vector, places: list[int], decade_db: float
    ) -> Iterator[tuple[Reference, float]]:
        """The learned states of a running machine; and the dB by which it may be louder at `operating`.

        That is `decade_db` for each factor of ten in one of the columns at `places`. States in which all of
        these columns are near 0 are excluded: the machine did not run.
        """
        if self._low is None or self._high is None:
            return
        largest = np.maximum(np.abs(self._low), np.abs(self._high))[places]
        least = np.maximum(_NEAR_ZERO * largest, 1e-12)
        now = np.maximum(np.abs(operating[places]), least)
        for reference, center in zip(self.references, self._centers, strict=True):
            if reference.learned and not self.is_near_zero(center, places):
                ratios = now / np.maximum(np.abs(center[places]), least)
                yield reference, decade_db * float(np.log10(np.max(ratios, initial=1.0)))

    def _merge(self, width: Vector) -> None:
        """Drops the one of the two nearest states that has fewer rows."""
        pairs = [
            (_distance(self._centers[a], self._centers[b], width), a, b)
            for b in range(len(self._centers))
            for a in range(b)
        ]
        _, a, b = min(pairs)
        lost = a if self.references[a].count < self.references[b].count else b
        for kept in (self.references, self._centers, self._numbers):
            del kept[lost]


def _distance(a: Vector, b: Vector, width: Vector) -> float:
    return float(np.max(np.abs(a - b) / width, initial=0.0))
