"""Running time: event time without leaps."""

from __future__ import annotations

from windvane.processors.learning.operating_time import RunningTime

SECOND_NS = 1_000_000_000


def lived(*times_s: float, rate_hz: float = 0.0) -> list[float]:
    clock = RunningTime()
    return [clock.advance(round(time_s * SECOND_NS), rate_hz) for time_s in times_s]


def test_running_time_is_event_time_since_the_first_row() -> None:
    assert lived(1e9, 1e9 + 10, 1e9 + 25) == [0.0, 10.0, 25.0]


def test_late_and_simultaneous_rows_add_no_running_time() -> None:
    assert lived(100, 110, 105, 110, 120) == [0.0, 10.0, 10.0, 10.0, 20.0]


def test_clock_changes_and_outages_count_as_one_usual_interval() -> None:
    assert lived(30_000, 30_010, 8_768, 8_768, 30_040, 30_050) == [0.0, 10.0, 20.0, 20.0, 30.0, 40.0]
    assert lived(0, 10, 86_410, 86_420) == [0.0, 10.0, 20.0, 30.0]


def test_a_pause_of_less_than_an_hour_counts_as_running_time() -> None:
    assert lived(0, 10, 1810) == [0.0, 10.0, 1810.0]


def test_infrequent_rows_may_be_hours_apart() -> None:
    assert lived(0, 3000, 10_000) == [0.0, 3000.0, 10_000.0]


def test_within_an_event_time_advances_by_the_rate_and_is_counted_once() -> None:
    assert lived(0, 0, 0, 0, rate_hz=4.0) == [0.0, 0.25, 0.5, 0.75]
    assert lived(0, 0, 1, 1, 2, rate_hz=2.0) == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert lived(0, 10, 20, rate_hz=10.0) == [0.0, 10.0, 20.0]
