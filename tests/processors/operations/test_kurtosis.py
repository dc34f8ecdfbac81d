"""`kurtosis` and `best_band` against the definition, and on known bursts."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray
from windvane.errors import OperationFailed

from tests.processors.streams import Cut, op, run, whole

RATE_HZ = 10_000.0


def noise(count: int, channels: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(7).standard_normal((count, channels))


@pytest.mark.parametrize("length", [64, 65])
def test_rows_are_the_definition(length: int) -> None:
    samples, hop, frames = noise(40 * length, channels=2), length - length // 2, 20
    cut = Cut([length + 3, 1000, 40 * length], [1, 2, 3], [1, 2, 3])
    output = run(op("kurtosis", length=length, frames=frames), cut.blocks(samples, rate_hz=RATE_HZ))
    window = scipy.signal.get_window("hann", length)
    assert len(output.rows) == ((40 * length - length) // hop + 1) // frames
    for index, row in enumerate(output.rows):
        starts = [(index * frames + frame) * hop for frame in range(frames)]
        for channel in range(2):
            x = np.array([np.fft.rfft(samples[s : s + length, channel] * window) for s in starts])
            expected = np.mean(np.abs(x) ** 4, axis=0) / np.mean(np.abs(x) ** 2, axis=0) ** 2 - 2
            expected[0] -= 1
            if length % 2 == 0:
                expected[-1] -= 1
            np.testing.assert_allclose(row[channel], expected, rtol=1e-9, atol=1e-9)


def test_kurtosis_is_0_for_noise_minus_1_for_a_tone_and_high_for_bursts() -> None:
    count = 256 * 600
    seconds = np.arange(count) / RATE_HZ
    tone = 50 * np.sin(2 * np.pi * 1000 * seconds)
    bursts = np.zeros(count)
    bursts[::4000] = 60
    ringing = scipy.signal.lfilter(*scipy.signal.iirpeak(3000, 10, fs=RATE_HZ), bursts) * 10
    samples = (noise(count)[:, 0] + tone + ringing)[:, np.newaxis]
    output = run(op("kurtosis", frames=1000), whole(count).blocks(samples, rate_hz=RATE_HZ))
    [row] = output.rows
    line = {hz: round(hz / RATE_HZ * 256) for hz in (1000, 2000, 3000)}
    assert row[line[1000]] == pytest.approx(-1, abs=0.01)
    still = run(op("kurtosis", frames=1000), whole(count).blocks(noise(count), rate_hz=RATE_HZ)).rows[0]
    assert np.abs(still).max() < 0.5
    assert row[line[3000]] > 5
    best = run(op("best_band", width_hz=500.0), output.blocks)
    low_hz, high_hz, mean = best.rows[0]
    assert low_hz < 3000 < high_hz
    assert mean > 3
    assert best.blocks[0].columns == ("low_hz", "high_hz", "kurtosis")


def test_the_best_band_is_that_of_an_exhaustive_search() -> None:
    blocks = run(op("kurtosis", frames=4), whole(20_000).blocks(noise(20_000, 2), rate_hz=RATE_HZ)).blocks
    output = run(op("best_band", width_hz=200.0, min_hz=1000.0), blocks)
    step_hz = RATE_HZ / 256
    for row, kurtosis in zip(output.rows, blocks[0].rows, strict=True):
        for channel in range(2):
            means = {low: kurtosis[channel, low : low + 5].mean() for low in range(26, 128 - 5 + 1)}
            low = max(means, key=lambda low: means[low])
            expected = [(low - 0.5) * step_hz, (low + 4.5) * step_hz, means[low]]
            np.testing.assert_allclose(row[3 * channel : 3 * channel + 3], expected, rtol=1e-12)


def test_silence_has_no_kurtosis() -> None:
    rows = run(op("kurtosis", frames=2), whole(1000).blocks(np.zeros((1000, 1)), rate_hz=RATE_HZ)).rows
    assert np.all(rows == 0)


def test_a_band_that_does_not_fit_is_rejected() -> None:
    block = run(op("kurtosis", frames=2), whole(1000).blocks(noise(1000), rate_hz=RATE_HZ)).blocks[0]
    with pytest.raises(OperationFailed, match=r"No band of 6015.62 Hz fits between"):
        op("best_band", width_hz=6000.0).process(block)
