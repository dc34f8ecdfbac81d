"""Change points and slopes against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from windvane.processors.learning.trend import SLOPE_ROWS, ChangeDetector, Slope


def naive_changes(values: list[float]) -> list[int]:
    """Page's sums, computed explicitly: of deviations from the previous mean, less the tolerance."""
    found: list[int] = []
    begin = 0
    for end in range(1, len(values) + 1):
        piece = values[begin:end]
        deviations = [
            value - sum(piece[:index]) / index if index else 0.0 for index, value in enumerate(piece)
        ]
        for sign in (1, -1):
            steps = [sign * deviation - 0.5 for deviation in deviations]
            # The largest sum over the latest values, possibly over none.
            largest = max([0.0, *(sum(steps[index:]) for index in range(len(steps)))])
            if largest >= 8.0 and begin < end:
                found.append(end - 1)
                begin = end
    return found


def test_changes_are_found_at_the_rows_of_the_naive_version() -> None:
    rng = np.random.default_rng(1)
    for size in (1.0, 3.0, 20.0):
        values = (rng.normal(0, 0.4, 240) + np.repeat([0.0, size, 0.0], 80)).tolist()
        detector = ChangeDetector()
        assert [index for index, value in enumerate(values) if detector.found(value)] == naive_changes(values)


def test_the_first_value_is_never_a_change() -> None:
    detector = ChangeDetector()
    assert not any(detector.found(1000.0) for _ in range(50))


def test_steady_noise_has_no_change() -> None:
    detector = ChangeDetector()
    noise = np.random.default_rng(2).normal(0, 0.3, 20_000).tolist()
    assert not any(map(detector.found, noise))


def test_the_slope_is_that_of_numpy() -> None:
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.uniform(1, 20, 200))
    values = 0.01 * times + rng.normal(0, 0.5, 200)
    slope = Slope()
    for index in range(200):
        got = slope.per_hour(float(times[index]), float(values[index]))
        last = slice(max(0, index + 1 - SLOPE_ROWS), index + 1)
        if index < 9:
            assert np.isnan(got)
        else:
            assert got == pytest.approx(3600 * np.polyfit(times[last], values[last], 1)[0], rel=1e-6)


def test_rows_of_the_same_time_have_no_slope() -> None:
    slope = Slope()
    assert all(np.isnan(slope.per_hour(5.0, float(value))) for value in range(20))
