"""The posterior of the remaining life against explicit sums, and against known lives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from windvane.processors.learning.remaining_life import (
    HISTORY_ROWS,
    DegradationHistory,
    LifePrior,
    RemainingLife,
)

PRIOR = LifePrior()


def naive_remaining(
    points: list[tuple[float, float]], onset: tuple[float, float], prior: LifePrior
) -> list[float]:
    """Quantiles (the prior's, 10 %, 90 %) of the remaining life, term by term."""
    onset_s, onset_value = onset
    since_s = points[-1][0] - onset_s
    remainders = [since_s * 0.02 * (50 / 0.02) ** (index / 47) for index in range(48)]
    chances = []
    for remaining_s in remainders:
        duration_s = since_s + remaining_s
        z = math.log(duration_s / (prior.typical_share * onset_s)) / prior.log_spread
        chance = 0.0
        for power in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0):
            for share in prior.failure_levels:
                likelihood = 1.0
                for time_s, value in points:
                    course = (
                        onset_value + (share * 10 - onset_value) * ((time_s - onset_s) / duration_s) ** power
                    )
                    likelihood *= (1 + ((value - course) / prior.noise) ** 2 / 3) ** -2
                chance += likelihood
        chances.append(chance * math.exp(-z * z / 2) * remaining_s / duration_s)
    cumulated = np.cumsum(chances) / sum(chances)
    quantiles = np.interp([prior.quantile, 0.1, 0.9], cumulated, np.log(remainders))
    return [math.exp(quantile) for quantile in quantiles.tolist()]


def lives(
    values: list[float], *, step_s: float = 10.0, begin_at: int, prior: LifePrior = PRIOR
) -> list[RemainingLife | None]:
    history, given = DegradationHistory(), []
    for index, value in enumerate(values):
        if index == begin_at:
            history.begin(3.0)
        given.append(history.remaining(index * step_s, value, danger=10.0, prior=prior))
        history.add(index * step_s, value)
    return given


def test_remaining_life_is_the_naive_sum_over_all_courses() -> None:
    values = [0.0] * 20 + [4.0, 5.5, 6.0, 6.5, 8.0]
    *_, life = lives(values, begin_at=22)
    points = [(10.0 * index, values[index]) for index in range(20, 25)]
    assert life is not None
    expected = naive_remaining(points, (190.0, 0.0), PRIOR)
    assert [life.estimate_s, life.low_s, life.high_s] == pytest.approx(expected, rel=1e-9)


def test_there_is_no_estimate_before_degradation_begins_or_after_it_ends() -> None:
    assert lives([0.0] * 30, begin_at=99) == [None] * 30
    history = DegradationHistory()
    history.add(0.0, 0.0)
    history.begin(3.0)
    assert history.remaining(10.0, 7.0, danger=10.0, prior=PRIOR) is not None
    history.end()
    assert history.remaining(20.0, 7.0, danger=10.0, prior=PRIOR) is None


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_interval_contains_the_failure_for_assumed_courses(power: float) -> None:
    """Failure at 12, after a degradation that takes half as long as the life before."""
    healthy, ill = 400, 200
    rise = 12.0 * (np.arange(1, ill + 1) / ill) ** power
    values = [0.0] * healthy + (rise + np.random.default_rng(1).normal(0, 0.3, ill)).tolist()
    begin = healthy + int(np.argmax(rise > 6.0))
    given = lives(values, begin_at=begin)
    held = [
        life.low_s <= 10.0 * (healthy + ill - index) <= life.high_s
        for index, life in enumerate(given)
        if life is not None
    ]
    assert np.mean(held) > 0.75


def test_a_steeper_rise_leaves_less_time() -> None:
    estimates = []
    for ill in (50, 100, 200):
        values = [0.0] * 400 + (9.0 * np.arange(1, ill + 1) / ill).tolist()
        *_, life = lives(values, begin_at=400 + 2 * ill // 3)
        assert life is not None
        estimates.append(life.estimate_s)
    assert estimates == sorted(estimates)
    assert estimates[2] > 2 * estimates[0]


def test_the_history_is_bounded_and_keeps_its_time_span() -> None:
    history = DegradationHistory()
    for index in range(10_000):
        history.add(float(index), 0.0)
    assert len(history._times_s) < HISTORY_ROWS
    assert history._times_s[0] == 0.0
    assert history._times_s[-1] > 9_800
