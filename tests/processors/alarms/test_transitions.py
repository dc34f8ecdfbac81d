"""Grades to transitions, values to grades: against a naive version that looks back each time."""

import math
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from windvane.processors.alarms.transitions import AlarmStateMachine, Peak, PeakTracker, ThresholdGrades
from windvane.store.catalog.alarm_rules import AlarmRule


def rule(**settings: object) -> AlarmRule:
    return msgspec.convert({"output": "fields", "column": "rms", **settings}, AlarmRule)


def grades(values: list[float], of: AlarmRule) -> list[int]:
    state = ThresholdGrades()
    return [state.take(value, of) for value in values]


@given(st.lists(st.integers(0, 2)))
def test_transitions_are_exactly_the_changes_of_the_grade(given_grades: list[int]) -> None:
    course = AlarmStateMachine()
    said = [course.take(grade) for grade in given_grades]
    for (before, now), transition in zip(pairwise([0, *given_grades]), said, strict=True):
        if before == now:
            assert transition is None
        elif now == 0:
            assert transition == "cleared"
        elif before == 0:
            assert transition == "raised"
        else:
            assert transition == ("escalated" if now > before else "eased")


def test_a_level_is_reached_after_enough_consecutive_rows() -> None:
    of = rule(warning=10.0, danger=20.0, hold_rows=3)
    assert grades([10, 11, 9, 10, 10, 10], of) == [0, 0, 0, 0, 0, 1]
    assert grades([25, 25, 25], of) == [0, 0, 2]
    assert grades([15, 25, 25, 25], of) == [0, 0, 1, 2]


def test_the_level_falls_by_one_after_enough_rows_beyond_the_hysteresis() -> None:
    of = rule(warning=10.0, danger=20.0, hysteresis=2.0, hold_rows=2)
    assert grades([20, 20, 18, 18, 17, 18, 17, 17], of) == [0, 2, 2, 2, 2, 2, 2, 1]
    assert grades([20, 20, 0, 0, 0, 0], of) == [0, 2, 2, 1, 1, 0]


def test_missing_values_neither_raise_nor_clear_an_alarm() -> None:
    of = rule(warning=10.0, hold_rows=2)
    assert grades([10, math.nan, 10, 0, math.nan, 0], of) == [0, 0, 1, 1, 1, 0]


def test_a_rule_may_have_one_level_and_may_watch_for_low_values() -> None:
    assert grades([5, 3, 5], rule(danger=4.0, side="below", hold_rows=1)) == [0, 2, 0]
    of = rule(warning=6.0, danger=4.0, side="below", hysteresis=1.0, hold_rows=1)
    assert grades([7, 6, 4, 5, 6, 7, 8], of) == [0, 1, 2, 2, 1, 1, 0]


@given(
    st.lists(st.floats(0, 30), max_size=60),
    st.integers(1, 4),
    st.sampled_from([0.0, 3.0]),
    st.integers(0, 60),
)
def test_grades_equal_those_of_all_values_at_once_and_do_not_depend_on_blocks(
    values: list[float], hold: int, hysteresis: float, cut: int
) -> None:
    of = rule(warning=10.0, danger=20.0, hold_rows=hold, hysteresis=hysteresis)
    state = ThresholdGrades()
    first = [state.take(value, of) for value in values[:cut]]
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=ThresholdGrades)
    assert first + [state.take(value, of) for value in values[cut:]] == naive(values, hold, hysteresis)


def naive(values: list[float], hold: int, hysteresis: float) -> list[int]:
    levels = {1: 10.0, 2: 20.0}
    found: list[int] = []
    grade, calm_since = 0, 0
    for place in range(len(values)):
        window = values[max(0, place + 1 - hold) : place + 1]
        reached = [g for g in levels if len(window) == hold and min(window) >= levels[g]]
        if max(reached, default=0) > grade:
            grade, calm_since = max(reached), place
        if grade:
            window = values[max(calm_since, place + 1 - hold) : place + 1]
            back = [value for value in window if levels[grade] - value > hysteresis]
            if len(window) == hold and len(back) == hold:
                grade, calm_since = grade - 1, place + 1
        found.append(grade)
    return found


@pytest.mark.parametrize("sign", [1, -1])
@given(
    before=st.lists(st.one_of(st.floats(0, 30), st.just(math.nan)), max_size=30),
    during=st.lists(st.one_of(st.floats(0, 30), st.just(math.nan)), max_size=30),
    cut=st.integers(0, 30),
)
def test_the_peak_is_the_worst_of_the_alarm_and_of_the_values_that_raised_it(
    before: list[float], during: list[float], cut: int, sign: int
) -> None:
    peaks = PeakTracker()

    def take(values: list[float], first_row: int, *, is_open: bool) -> None:
        nonlocal peaks
        rows = range(first_row, first_row + len(values))
        given = np.array(values, dtype=np.float64), rows, [row * 10 for row in rows]
        if is_open:
            peaks.take_open(*given, sign=sign)
        else:
            peaks.take(*given, first_level=15.0, sign=sign)
        peaks = msgspec.msgpack.decode(msgspec.msgpack.encode(peaks), type=PeakTracker)

    take(before[:cut], 0, is_open=False)
    take(before[cut:], len(before[:cut]), is_open=False)
    take(during[:cut], len(before), is_open=True)
    take(during[cut:], len(before) + len(during[:cut]), is_open=True)

    calm = [row for row, value in enumerate(before) if sign * value < sign * 15.0]
    begin = calm[-1] + 1 if calm else 0
    values = [*before, *during]
    rows = [row for row in range(begin, len(values)) if not math.isnan(values[row])]
    worst = max(rows, key=lambda row: (sign * values[row], -row), default=None)
    assert peaks.peak == (None if worst is None else Peak(values[worst], worst, worst * 10))
