"""Remaining useful life: a Bayesian extrapolation of the degradation indicator, with an interval.

From the onset on, an indicator y (0 healthy, 10 danger) is assumed to rise as

    y(t) = y0 + (yf - y0) ((t - t0) / D) ** p,   at t0 + D it fails with yf,

and D, p and yf are unknown: p from 1/4 (a step, then a plateau) to 8 (a late surge), yf around the danger
level, D around a third of the life before the onset within a factor of e² (7.4) either way: log-normal, so
wide that it dominates only if the indicator is not informative. Their joint posterior is summed on a grid;
deviations follow Student's t with 3 degrees of freedom, so that no single row counts much. After
N. Gebraeel, M. Lawley, R. Li, J. Ryan, "Residual-life distributions from component degradation signals: a
Bayesian approach", IIE Transactions 37 (2005) 543-557, with power laws instead of the exponential.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

HISTORY_ROWS = 128
"""Maximum rows of history: then every other one is dropped, and the sampling interval doubles."""
POINTS = 20
"""Rows of history that the posterior uses: few enough to count as independent."""

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LifePrior:
    """The prior distribution; times in units of the life before the onset.

    Attributes:
        typical_share: median of the time from onset to failure, in lives before the onset.
        log_spread: standard deviation of its logarithm.
        noise: scale of the indicator's deviations from its course.
        failure_levels: indicator at failure, all equally likely, in units of the danger level.
        quantile: of the posterior, used as the estimate: it is too late with that probability. With 1/5, a
            second too late costs as much as four too early, as in the IEEE PHM 2012 challenge.
    """

    typical_share: float = 0.3
    log_spread: float = 2.0
    noise: float = 1.5
    failure_levels: tuple[float, ...] = (0.9, 1.1, 1.35, 1.65, 2.0)
    quantile: float = 0.2


@dataclass(frozen=True, slots=True)
class RemainingLife:
    """Seconds of running: the estimate, and the bounds of the 80 % interval."""

    estimate_s: float
    low_s: float
    high_s: float


POWERS = np.array([0.25, 0.5, 1.0, 2.0, 4.0, 8.0])
_REMAINDERS = np.geomspace(0.02, 50.0, 48)
"""Remaining life, in units of the time since the onset."""
_DEGREES = 3.0


@dataclass(slots=True)
class DegradationHistory:
    """The indicator's history, thinned out as it grows; and the onset of degradation.

    Keeps at most 128 rows.
    """

    _times_s: list[float] = field(default_factory=list)
    _values: list[float] = field(default_factory=list)
    _every: int = 1
    _count: int = 0
    _onset: tuple[float, float] | None = None

    def add(self, time_s: float, value: float) -> None:
        """Takes the indicator of the next row."""
        if self._count % self._every == 0:
            self._times_s.append(time_s)
            self._values.append(value)
            if len(self._times_s) == HISTORY_ROWS:
                self._times_s, self._values = self._times_s[::2], self._values[::2]
                self._every *= 2
        self._count += 1

    def begin(self, healthy_below: float, now_s: float = 0.0) -> None:
        """Starts degradation: its onset is the last row of history with an indicator below `healthy_below`,
        or `now_s` without history.
        """
        if not self._times_s:
            self.add(now_s, 0.0)
        low = [index for index, value in enumerate(self._values) if value < healthy_below]
        index = low[-1] if low else 0
        self._onset = (self._times_s[index], self._values[index])

    def end(self) -> None:
        """Discards the onset, which was false."""
        self._onset = None

    def remaining(
        self, time_s: float, value: float, *, danger: float, prior: LifePrior
    ) -> RemainingLife | None:
        """Remaining life at `time_s` with the indicator at `value`; None before `begin`."""
        if self._onset is None:
            return None
        onset_s, onset_value = self._onset
        since = [
            (time, level)
            for time, level in zip(self._times_s, self._values, strict=True)
            if onset_s < time < time_s
        ]
        # Always the latest row, and the others evenly spaced.
        places = np.linspace(0, len(since), min(len(since) + 1, POINTS)).astype(int).tolist()
        points = np.array([*since, (time_s, value)])[places]
        since_s = max(time_s - onset_s, 1e-3)
        times = np.maximum(points[:, 0] - onset_s, 1e-3) / since_s
        lived = max(onset_s / since_s, 1e-3)
        levels = np.array(prior.failure_levels) * danger
        chances = _posterior(times, points[:, 1] - onset_value, levels - onset_value, lived, prior)
        cumulated = np.cumsum(chances)
        at = np.interp([prior.quantile, 0.1, 0.9], cumulated / cumulated[-1], np.log(_REMAINDERS))
        estimate, low, high = (np.exp(at) * since_s).tolist()
        return RemainingLife(estimate, low, high)


def _posterior(times: Vector, rises: Vector, to_failure: Vector, lived: float, prior: LifePrior) -> Vector:
    """Probabilities of `_REMAINDERS`, not normalized; times in units of the time since the onset."""
    durations = 1 + _REMAINDERS
    log_prior = -0.5 * (np.log(durations / (prior.typical_share * lived)) / prior.log_spread) ** 2
    log_prior += np.log(_REMAINDERS / durations)  # uniform in log D, evaluated on a grid uniform in log R
    courses = (times / durations[:, np.newaxis])[:, np.newaxis, :] ** POWERS[:, np.newaxis]
    deviations = rises - to_failure[:, np.newaxis, np.newaxis, np.newaxis] * courses
    squares = np.log1p((deviations / prior.noise) ** 2 / _DEGREES).sum(axis=-1)
    log_chances = log_prior[:, np.newaxis] - (_DEGREES + 1) / 2 * squares
    chances: Vector = np.exp(log_chances - log_chances.max()).sum(axis=(0, 2))
    return chances
