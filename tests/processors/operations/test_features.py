"""`features` against plain Python and SciPy, for any cut of the samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from windvane.errors import OperationFailed, PolicyInvalid

from tests.processors.operations import naive
from tests.processors.streams import Cut, cuts, firsts, op, run, run_with_restarts, whole

RATE_HZ = 1000.0


def noise(count: int, channels: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(3).standard_normal((count, channels)) * 10 + 1


def rows_of(samples: NDArray[Any], rate_hz: float = RATE_HZ, **parameters: Any) -> NDArray[Any]:
    return run(op("features", **parameters), whole(len(samples)).blocks(samples, rate_hz=rate_hz)).rows


@pytest.mark.parametrize("length", [40, 41])
def test_rows_equal_those_of_the_naive_version(length: int) -> None:
    samples = noise(3 * length)
    bands = [(0.0, 100.0), (50.0, 500.0), (0.0, 500.0), (100.0, 130.0)]
    rows = rows_of(samples, window=length, bands=[list(band) for band in bands])
    windows = samples[:, 0].reshape(3, length)
    expected = [naive.features(window.tolist(), RATE_HZ, bands) for window in windows]
    np.testing.assert_allclose(rows, expected, rtol=1e-10)
    np.testing.assert_allclose(rows[:, 2], scipy.stats.kurtosis(windows, axis=1), rtol=1e-10)


@pytest.mark.parametrize("length", [64, 99, 100])
@pytest.mark.parametrize("bands", [1, 2, 7])
def test_bands_that_cover_all_frequencies_hold_all_energy(length: int, bands: int) -> None:
    rows = rows_of(noise(5 * length), window=length, bands=bands)
    np.testing.assert_allclose(rows[:, 3:].sum(axis=1), rows[:, 0] ** 2, rtol=1e-12)


def test_the_energy_of_a_sine_is_in_its_band() -> None:
    seconds = np.arange(1000) / RATE_HZ
    rows = rows_of(3 * np.sin(2 * np.pi * 120 * seconds)[:, np.newaxis], window=1000, bands=5)
    np.testing.assert_allclose(rows[0], [3 / np.sqrt(2), 3, -1.5, 0, 4.5, 0, 0, 0], atol=0.01)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.0, 1e-150, 1e150])
def test_samples_that_are_all_equal_have_features_too(value: float) -> None:
    rows = rows_of(np.full((100, 1), value), window=50, bands=2)
    np.testing.assert_allclose(
        rows, [[abs(value), abs(value), 0.0, value**2, 0.0]] * 2, rtol=1e-12, atol=1e-30 * value**2
    )


def test_kurtosis_holds_for_very_small_and_very_large_samples() -> None:
    small, large = noise(50) * 1e-200, noise(50) * 1e120
    expected = scipy.stats.kurtosis(noise(50)[:, 0])
    for samples in (small, large):
        assert rows_of(samples, window=50, bands=0)[0, 2] == pytest.approx(expected, rel=1e-9)


def test_integers_are_taken_at_their_value() -> None:
    samples = np.array([[-32768], [32767], [0], [100]], np.int16)
    rows = rows_of(samples, window=4, bands=0)
    np.testing.assert_allclose(rows, [naive.features(samples[:, 0].tolist(), RATE_HZ, [])], rtol=1e-12)
    assert rows[0, 1] == 32768


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_output_does_not_depend_on_chunk_boundaries(data: st.DataObject) -> None:
    length, channels = data.draw(st.sampled_from([4, 7, 20])), data.draw(st.integers(1, 3))
    count = data.draw(st.integers(1, 5 * length))
    samples = noise(count, channels).astype(data.draw(st.sampled_from([np.int16, np.float64])))
    cut = data.draw(cuts(count))
    parameters = {"window": length, "bands": data.draw(st.integers(0, 2))}

    expected = run(op("features", **parameters), whole(count).blocks(samples, rate_hz=RATE_HZ))
    blocks = list(cut.blocks(samples, rate_hz=RATE_HZ))
    stops = [length * (index + 1) for index in range(len(expected.rows))]
    times_ns = naive.row_times_ns(stops, cut.event_stops, cut.times_ns)
    for output in (
        run(op("features", **parameters), blocks),
        run_with_restarts(lambda: op("features", **parameters), blocks),
    ):
        assert output.same_rows(expected)
        assert output.times_ns.tolist() == times_ns


def test_windows_do_not_depend_on_each_other() -> None:
    samples = noise(40_000)
    together = rows_of(samples, window=100)
    alone = [rows_of(samples[start : start + 100], window=100) for start in range(0, 40_000, 100)]
    assert together.tobytes() == np.concatenate(alone).tobytes()


def test_seconds_are_rounded_to_samples() -> None:
    output = run(op("features", window_s=0.0516, bands=0), whole(1000).blocks(noise(1000), rate_hz=RATE_HZ))
    assert output.blocks[0].attrs["window"] == 52
    assert output.blocks[0].rate_hz == RATE_HZ / 52


def test_columns_and_attrs_describe_the_rows() -> None:
    blocks = whole(100).blocks(noise(100), rate_hz=RATE_HZ, attrs={"unit": "g"})
    block = run(op("features", bands=[[0, 250], [250, 500]]), blocks).blocks[0]
    assert block.columns == ("rms", "peak", "kurtosis", "band_0_250", "band_250_500")
    assert block.attrs == {
        "kind": "features",
        "columns": ["rms", "peak", "kurtosis", "band_0_250", "band_250_500"],
        "rate_hz": RATE_HZ,
        "window": 100,
        "bands": [[0.0, 250.0], [250.0, 500.0]],
        "channels": 1,
        "unit": "g",
    }


def test_each_channel_has_columns_of_its_own() -> None:
    samples = noise(100, channels=2)
    block = run(op("features", bands=1), whole(100).blocks(samples, rate_hz=RATE_HZ)).blocks[0]
    assert block.columns[0] == "channel0.rms"
    assert block.columns[4:] == ("channel1.rms", "channel1.peak", "channel1.kurtosis", "channel1.band_0_500")
    assert block.rows[:, 4:].tobytes() == rows_of(samples[:, [1]], bands=1).tobytes()


def test_values_without_a_rate_have_windows_of_rows() -> None:
    blocks = whole(10).blocks(noise(10, channels=2), columns=("speed", "load"))
    block = run(op("features", window=5, bands=0), blocks).blocks[0]
    assert block.columns == tuple(f"{c}.{f}" for c in ("speed", "load") for f in ("rms", "peak", "kurtosis"))
    assert (block.rows.shape, block.rate_hz) == ((2, 6), 0.0)


def test_nan_values_affect_only_their_window() -> None:
    samples = noise(30)
    samples[15] = np.nan
    rows = rows_of(samples, window=10, bands=1)
    assert np.isnan(rows).tolist() == [[False] * 4, [True] * 4, [False] * 4]


@pytest.mark.parametrize(
    ("parameters", "rate_hz", "message"),
    [
        (
            {"window_s": 0.001},
            RATE_HZ,
            "window of 0.001 s at 1000 Hz has 1 samples, and can have 2 to .*set window_s",
        ),
        ({"window": 10}, 0.0, "without a rate has no frequency bands: set bands = 0"),
        ({}, 0.0, "0 samples.*or window to a number of samples"),
        ({"bands": [[100, 501]]}, RATE_HZ, "from 100 to 501 Hz reaches over half the rate of 1000 Hz"),
        (
            {"bands": [[101, 109]]},
            RATE_HZ,
            "from 101 to 109 Hz holds no line .* one every 10 Hz: make the band wider",
        ),
    ],
)
def test_settings_that_the_rate_does_not_allow_are_rejected_and_change_no_state(
    parameters: dict[str, Any], rate_hz: float, message: str
) -> None:
    features = op("features", **parameters)
    with pytest.raises(OperationFailed, match=message):
        features.process(next(whole(100).blocks(noise(100), rate_hz=rate_hz)))
    assert features.state() is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"window": 10, "window_s": 0.1}, "exclude each other: give one"),
        ({"bands": [[10, 10]]}, r"bands cannot hold \[10, 10\]"),
        ({"bands": [[-1, 10]]}, r"bands cannot hold \[-1, 10\]"),
        (
            {"bands": [[1, 2, 3]]},
            r"must be a whole number from 0 up to 1024 or a list of: \[a number, a number\]",
        ),
        ({"window": 1}, "must be a whole number from 2 up to 1048576"),
    ],
)
def test_invalid_parameters_are_rejected(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyInvalid, match=message):
        op("features", **parameters)


def test_no_window_is_joined_over_a_gap() -> None:
    samples = noise(50)
    blocks = list(Cut([15, 20, 50], [1, 2, 3], [1, 2, 3]).blocks(samples, rate_hz=RATE_HZ))
    output = run(op("features", window=10, bands=0), [blocks[0], blocks[2]], gaps=True)
    expected = [rows_of(samples[start : start + 10], window=10, bands=0)[0] for start in (0, 20, 30, 40)]
    assert output.rows.tolist() == [row.tolist() for row in expected]
    assert firsts(output) == [0, 2, 3, 4]


def test_every_measure_equals_numpy_and_scipy() -> None:
    samples = noise(300)[:, 0] - 4
    windows = samples.reshape(3, 100)
    size, rms = np.abs(windows), np.sqrt(np.mean(windows**2, axis=1))
    peak = size.max(axis=1)
    expected = {
        "crest": peak / rms,
        "skewness": scipy.stats.skew(windows, axis=1),
        "mean": windows.mean(axis=1),
        "std": windows.std(axis=1),
        "min": windows.min(axis=1),
        "max": windows.max(axis=1),
        "peak_to_peak": np.ptp(windows, axis=1),
        "shape": rms / size.mean(axis=1),
        "impulse": peak / size.mean(axis=1),
        "clearance": peak / np.sqrt(size).mean(axis=1) ** 2,
        "kurtosis": scipy.stats.kurtosis(windows, axis=1),
        "rms": rms,
        "peak": peak,
    }
    blocks = whole(300).blocks(samples[:, np.newaxis], rate_hz=RATE_HZ)
    output = run(op("features", window=100, bands=0, measures=list(expected)), blocks)
    assert output.blocks[0].columns == tuple(expected)
    np.testing.assert_allclose(output.rows, np.stack(list(expected.values()), axis=1), rtol=1e-12)


def test_ratios_of_silence_are_zero() -> None:
    measures = ["crest", "skewness", "kurtosis", "shape", "impulse", "clearance"]
    assert rows_of(np.zeros((10, 1)), window=10, bands=0, measures=measures).tolist() == [[0.0] * 6]


def test_measures_are_named_once() -> None:
    with pytest.raises(PolicyInvalid, match="name each once"):
        op("features", measures=["rms", "rms"])
    with pytest.raises(PolicyInvalid, match="a list of: one of 'rms', 'peak'"):
        op("features", measures=["loudness"])
