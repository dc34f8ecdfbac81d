"""`filter` and `resample` against SciPy on the whole signal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from windvane.errors import OperationFailed, PolicyInvalid

from tests.processors.streams import Cut, cuts, op, run, whole

RATE_HZ = 1000.0
CUT = Cut([1, 700, 701, 5000], [1, 2, 3, 4], [1, 2, 3, 4])


def noise(count: int = 5000, channels: int = 3) -> NDArray[np.float64]:
    return np.random.default_rng(4).standard_normal((count, channels)) * 100 + 50


@pytest.mark.parametrize(
    ("design", "sections"),
    [
        ("butter", scipy.signal.butter(5, 80, "highpass", fs=RATE_HZ, output="sos")),
        ("bessel", scipy.signal.bessel(5, 80, "highpass", fs=RATE_HZ, output="sos", norm="mag")),
        ("cheby1", scipy.signal.cheby1(5, 0.5, 80, "highpass", fs=RATE_HZ, output="sos")),
        ("cheby2", scipy.signal.cheby2(5, 40, 80, "highpass", fs=RATE_HZ, output="sos")),
        ("ellip", scipy.signal.ellip(5, 0.5, 40, 80, "highpass", fs=RATE_HZ, output="sos")),
    ],
)
def test_a_stream_is_filtered_as_scipy_filters_the_whole(design: str, sections: NDArray[np.float64]) -> None:
    more = {"ripple_db": 0.5, "attenuation_db": 40}
    made = op("filter", design=design, order=5, cutoff_hz=80, response="highpass", **more)
    rows = run(made, CUT.blocks(noise(), rate_hz=RATE_HZ)).rows
    assert rows.tobytes() == scipy.signal.sosfilt(sections, noise(), axis=0).tobytes()


@pytest.mark.parametrize("response", ["bandpass", "bandstop"])
def test_bands_have_two_edges(response: str) -> None:
    rows = run(
        op("filter", cutoff_hz=[50, 120.0], response=response), CUT.blocks(noise(), rate_hz=RATE_HZ)
    ).rows
    sections = scipy.signal.butter(4, [50, 120], response, fs=RATE_HZ, output="sos")
    assert rows.tobytes() == scipy.signal.sosfilt(sections, noise(), axis=0).tobytes()


def test_a_steady_start_causes_no_transient() -> None:
    constant = np.full((100, 2), 7.0)
    rows = run(
        op("filter", cutoff_hz=10.0, begin="steady"), whole(100).blocks(constant, rate_hz=RATE_HZ)
    ).rows
    np.testing.assert_allclose(rows, 7.0, rtol=1e-9)


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_channel_restarts_after_a_non_finite_value(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 60))
    samples, holes = noise(count, 2), st.sampled_from([np.nan, np.inf])
    for place in data.draw(st.sets(st.integers(0, count - 1))):
        samples[place, data.draw(st.integers(0, 1))] = data.draw(holes)
    begin = data.draw(st.sampled_from(["zero", "steady"]))
    cut = data.draw(cuts(count))
    made = op("filter", cutoff_hz=80.0, begin=begin)
    rows = run(made, cut.blocks(samples, rate_hz=RATE_HZ)).rows
    sections = scipy.signal.butter(4, 80, fs=RATE_HZ, output="sos")
    expected = np.full_like(samples, np.nan)
    for channel in range(2):
        start = None
        for place in range(count + 1):
            good = place < count and np.isfinite(samples[place, channel])
            if good and start is None:
                start = place
            elif not good and start is not None:
                part = samples[start:place, channel]
                zi = scipy.signal.sosfilt_zi(sections) * (part[0] if begin == "steady" else 0)
                expected[start:place, channel] = scipy.signal.sosfilt(sections, part, zi=zi)[0]
                start = None
    assert np.array_equal(rows, expected, equal_nan=True)


@pytest.mark.parametrize(("up", "down"), [(1, 2), (1, 7), (2, 1), (3, 2), (2, 3), (147, 160), (160, 147)])
def test_a_stream_is_resampled_as_scipy_resamples_the_whole(up: int, down: int) -> None:
    output = run(op("resample", up=up, down=down), CUT.blocks(noise(), rate_hz=RATE_HZ))
    oracle = scipy.signal.resample_poly(noise(), up, down)
    # Half the filter is missing at the end, where SciPy continues with zeros.
    assert len(oracle) - len(output.rows) == len(oracle) - ((5000 * up - 1 - 10 * max(up, down)) // down + 1)
    np.testing.assert_allclose(output.rows, oracle[: len(output.rows)], rtol=1e-12, atol=1e-10)
    assert output.blocks[0].rate_hz == output.blocks[0].attrs["rate_hz"] == RATE_HZ * up / down


def test_integers_are_resampled_to_a_given_rate() -> None:
    samples = noise().astype(np.int16)
    rows = run(op("resample", rate_hz=400.0, dtype="float32"), CUT.blocks(samples, rate_hz=RATE_HZ)).rows
    oracle = scipy.signal.resample_poly(samples.astype(float), 2, 5)
    np.testing.assert_allclose(rows, oracle[: len(rows)], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        (
            "filter",
            {"cutoff_hz": [1, 2]},
            r"cutoff_hz cannot be \[1.0, 2.0\] for lowpass: give one frequency",
        ),
        ("filter", {"cutoff_hz": 1, "response": "bandpass"}, "give two frequencies"),
        ("filter", {"cutoff_hz": [2, 1], "response": "bandpass"}, "give two frequencies"),
        ("filter", {}, "cutoff_hz is missing"),
        ("filter", {"cutoff_hz": 1, "design": "fir"}, "must be one of 'butter'"),
        ("resample", {}, "give either rate_hz, or up and down"),
        ("resample", {"up": 3, "down": 3}, "cannot be 3 / 3"),
        ("resample", {"up": 3, "rate_hz": 3.0}, "give either rate_hz, or up and down"),
    ],
)
def test_invalid_parameters_are_rejected(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyInvalid, match=message):
        op(name, **parameters)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        (
            "filter",
            {"cutoff_hz": 500.0},
            "at 500 Hz needs samples at more than twice that rate, not at 1000 Hz",
        ),
        ("resample", {"rate_hz": 999.9}, "cannot become 999.9 Hz: their quotient"),
        ("resample", {"rate_hz": 1000.0}, "other than 1"),
    ],
)
def test_settings_that_the_rate_does_not_allow_are_rejected(
    name: str, parameters: dict[str, Any], message: str
) -> None:
    operation = op(name, **parameters)
    with pytest.raises(OperationFailed, match=message):
        operation.process(next(CUT.blocks(noise(), rate_hz=RATE_HZ)))
    assert operation.state() is None
