"""The condition of one machine per interval: learning, scores, grades and remaining life."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .baseline import LONGEST_LEARNING, OperatingStates, Reference, medians
from .monitored_columns import OVERFLOW_DB, Watched
from .remaining_life import DegradationHistory, LifePrior, RemainingLife
from .trend import ChangeDetector, Slope

WINDOW_ROWS = 10
STANDSTILL_DB = -30.0
"""If half of the levels are this far below the reference, the machine stands still: never learned."""
QUIET_DB = -6.0
"""If half of the levels are this far below the reference, the machine idles: not learned at once."""
FLOOR_COUNTS = 4.0
"""Levels up to this many counts are the noise of the converter and the sensor."""
LEAP_DB, LEAP_SPREADS, LEAP_ROWS = 17.0, 5.0, 3
"""A rise by this much for this many rows is graded at once: 20 dB, less the scatter of three rows."""

Vector = NDArray[np.float64]

LEARNING, WATCHING, DEGRADING = 0.0, 1.0, 2.0


class Judgement(NamedTuple):
    """One row of the output; see the operation."""

    score: float = np.nan
    grade: float = 0.0
    phase: float = LEARNING
    state: float = np.nan
    change: float = 0.0
    drift: float = np.nan
    rul_s: float = np.nan
    rul_low_s: float = np.nan
    rul_high_s: float = np.nan
    leading: float = np.nan


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Scores: `warning` and `danger` raise these grades, both fall at two thirds of that for `hold` rows."""

    warning: float
    danger: float
    hold: int = 10

    def raised(self, score: float) -> int:
        """The grade that the score raises; 0 for NaN."""
        return 2 if score >= self.danger else 1 if score >= self.warning else 0

    def is_over(self, grade: int, score: float) -> bool:
        """Whether the score lies clearly below what raised the grade."""
        return score < (self.danger if grade == 2 else self.warning) * 2 / 3


@dataclass(slots=True)
class Monitor:
    """The learned condition of one machine. Keeps the state of `OperatingStates`, and 200 scores.

    Attributes:
        watched: the columns of its rows.
        thresholds: of the grades.
        learn_rows: rows learned before the first score.
        prior: of the remaining life.
    """

    watched: Watched
    thresholds: Thresholds
    learn_rows: int
    prior: LifePrior = field(default_factory=LifePrior)
    grade: int = 0
    _phase: float = LEARNING
    _calm_rows: int = 0
    _quiet_rows: int = 0
    _states: OperatingStates = field(default_factory=OperatingStates)
    _window: deque[Vector] = field(default_factory=lambda: deque(maxlen=WINDOW_ROWS))
    _changes: ChangeDetector = field(default_factory=ChangeDetector)
    _slope: Slope = field(default_factory=Slope)
    _history: DegradationHistory = field(default_factory=DegradationHistory)

    def __post_init__(self) -> None:
        self._states.floor = self.watched.floor

    def take(self, row: Vector, now_s: float, floor: float = 0.0) -> Judgement:
        """Judges the `taken` columns of a row at a running time in seconds, and learns from it.

        Levels up to `floor` mean that the machine stands still: nothing is scored or learned.
        """
        values, operating = self.watched.split(row)
        if np.isnan(values).all() or np.isnan(operating).any() or self._is_at_floor(values, floor):
            return Judgement(grade=self.grade, phase=self._phase)
        state, reference = self._states.of(operating)
        stand_in = self._substitute(values, operating, is_learned=reference.learned)
        if not reference.learned and stand_in is None:
            reference.add(values, self.learn_rows)
            self._phase = LEARNING
            return Judgement(grade=self.grade, state=state)
        judged_by = stand_in or reference
        self._window.append(judged_by.deviations(values))
        held = self.watched.held(np.array(self._window))
        if len(self._window) < WINDOW_ROWS:
            held = np.full_like(held, np.nan)
        leap = self._leap(judged_by)
        score, leading = _largest(np.fmax(held, leap))
        level_db = self._level_db(values, judged_by)
        is_start = (
            bool(np.isfinite(leap).any())
            and self._states.is_near_zero(operating, self.watched.tells_motion)
            and self._far_below(values, operating) is None
        )
        may_begin_anew = self.grade == 0 and stand_in is None
        if may_begin_anew and (self._settled_lower(level_db, reference) or is_start):
            self._start_over(reference)
            return Judgement(state=state)
        self._regrade(score, now_s)
        is_calm = self._quiet_rows == 0 and level_db > STANDSTILL_DB
        if self.grade == 0 and not score >= self.thresholds.warning / 2 and is_calm and stand_in is None:
            reference.add(values, self.learn_rows)
        self._phase = DEGRADING if self.grade else WATCHING if reference.learned else LEARNING
        if np.isnan(score):
            return Judgement(grade=self.grade, phase=self._phase, state=state)
        change, drift = self._changes.found(score), self._slope.per_hour(now_s, score)
        life = self._remaining(now_s, score)
        self._history.add(now_s, score)
        return Judgement(
            score,
            self.grade,
            self._phase,
            state,
            float(change),
            drift,
            life.estimate_s,
            life.low_s,
            life.high_s,
            leading,
        )

    def _is_at_floor(self, values: Vector, floor: float) -> bool:
        levels = values[self.watched.is_level]
        levels = levels[~np.isnan(levels)]
        return floor > 0 and len(levels) > 0 and bool(np.all(levels <= 20.0 * np.log10(floor)))

    def _substitute(self, values: Vector, operating: Vector, *, is_learned: bool) -> Reference | None:
        """The reference for a row that must not be learned, instead of that of its own state."""
        is_infinite = (self.watched.decibels > 0) & (values >= OVERFLOW_DB)
        if is_infinite.any():
            spread = np.fmax(self.watched.floor, 1.0)
            return Reference(spread, np.where(is_infinite, 0.0, values), spread, learned=True)
        return None if is_learned else self._far_below(values, operating)

    def _far_below(self, values: Vector, operating: Vector) -> Reference | None:
        """The loudest of the healthy running states, if the row has leapt above each of them; else None.

        Its center is raised by the increase that higher speed or load explains.
        """
        watched = self.watched
        known = self._states.known(operating, watched.drivers, watched.explained_db)
        found: tuple[float, Reference] | None = None
        for reference, explained_db in known:
            center = reference.center + np.where(watched.decibels > 0, explained_db, 0.0)
            rise_db = watched.loudest(values - center)
            if not rise_db >= LEAP_DB:
                return None
            if found is None or rise_db < found[0]:
                found = rise_db, replace(reference, center=center)
        return found and found[1]

    def _leap(self, reference: Reference) -> Vector:
        """Of each level and band that has leapt, the rise in least spreads; NaN for the others.

        One band alone is a warning at once: sensors are disturbed in single bands for a few rows.
        """
        floor = self.watched.floor
        if len(self._window) < LEAP_ROWS:
            return np.full(len(floor), np.nan)
        deviations = np.array([self._window[-1 - back] for back in range(LEAP_ROWS)]).min(axis=0)
        rises_db = deviations * reference.spread
        has_leapt = (rises_db >= LEAP_DB) & (deviations >= LEAP_SPREADS) & (self.watched.decibels > 0)
        scores = rises_db / np.where(floor > 0, floor, 1.0)
        scores = np.where(self.watched.is_level, scores, np.fmin(scores, 0.99 * self.thresholds.danger))
        return np.where(has_leapt, scores, np.nan)

    def _level_db(self, values: Vector, reference: Reference) -> float:
        """The dB by which half of the levels are above the reference, or below (negative)."""
        levels = self.watched.is_level
        if not levels.any():
            return 0.0
        middle = float(medians((values - reference.center)[levels, np.newaxis])[0])
        return 0.0 if np.isnan(middle) else middle

    def _settled_lower(self, level_db: float, reference: Reference) -> bool:
        """Whether the machine has been below the reference for so long that this is the new healthy level."""
        if level_db <= STANDSTILL_DB:
            return False
        self._quiet_rows = self._quiet_rows + 1 if level_db < QUIET_DB else 0
        return self._quiet_rows > max(LONGEST_LEARNING * self.learn_rows, reference.count)

    def _start_over(self, reference: Reference) -> None:
        reference.forget()
        self._window.clear()
        self._quiet_rows, self._phase = 0, LEARNING

    def _regrade(self, score: float, now_s: float) -> None:
        raised = self.thresholds.raised(score)
        if raised > self.grade:
            if self.grade == 0:
                self._history.begin(self.thresholds.warning / 2, now_s)
            self.grade, self._calm_rows = raised, 0
        elif self.grade and self.thresholds.is_over(self.grade, score):
            self._calm_rows += 1
            if self._calm_rows == self.thresholds.hold:
                self.grade, self._calm_rows = self.grade - 1, 0
                if self.grade == 0:
                    self._history.end()
        elif not np.isnan(score):
            self._calm_rows = 0

    def _remaining(self, now_s: float, score: float) -> RemainingLife:
        return self._history.remaining(
            now_s, score, danger=self.thresholds.danger, prior=self.prior
        ) or RemainingLife(np.nan, np.nan, np.nan)


def _largest(held: Vector) -> tuple[float, float]:
    finite = ~np.isnan(held)
    if not finite.any():
        return np.nan, np.nan
    leading = int(np.argmax(np.where(finite, held, -np.inf)))
    return float(held[leading]), float(leading)
