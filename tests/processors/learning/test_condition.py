"""`condition` on simulated machines: alarms, no false alarms, and the same output for any cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from windvane.errors import OperationFailed, PolicyInvalid
from windvane.processors.operations.base.block import Block, EventTimes
from windvane.processors.operations.base.state_codec import encode_state

from tests.processors.learning.machines import (
    COLUMNS,
    INTERVAL_S,
    SECOND_NS,
    blocks,
    by_column,
    features,
    judged,
    onsets,
)
from tests.processors.streams import Cut, Output, cuts, op, run, run_with_restarts

pytestmark = pytest.mark.slow

LEARN = {"learn": 20}


@pytest.mark.parametrize("noise_db", [0.2, 1.0, 3.0])
def test_a_healthy_machine_raises_no_warning(noise_db: float) -> None:
    said = judged(features(np.zeros(8000), noise_db=noise_db))
    assert onsets(said["grade"]) == []
    assert np.isnan(said["rul_s"]).all()
    assert set(said["state"][np.isfinite(said["state"])]) == {0.0}
    assert set(said["phase"]) == {0.0, 1.0}
    assert np.isnan(said["score"][:40]).all()
    assert np.isfinite(said["score"][60:]).all()


def test_single_outliers_raise_no_warning() -> None:
    level = np.zeros(5000)
    level[np.random.default_rng(1).integers(100, 5000, 200)] = 30.0
    said = judged(features(level))
    assert onsets(said["grade"]) == []


def test_shocks_at_the_start_raise_no_warning_and_hide_no_failure() -> None:
    level = np.zeros(400)
    level[:15] = 25.0
    level[200:] = 14.0
    said = judged(features(level))
    [danger] = onsets(said["grade"], 2)
    assert 200 < danger <= 210
    assert onsets(said["grade"]) == [danger]


def test_a_machine_is_relearned_once_it_has_run_in_and_is_quieter() -> None:
    level = np.zeros(1000)
    level[:60] = 8.0
    level[800:] = 7.0
    [warning] = onsets(judged(features(level))["grade"])
    assert 800 < warning <= 812


def test_a_step_is_a_warning_within_ten_rows_and_a_change_point() -> None:
    level = np.repeat([0.0, 8.0], 300)
    said = judged(features(level))
    [warning] = onsets(said["grade"])
    assert 300 < warning <= 310
    assert onsets(said["grade"], 2) == []
    assert 300 <= np.flatnonzero(said["change"])[0] <= 310
    assert np.count_nonzero(said["change"]) == 1


def test_a_slow_rise_is_drift_then_warning_then_danger() -> None:
    hours = np.arange(2000) * INTERVAL_S / 3600
    said = judged(features(np.maximum(0.0, 4.0 * (hours - 2.0))))
    [warning], [danger] = onsets(said["grade"]), onsets(said["grade"], 2)
    # 6 dB and 10 dB are reached 1.5 and 2.5 hours after the rise begins, above the level learned meanwhile.
    assert 3.3 < hours[warning] < 4.0
    assert 4.3 < hours[danger] < 5.0
    assert said["drift"][warning] == pytest.approx(4.0, rel=0.3)
    assert abs(said["drift"][400]) < 2.0


def test_a_rise_of_one_band_is_detected_and_the_band_is_named() -> None:
    band_db = np.repeat([0.0, 16.0], 300)
    output = run(op("condition"), blocks(features(np.zeros(600), band_db=band_db)))
    said = by_column(output)
    [warning] = onsets(said["grade"])
    assert output.blocks[0].attrs["watched"][int(said["leading"][warning])] == "channel1.band_2_3"


def test_the_grade_falls_only_after_a_while_of_clearly_lower_values() -> None:
    quarter = np.repeat([0.0, 8.0, 5.0, 2.0], 200)
    grade = judged(features(quarter))["grade"]
    assert grade[599] == 1  # 5 raises no warning, but does not clear one either
    [cleared] = np.flatnonzero(np.diff(grade) == -1)
    assert 609 <= cleared <= 625


def test_remaining_life_is_estimated_from_the_warning_on_and_shrinks_to_the_end() -> None:
    """Exponential growth of the amplitude, linear in dB, to 12 dB."""
    healthy, ill = 600, 600
    level = np.concatenate((np.zeros(healthy), np.linspace(0, 12, ill)))
    said = judged(features(level))
    there = np.isfinite(said["rul_s"])
    np.testing.assert_array_equal(there, said["grade"] > 0)
    left_s = (healthy + ill - np.arange(healthy + ill)) * float(INTERVAL_S)
    within = (said["rul_low_s"] <= left_s) & (left_s <= said["rul_high_s"])
    assert within[there].mean() > 0.8
    assert (said["rul_low_s"] <= said["rul_s"])[there].all()
    assert (said["rul_s"] <= said["rul_high_s"])[there].all()
    assert np.median(said["rul_s"][-50:]) < np.median(said["rul_s"][there][:50])


def test_operating_states_are_learned_separately() -> None:
    rng = np.random.default_rng(2)
    fast = np.repeat(rng.integers(0, 2, 100), 20)
    rows = features(np.where(fast == 1, 12.0, 0.0))
    rpm = np.where(fast == 1, 1500.0, 1000.0) + rng.normal(0, 5, len(fast))
    rows = np.column_stack((rows, rpm))
    said = judged(rows, columns=(*COLUMNS, "shaft_rpm"))
    assert onsets(said["grade"]) == []
    assert set(said["state"]) == {0.0, 1.0}
    # Without the speed it looks like a failure; and with it, a failure in one state is seen there.
    assert onsets(judged(rows, columns=(*COLUMNS, "shaft_rpm"), operating=[])["grade"]) != []
    rows[1500:, : len(COLUMNS)] *= 4.0
    [danger] = onsets(judged(rows, columns=(*COLUMNS, "shaft_rpm"))["grade"], 2)
    assert 1500 <= danger <= 1511


def test_a_shock_right_after_learning_is_not_taken_for_a_start() -> None:
    level = np.zeros(200)
    level[41] = 40.0
    assert (judged(features(level))["phase"][40:] == 1).all()


def test_idling_does_not_define_the_healthy_state() -> None:
    shifts = [-15.0, 0.0] * 8
    level = np.repeat([0.0, *shifts, 14.0], [200, *[150, 80] * 8, 50])
    said = judged(features(level))
    [danger] = onsets(said["grade"], 2)
    assert len(level) - 50 < danger <= len(level) - 40
    assert onsets(said["grade"]) == [danger]


def test_rises_and_falls_of_values_are_detected() -> None:
    rows = np.random.default_rng(3).normal([50.0, 3.0], [0.5, 0.1], (1000, 2))
    for sign in (-1, 1):
        moved = rows.copy()
        moved[600:, 1] += sign * 1.2
        said = judged(moved, columns=("oil_c", "bar"))
        assert 600 < onsets(said["grade"])[0] <= 610
    assert onsets(judged(rows, columns=("oil_c", "bar"))["grade"]) == []


def test_missing_values_keep_the_grade_and_a_dead_sensor_does_not_hide_others() -> None:
    rows = features(np.repeat([0.0, 8.0], 300))
    rows[350:400] = np.nan
    rows[450:, COLUMNS.index("channel0.rms")] = 0.0
    rows[450:500] = np.where(rows[450:500] > 0, rows[450:500], np.nan)
    said = judged(rows)
    assert np.isnan(said["score"][350:400]).all()
    assert (said["grade"][320:] == 1).all()
    assert np.isfinite(said["score"][460:]).all()
    dead = features(np.zeros(600))
    dead[300:, : len(COLUMNS) // 2] = 0.0
    assert onsets(judged(dead)["grade"]) == []


def test_clock_jumps_do_not_change_the_remaining_life() -> None:
    times_s = np.arange(600) * INTERVAL_S
    leaping = times_s.copy()
    leaping[300:302] -= 21_242
    leaping[400:] += 86_400
    rows = features(np.repeat([0.0, 8.0], 300))
    usual, odd = (
        by_column(run(op("condition"), blocks(rows, times * SECOND_NS))) for times in (times_s, leaping)
    )
    assert onsets(usual["grade"]) == onsets(odd["grade"])
    assert odd["rul_s"][-1] == pytest.approx(usual["rul_s"][-1], rel=0.05)


def test_rows_of_one_interval_are_aggregated_by_their_medians() -> None:
    """Ten windows of 0.1 s that arrive in one event per second give one row per second."""
    rows = features(np.zeros(3000))
    ends = np.arange(10, 3001, 10)
    times = EventTimes(ends, np.arange(300) * SECOND_NS)
    output = run(op("condition"), [Block(rows, 0, times, 10.0, COLUMNS)])
    assert 299 <= len(output.rows) <= 301
    spread = [
        by_column(given)["score"][-100:].std() for given in (output, run(op("condition"), blocks(rows)))
    ]
    assert spread[0] < spread[1]


def _same(output: Output, expected: Output) -> bool:
    return output.same_rows(expected) and output.times_ns.tolist() == expected.times_ns.tolist()


def eventful() -> NDArray[np.float64]:
    """Everything at once: shocks, steps, missing values, two states, danger and back."""
    rng = np.random.default_rng(4)
    level = np.repeat([0.0, 1.0, 9.0, 12.0, 0.0, 14.0], 30)
    rows = features(level)
    rows[rng.integers(0, len(rows), 6)] *= 20
    rows[50, :5] = np.nan
    rows[70] = np.nan
    return np.column_stack((rows, np.where(np.arange(len(rows)) % 60 < 45, 1000.0, 1500.0)))


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_output_does_not_depend_on_chunk_boundaries_or_restarts(data: st.DataObject) -> None:
    rows, columns = eventful(), (*COLUMNS, "rpm")
    step_ns = data.draw(st.sampled_from([0, 3 * 10**8, 10**9, 10**10]))
    times_ns = (np.arange(len(rows)) * step_ns).tolist()
    rate_hz = data.draw(st.sampled_from([0.0, 2.0]))
    each = Cut(list(range(1, len(rows) + 1)), times_ns, [len(rows)])
    again = each.regrouped(data.draw(st.sets(st.integers(1, len(rows)), max_size=6)))

    def make() -> Any:
        return op("condition", learn=12, interval_s=0.9)

    expected = run(make(), each.blocks(rows, rate_hz=rate_hz, columns=columns))
    if step_ns == 10**10:
        assert by_column(expected)["grade"].max() == 2
    given_blocks = list(again.blocks(rows, rate_hz=rate_hz, columns=columns))
    assert _same(run(make(), given_blocks), expected)
    assert _same(run_with_restarts(make, given_blocks), expected)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_output_for_any_event_times_does_not_depend_on_chunk_boundaries(data: st.DataObject) -> None:
    rows = features(np.repeat([0.0, 14.0], 40))
    cut = data.draw(cuts(len(rows), max_events=30))
    whole_events = cut.regrouped([])
    expected = run(op("condition", learn=10), whole_events.blocks(rows, columns=COLUMNS))
    for output in (
        run(op("condition", learn=10), cut.blocks(rows, columns=COLUMNS)),
        run_with_restarts(lambda: op("condition", learn=10), list(cut.blocks(rows, columns=COLUMNS))),
    ):
        assert _same(output, expected)


def test_a_gap_appears_in_the_row_numbers_and_keeps_what_was_learned() -> None:
    rows = features(np.zeros(200))
    [before] = blocks(rows[:100])
    behind = Block(
        rows[100:], 150, EventTimes(np.arange(151, 251), np.arange(150, 250) * 10**10), columns=COLUMNS
    )
    output = run(op("condition"), [before, behind], gaps=True)
    assert [block.first for block in output.blocks] == [0, 101]
    assert np.isfinite(output.rows[100:, 0]).all()


def test_a_rejected_input_leaves_the_state_unchanged() -> None:
    [good] = blocks(features(np.zeros(100)))
    [other] = blocks(features(np.zeros(10)), columns=[f"{name}x" for name in COLUMNS])
    condition = op("condition")
    condition.process(good)
    before = encode_state(type(condition), condition.state())
    with pytest.raises(OperationFailed, match=r"channel0\.rmsx"):
        condition.process(other)
    assert encode_state(type(condition), condition.state()) == before


def test_unknown_columns_are_rejected_with_a_suggestion() -> None:
    with pytest.raises(OperationFailed, match='no column "rpms"; did you mean "rpm"'):
        judged(np.zeros((3, 2)), columns=("rpm", "x"), operating=["rpms"])
    with pytest.raises(OperationFailed, match="1 to 256 columns, and here are 300"):
        judged(np.zeros((3, 300)), columns=[f"c{index}" for index in range(300)])


def test_thresholds_in_the_wrong_order_are_rejected() -> None:
    with pytest.raises(PolicyInvalid, match="danger is 5, and must be above warning, which is 6"):
        op("condition", danger=5.0)


def test_state_stays_small() -> None:
    condition = op("condition", learn=12)
    for block in blocks(np.tile(eventful(), (20, 1)), columns=(*COLUMNS, "rpm")):
        condition.process(block)
    assert len(encode_state(type(condition), condition.state())) < 100_000
