"""References of the healthy condition and operating states, against plain NumPy."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windvane.processors.learning.baseline import (
    KEPT_ROWS,
    LONGEST_LEARNING,
    MAX_STATES,
    OperatingStates,
    Reference,
    medians,
)


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_medians_are_those_of_numpy_without_nan(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 4)))
    rows = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=shape)
    rows[np.random.default_rng(5).random(shape) < data.draw(st.sampled_from([0, 0.3, 0.9]))] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = np.nanmedian(rows, axis=0)
    np.testing.assert_allclose(medians(rows), expected, rtol=1e-12)


def test_a_reference_is_the_median_and_scaled_deviation_of_its_values() -> None:
    rows = np.random.default_rng(1).normal([3.0, -7.0], [2.0, 0.001], (60, 2))
    reference = Reference(np.array([1.0, 1.0]))
    for row in rows:
        reference.add(row, 60)
    assert reference.learned
    np.testing.assert_allclose(reference.center, np.median(rows, axis=0))
    spread = 1.4826 * np.median(np.abs(rows - np.median(rows, axis=0)), axis=0)
    np.testing.assert_allclose(reference.spread, [spread[0], 1.0])
    row = np.median(rows, axis=0) + np.array([spread[0], 2.0])
    np.testing.assert_allclose(reference.deviations(row), [1.0, 2.0], rtol=1e-9)


def test_learning_continues_while_values_move_up_to_a_bound() -> None:
    moving = Reference(np.array([1.0]))
    learned_at = None
    for number in range(1, 200):
        moving.add(np.array([0.3 * number]), 20)
        if moving.learned:
            learned_at = number
            break
    assert learned_at == LONGEST_LEARNING * 20
    steady = Reference(np.array([1.0]))
    for _ in range(20):
        steady.add(np.array([1.0]), 20)
    assert steady.learned


def test_a_reference_samples_its_whole_past_evenly() -> None:
    reference = Reference(np.array([0.0]))
    for number in range(10_000):
        reference.add(np.array([float(number)]), 20)
    assert len(reference._rows) < KEPT_ROWS
    assert reference.center[0] == pytest.approx(5000, rel=0.05)
    assert reference.count == 10_000


def test_the_reference_follows_rises_slightly_and_falls_fully() -> None:
    rising, falling, free = (Reference(np.array([floor])) for floor in (1.0, 1.0, 0.0))
    for number in range(1000):
        rising.add(np.array([0.1 * number]), 20)
        falling.add(np.array([-0.1 * number]), 20)
        free.add(np.array([0.1 * number]), 20)
    assert rising.center[0] == pytest.approx(0.95 + 2.0)  # the median of the first 20, and twice the floor
    assert falling.center[0] == pytest.approx(-50, rel=0.05)
    assert free.center[0] == pytest.approx(50, rel=0.05)


def states_of(*operating: list[float]) -> list[int]:
    states = OperatingStates(np.array([1.0]))
    return [states.of(np.array(row))[0] for row in operating]


def test_rows_without_operating_columns_are_one_state() -> None:
    assert states_of([], [], []) == [0, 0, 0]


def test_states_are_distinguished_in_every_operating_column() -> None:
    assert states_of([1000, 0], [1010, 0], [1500, 0], [1000, 50], [1495, 0], [1003, 49]) == [0, 0, 1, 2, 1, 2]


def test_noise_around_zero_is_one_state_once_there_are_larger_values() -> None:
    numbers = states_of(*([value] for value in (1500.0, 0.0, 3.0, -2.0, 1.0, 1497.0)))
    assert numbers == [0, 1, 1, 1, 1, 0]


def test_the_number_of_states_is_bounded_and_the_most_used_are_kept() -> None:
    states = OperatingStates(np.array([1.0]))
    _, often = states.of(np.array([1.0]))
    for _ in range(50):
        often.add(np.zeros(1), 10)
    for power in range(1, 40):  # each far outside of the range so far
        states.of(np.array([2.0**power]))
    assert len(states.references) <= MAX_STATES
    assert often in states.references
