"""`statistics` against NumPy for periods of UTC, and moments against SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from windvane.errors import OperationFailed, PolicyInvalid
from windvane.processors.operations import statistics as statistics_module
from windvane.processors.operations.base.block import Block, EventTimes
from windvane.processors.operations.moments import Moments

from tests.processors.streams import SECOND_NS, Cut, firsts, op, run, run_with_restarts, whole

TEN_TO_NINE_NS = 1_800_000_000 * SECOND_NS  # a multiple of 600 s


def numbers(count: int, columns: int = 2) -> NDArray[np.float64]:
    return np.random.default_rng(5).standard_normal((count, columns)) * 3 + 1000


def rows_each_second(values: NDArray[np.float64], seconds: NDArray[Any], **more: Any) -> Block:
    times_ns = TEN_TO_NINE_NS + (np.asarray(seconds) * SECOND_NS).astype(np.int64)
    return Block(values, 0, EventTimes(np.arange(1, len(values) + 1), times_ns), **more)


def test_every_ten_minutes_of_utc_have_a_row() -> None:
    seconds = np.arange(-100, 1900)
    values = numbers(len(seconds))
    values[150:160, 1] = np.nan
    block = rows_each_second(values, seconds, rate_hz=1.0, columns=("wind", "power"))
    output = run(op("statistics"), [block])
    assert output.blocks[0].columns == tuple(
        f"{column}.{name}"
        for column in ("wind", "power")
        for name in ("min", "mean", "max", "std", "count", "completeness")
    )
    assert len(output.rows) == 4  # the fifth is still open
    for index, row in enumerate(output.rows):
        part = values[(seconds >= 600 * (index - 1)) & (seconds < 600 * index)]
        expected = [
            value
            for column in part.T
            for value in (
                np.nanmin(column),
                np.nanmean(column),
                np.nanmax(column),
                np.nanstd(column),
                np.isfinite(column).sum(),
                np.isfinite(column).sum() / 600,
            )
        ]
        np.testing.assert_allclose(row, expected, rtol=1e-12)
    ends = [TEN_TO_NINE_NS + 600 * SECOND_NS * index for index in range(4)]
    assert output.times_ns.tolist() == ends
    assert output.blocks[0].rate_hz == 1 / 600


def test_periods_without_rows_leave_a_gap() -> None:
    block = rows_each_second(numbers(4), np.array([0.0, 1.0, 5.0, 6.0]))
    output = run(op("statistics", period_s=1), [block], gaps=True)
    assert firsts(output) == [0, 1, 5]
    assert output.rows[:, 4].tolist() == [1, 1, 1]
    assert np.isnan(output.rows[:, 5]).all()  # no rate, no completeness


def test_late_rows_are_left_out_and_counted_until_the_clock_was_set_back() -> None:
    seconds = np.concatenate(([10.0, 11.0, 9.5, 12.0], -1000 + np.arange(12) * 0.5, [13.0]))
    statistics = op("statistics", period_s=1, measures=["max"])
    values = np.arange(len(seconds), dtype=np.float64)[:, np.newaxis]
    output = run(statistics, [rows_each_second(values, seconds)], gaps=True)
    assert statistics.counts() == {"late": 1 + 7}
    # The eighth consecutive late event is accepted, and the open period before it is output.
    assert output.rows[:, 0].tolist() == [0, 1, 3, 11, 13, 15]
    assert firsts(output)[:4] == [0, 1, 2, 4]


def test_a_period_may_have_more_parts_than_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics_module, "MAX_PARTS", 3)
    values = numbers(40_001)
    times_ns = TEN_TO_NINE_NS + np.array([0, 1, 2, SECOND_NS])
    blocks = list(Cut([7, 20_000, 40_000, 40_001], times_ns.tolist(), [1, 2, 3, 4]).blocks(values))
    [row] = run(op("statistics", period_s=1, measures=["mean", "std", "kurtosis"]), blocks).rows
    part = values[:40_000]
    expected = [part.mean(axis=0), part.std(axis=0), scipy.stats.kurtosis(part)]
    np.testing.assert_allclose(row.reshape(2, 5)[:, :3].T, expected, rtol=1e-9)


MEASURES = ["min", "mean", "max", "std", "rms", "peak", "peak_to_peak", "crest", "skewness", "kurtosis"]


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_output_does_not_depend_on_chunk_boundaries(data: st.DataObject) -> None:
    count = data.draw(st.sampled_from([1, 50, 12_500]))
    values = numbers(count)
    steps = st.sampled_from([0, 1, 1, SECOND_NS // 3, SECOND_NS, 5 * SECOND_NS, -SECOND_NS])
    stops = [*sorted(data.draw(st.lists(st.integers(0, count), max_size=12))), count]
    times_ns = np.cumsum(data.draw(st.lists(steps, min_size=len(stops), max_size=len(stops))))
    events = Cut(stops, (TEN_TO_NINE_NS + times_ns).tolist(), [])
    make: dict[str, Any] = {"period_s": 1, "measures": MEASURES}
    expected = run(op("statistics", **make), events.regrouped([]).blocks(values), gaps=True)
    blocks = list(events.regrouped(data.draw(st.lists(st.integers(0, 12)))).blocks(values))
    for output in (
        run(op("statistics", **make), blocks, gaps=True),
        run_with_restarts(lambda: op("statistics", **make), blocks, gaps=True),
    ):
        assert output.same_rows(expected)
        assert firsts(output) == firsts(expected)
        assert output.times_ns.tolist() == expected.times_ns.tolist()


@given(
    parts=st.lists(
        st.lists(st.floats(-1e6, 1e6, width=32) | st.just(float("nan")), min_size=1, max_size=30),
        min_size=1,
        max_size=6,
    )
)
@settings(deadline=None)
def test_merged_moments_are_those_of_the_whole(parts: list[list[float]]) -> None:
    merged = Moments.none(1)
    for index, part in enumerate(parts):
        merged = merged.with_more(Moments.of(np.array(part)[np.newaxis, :, np.newaxis]))
        if index % 2:
            merged = merged.merged()
    merged = merged.merged()
    column = np.array([value for part in parts for value in part])
    column = column[np.isfinite(column)]
    assert merged.count.tolist() == [[len(column)]]
    if not len(column):
        assert np.isnan(merged.measure("mean")[0, 0])
        return
    scale = max(np.abs(column).max(), 1e-30)
    assert merged.mean[0, 0] == pytest.approx(column.mean(), abs=1e-12 * scale)
    for power, moment in ((2, merged.m2), (3, merged.m3), (4, merged.m4)):
        exact = np.sum((column - column.mean()) ** power)
        assert moment[0, 0] == pytest.approx(exact, rel=1e-9, abs=1e-10 * scale**power)
    assert (merged.low[0, 0], merged.high[0, 0]) == (column.min(), column.max())


def test_measures_are_those_of_scipy() -> None:
    column = numbers(5000, 1)[:, 0]
    moments = Moments.of(column.reshape(5, 1000, 1)).merged()
    rms = np.sqrt(np.mean(column**2))
    expected = {
        "std": column.std(),
        "rms": rms,
        "peak": np.abs(column).max(),
        "peak_to_peak": np.ptp(column),
        "crest": np.abs(column).max() / rms,
        "skewness": scipy.stats.skew(column),
        "kurtosis": scipy.stats.kurtosis(column),
    }
    for name, value in expected.items():
        assert moments.measure(name)[0, 0] == pytest.approx(value, rel=1e-9)  # type: ignore[arg-type]


def test_invalid_statistics_parameters_are_rejected() -> None:
    with pytest.raises(PolicyInvalid, match="name each once"):
        op("statistics", measures=["min", "min"])
    with pytest.raises(PolicyInvalid, match="period_s of"):
        op("statistics", period_s=0)
    statistics = op("statistics")
    statistics.process(next(whole(10).blocks(numbers(10))))
    with pytest.raises(OperationFailed, match="columns changed to 3"):
        statistics.process(next(whole(10).blocks(numbers(10, 3))))
