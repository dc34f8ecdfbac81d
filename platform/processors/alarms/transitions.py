"""When an alarm begins, gets worse, gets better and ends: grades in, transitions out. Pure."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...store.catalog.alarm_rules import AlarmRule
from ...store.catalog.alarms import Transition


class OpenAlarm(msgspec.Struct, frozen=True):
    """An alarm that is not over: its reference, and the row and event time at which it was raised."""

    reference: str
    array: str
    row: int
    time_ns: int


class AlarmCourse(msgspec.Struct):
    """One alarm after the other over the grades of rows: 0 healthy, 1 warning, 2 danger.

    The grades have their hysteresis already. The same grades give the same transitions, so that what is
    worked on again after a crash raises the same alarms, at the same rows.
    """

    grade: int = 0
    open: OpenAlarm | None = None

    def take(self, grade: int) -> Transition | None:
        """What the grade of the next row changes."""
        before, self.grade = self.grade, grade
        if grade == before:
            return None
        if before == 0:
            return "raised"
        if grade == 0:
            return "cleared"
        return "escalated" if grade > before else "eased"


class Peak(msgspec.Struct, frozen=True):
    """The worst value that was judged, its row and the event time of it (ns since the epoch, UTC)."""

    value: float
    row: int
    time_ns: int


class PeakCourse(msgspec.Struct):
    """The worst value of the alarm that is open, or, before one is, of the values in a row that have reached
    its first level: with `hold_rows` these are part of the alarm that they raise.

    NaN counts neither way. How the rows were cut does not matter.
    """

    peak: Peak | None = None

    def take(
        self, values: NDArray[np.float64], rows: range, times_ns: list[int], *, first_level: float, sign: int
    ) -> None:
        """Values of consecutive rows before an alarm; `sign` is 1 where more is worse, -1 where less is."""
        calm = np.flatnonzero(sign * (values - first_level) < 0)
        begin = int(calm[-1]) + 1 if len(calm) else 0
        if begin:
            self.peak = None
        self.take_open(values[begin:], rows[begin:], times_ns[begin:], sign=sign)

    def take_open(self, values: NDArray[np.float64], rows: range, times_ns: list[int], *, sign: int) -> None:
        """Values of consecutive rows of the open alarm."""
        known = np.flatnonzero(np.isfinite(values))
        if not len(known):
            return
        place = int(known[np.argmax(sign * values[known])])
        value = float(values[place])
        if self.peak is None or sign * value > sign * self.peak.value:
            self.peak = Peak(value, rows[place], times_ns[place])


class ThresholdGrades(msgspec.Struct):
    """Grades of the values of one column, by a rule.

    A level is reached where `hold_rows` values in a row are at it or beyond; the grade falls by one level
    where as many in a row are back behind it by more than the hysteresis. NaN counts neither way.
    """

    grade: int = 0
    beyond: list[int] = msgspec.field(default_factory=lambda: [0, 0, 0])
    """For each grade how many values in a row have reached its level."""
    calm: int = 0

    def take(self, value: float, rule: AlarmRule) -> int:
        """The grade after the next value."""
        if math.isnan(value):
            return self.grade
        sign = 1.0 if rule.side == "above" else -1.0
        levels = {grade: level for grade, level in ((1, rule.warning), (2, rule.danger)) if level is not None}
        for grade, level in levels.items():
            self.beyond[grade] = self.beyond[grade] + 1 if sign * (value - level) >= 0 else 0
            if grade > self.grade and self.beyond[grade] >= rule.hold_rows:
                self.grade, self.calm = grade, 0
        if self.grade == 0:
            return 0
        back = sign * (levels[self.grade] - value) > rule.hysteresis
        self.calm = self.calm + 1 if back else 0
        if self.calm >= rule.hold_rows:
            lower = [grade for grade in levels if grade < self.grade]
            self.grade, self.calm = (max(lower) if lower else 0), 0
        return self.grade
