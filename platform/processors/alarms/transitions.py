"""When an alarm is raised, escalates, eases and clears: grades in, transitions out. No I/O."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...store.catalog.alarm_rules import AlarmRule
from ...store.catalog.alarms import Transition


class OpenAlarm(msgspec.Struct, frozen=True):
    """An alarm that is not cleared: its reference, and the row and event time at which it was raised."""

    reference: str
    array: str
    row: int
    time_ns: int


class AlarmStateMachine(msgspec.Struct):
    """Successive alarms over the grades of rows: 0 healthy, 1 warning, 2 danger.

    Hysteresis is already applied to the grades. The same grades give the same transitions, so that rows that
    are processed again after a crash raise the same alarms, at the same rows.
    """

    grade: int = 0
    open: OpenAlarm | None = None

    def take(self, grade: int) -> Transition | None:
        """Takes the grade of the next row; returns the transition, None if the grade stays the same."""
        before, self.grade = self.grade, grade
        if grade == before:
            return None
        if before == 0:
            return "raised"
        if grade == 0:
            return "cleared"
        return "escalated" if grade > before else "eased"


class Peak(msgspec.Struct, frozen=True):
    """The worst judged value, its row and its event time (ns since the epoch, UTC)."""

    value: float
    row: int
    time_ns: int


class PeakTracker(msgspec.Struct):
    """The worst value of the open alarm. Before that, of the consecutive values that reach its first level:
    with `hold_rows` these are part of the alarm that they raise.

    NaN is ignored. The result does not depend on how the rows are split into blocks.
    """

    peak: Peak | None = None

    def take(
        self, values: NDArray[np.float64], rows: range, times_ns: list[int], *, first_level: float, sign: int
    ) -> None:
        """Takes values of consecutive rows before an alarm; `sign` is 1 if more is worse, else -1."""
        calm = np.flatnonzero(sign * (values - first_level) < 0)
        begin = int(calm[-1]) + 1 if len(calm) else 0
        if begin:
            self.peak = None
        self.take_open(values[begin:], rows[begin:], times_ns[begin:], sign=sign)

    def take_open(self, values: NDArray[np.float64], rows: range, times_ns: list[int], *, sign: int) -> None:
        """Takes values of consecutive rows of the open alarm."""
        known = np.flatnonzero(np.isfinite(values))
        if not len(known):
            return
        place = int(known[np.argmax(sign * values[known])])
        value = float(values[place])
        if self.peak is None or sign * value > sign * self.peak.value:
            self.peak = Peak(value, rows[place], times_ns[place])


class ThresholdGrades(msgspec.Struct):
    """Grades the values of one column by a rule.

    A level is reached when `hold_rows` consecutive values are at or beyond it. The grade falls by one level
    when as many consecutive values are below it by more than the hysteresis. NaN is ignored.
    """

    grade: int = 0
    beyond: list[int] = msgspec.field(default_factory=lambda: [0, 0, 0])
    """The number of consecutive values that reach its level, by grade."""
    calm: int = 0

    def take(self, value: float, rule: AlarmRule) -> int:
        """Takes the next value; returns the grade after it."""
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
