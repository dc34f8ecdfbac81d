"""The columns that condition monitoring uses, and their scales."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import OperationFailed
from ..operations.base.failures import did_you_mean
from .baseline import medians

MAX_COLUMNS = 256
LEVEL_FLOOR_DB, BAND_FLOOR_DB = 1.0, 2.0
"""Least spread of levels and of bands: smaller changes do not count, however steady the column was."""
LARGEST = float(np.finfo(np.float64).max)
"""Replaces a level of infinity, which is a level beyond the sender's range."""
OVERFLOW_DB = 3000.0
"""Above all measured levels and energies, and below `LARGEST` in decibels of either."""

_SPEED_DB, _OTHER_DB = 40.0, 20.0
"""The rise of a level that ten times the speed explains, and ten times the power, load or torque: the forces
of an unbalance grow with the square of the speed, others at most in proportion.
"""
_LEVEL_DECIBELS = 20.0
_LEVEL = re.compile(r"(?:^|\.)(?:(rms)|(band_.+))$")
_OPERATING = re.compile(r"(?:^|[._ ])(?:rpm|speed|power|load|torque)(?:[._ ]|$)", re.IGNORECASE)
_SPEED = re.compile(r"(?:^|[._ ])(?:rpm|speed)(?:[._ ]|$)", re.IGNORECASE)
_POWER = re.compile(r"(?:^|[._ ])power(?:[._ ]|$)", re.IGNORECASE)

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Watched:
    """The columns of rows that are used, in two groups.

    Levels (`rms`) and bands of energy (`band_…`) become decibels: 20 log10 of levels, 10 log10 of bands. Only
    increases of these count. If rows have neither, all columns are used unchanged, in both directions.

    Attributes:
        names: of all columns of the rows.
        indices: of the monitored columns.
        operating: indices of those that define operating states.
        decibels: for each monitored column the factor before log10, 0 if it is used unchanged.
        floor: for each the least spread, 0 if there is none.
    """

    names: tuple[str, ...]
    indices: tuple[int, ...]
    operating: tuple[int, ...]
    decibels: Vector
    floor: Vector

    @classmethod
    def of(
        cls, names: tuple[str, ...], columns: Sequence[str] | None, operating: Sequence[str] | None
    ) -> Watched:
        """Chooses among `names`; `columns` and `operating` as a policy gives them, None for the rule.

        Raises:
            OperationFailed: a requested column is missing, or there are none or too many.
        """
        states = (
            tuple(index for index, name in enumerate(names) if _OPERATING.search(name))
            if operating is None
            else _named(operating, names)
        )
        if columns is not None:
            chosen = _named(columns, names)
        else:
            levels = [index for index, name in enumerate(names) if _LEVEL.search(name)]
            chosen = tuple(index for index in levels or range(len(names)) if index not in states)
        if not 1 <= len(chosen) <= MAX_COLUMNS:
            raise OperationFailed(
                f"condition looks at 1 to {MAX_COLUMNS} columns, and here are {len(chosen)} of the "
                f"{len(names)} that come; name those that count in `columns`."
            )
        kinds = [_LEVEL.search(names[index]) for index in chosen]
        scales = [(0.0, 0.0) if kind is None else _scale(level=kind[1] is not None) for kind in kinds]
        return cls(
            names,
            chosen,
            states,
            np.array([decibels for decibels, _ in scales]),
            np.array([floor for _, floor in scales]),
        )

    @property
    def is_level(self) -> NDArray[np.bool_]:
        """Mask of the levels among the monitored columns."""
        levels: NDArray[np.bool_] = self.decibels == _LEVEL_DECIBELS
        return levels

    @property
    def tells_motion(self) -> list[int]:
        """Operating columns that are near 0 while the machine stands still: speeds, else powers."""
        names = [self.names[index] for index in self.operating]
        for words in (_SPEED, _POWER):
            found = [place for place, name in enumerate(names) if words.search(name)]
            if found:
                return found
        return []

    @property
    def drivers(self) -> list[int]:
        """Operating columns that explain a rise of the level of a healthy machine."""
        return self.tells_motion or list(range(len(self.operating)))

    @property
    def explained_db(self) -> float:
        """The rise in level, in dB, that a tenfold increase of one of the `drivers` explains."""
        are_speeds = all(_SPEED.search(self.names[self.operating[place]]) for place in self.drivers)
        return _SPEED_DB if are_speeds else _OTHER_DB

    def finite(self, rows: Vector) -> Vector:
        """Rows of the `taken` columns, NaN for invalid values; a level of infinity becomes `LARGEST`."""
        looked_at = len(self.indices)
        is_infinite = (rows[:, :looked_at] == np.inf) & (self.decibels > 0)
        found = np.where(np.isfinite(rows), rows, np.nan)
        found[:, :looked_at][is_infinite] = LARGEST
        return found

    def loudest(self, rises: Vector) -> float:
        """The largest rise of a level; without levels, that of half of the bands; NaN without either."""
        levels = rises[self.is_level]
        if len(levels):
            return float(np.fmax.reduce(levels))
        bands = rises[self.decibels > 0]
        return float(medians(bands[:, np.newaxis])[0]) if len(bands) else np.nan

    @property
    def taken(self) -> list[int]:
        """Indices of all columns that are used: the monitored ones, then the operating ones."""
        return [*self.indices, *self.operating]

    def split(self, row: Vector) -> tuple[Vector, Vector]:
        """What is looked at, on its scale, and the operating columns, of a row of the `taken` columns."""
        values, operating = row[: len(self.indices)].copy(), row[len(self.indices) :].copy()
        levels = self.decibels > 0
        # A level of 0 is not a measurement: a connected sensor has noise.
        amplitudes = np.where(values[levels] > 0, values[levels], np.nan)
        values[levels] = self.decibels[levels] * np.log10(amplitudes)
        return values, operating

    def held(self, window: Vector) -> Vector:
        """The deviation of each column that 8 of 10 rows reach, upward, or in either direction if both count.

        Args:
            window: deviations, shape (rows, columns); NaN if there is none. Fewer than half the rows say
                nothing.
        """
        ordered = np.sort(window, axis=0)  # NaN comes last
        counts = np.count_nonzero(ordered == ordered, axis=0)
        columns = np.arange(window.shape[1])
        left_out = counts // 5
        up = ordered[np.minimum(left_out, len(window) - 1), columns]
        down = -ordered[np.maximum(counts - 1 - left_out, 0), columns]
        held = np.where(self.decibels > 0, up, np.maximum(up, down))
        return np.where(2 * counts >= len(window), held, np.nan)


def _scale(*, level: bool) -> tuple[float, float]:
    return (_LEVEL_DECIBELS, LEVEL_FLOOR_DB) if level else (10.0, BAND_FLOOR_DB)


def _named(wanted: Sequence[str], names: tuple[str, ...]) -> tuple[int, ...]:
    """Indices of columns by name, or by the last part of it."""
    found: dict[int, None] = {}
    for name in wanted:
        places = [index for index, there in enumerate(names) if name == there or there.endswith(f".{name}")]
        if not places:
            raise OperationFailed(f'the rows have no column "{name}"{did_you_mean(name, names)}')
        found.update(dict.fromkeys(places))
    return tuple(found)
