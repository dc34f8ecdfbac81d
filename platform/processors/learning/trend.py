"""Change points and drift of a score."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

SLOPE_ROWS = 60
_LEAST_ROWS = 10
_TOLERATED, _ALARM = 0.5, 8.0
_S_PER_HOUR = 3600.0


@dataclass(slots=True)
class ChangeDetector:
    """Change points by the two-sided test of Page and Hinkley, about the mean since the last one.

    Deviations from the mean above 0.5 are accumulated; a sum of 8 is a change: three rows that are 3.2
    higher, or sixteen that are 1 higher. After E. S. Page, "Continuous inspection schemes", Biometrika 41
    (1954) 100-115. Keeps four numbers.
    """

    _rows: int = 0
    _mean: float = 0.0
    _up: float = 0.0
    _down: float = 0.0

    def found(self, value: float) -> bool:
        """Whether a change shows with this value; then the trend starts over."""
        deviation = value - self._mean if self._rows else 0.0
        self._rows += 1
        self._mean += (value - self._mean) / self._rows
        self._up = max(0.0, self._up + deviation - _TOLERATED)
        self._down = max(0.0, self._down - deviation - _TOLERATED)
        if max(self._up, self._down) < _ALARM:
            return False
        self._rows, self._mean, self._up, self._down = 0, 0.0, 0.0, 0.0
        return True


@dataclass(slots=True)
class Slope:
    """Slope of the last 60 values over time, by least squares. Keeps these."""

    _points: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=SLOPE_ROWS))

    def per_hour(self, time_s: float, value: float) -> float:
        """With the value at `time_s`; NaN for fewer than 10, or if no time has passed."""
        self._points.append((time_s, value))
        if len(self._points) < _LEAST_ROWS:
            return np.nan
        times, values = np.array(self._points).T
        times = times - times.mean()
        squares = float((times * times).sum())
        return float((times * values).sum()) / squares * _S_PER_HOUR if squares > 0 else np.nan
