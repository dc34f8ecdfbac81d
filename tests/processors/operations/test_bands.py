"""`bands` against a naive distribution of lines, Parseval, and the frequencies of IEC 61260."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from windvane.errors import OperationFailed, PolicyInvalid
from windvane.processors.operations.bands import octave_bands
from windvane.processors.operations.base.block import Block

from tests.processors.streams import op, run, whole

RATE_HZ = 48_000.0


def spectra(samples: NDArray[np.float64], length: int = 4800, **parameters: object) -> list[Block]:
    blocks = whole(len(samples)).blocks(samples, rate_hz=RATE_HZ)
    return run(op("spectrum", length=length, dtype="float64", **parameters), blocks).blocks


def noise(count: int, channels: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(2).standard_normal((count, channels)) * 4


def test_third_octave_bands_are_those_of_iec_61260() -> None:
    bands = octave_bands(3, low_hz=20, high_hz=24_000)
    # Table A.1 of the standard, to its five digits: nominal, and exact mid-band frequency.
    exact = {"25": 25.119, "31.5": 31.623, "100": 100.0, "1000": 1000.0, "1250": 1258.9, "16000": 15849.0}
    middles = {band.name[5:]: (band.low_hz * band.high_hz) ** 0.5 for band in bands}
    for nominal, middle_hz in exact.items():
        assert middles[nominal] == pytest.approx(middle_hz, rel=3e-5)
    by_name = {band.name: band for band in bands}
    assert by_name["band_1000"].low_hz == pytest.approx(891.25, rel=1e-5)
    assert by_name["band_1000"].high_hz == pytest.approx(1122.0, rel=1e-4)
    for lower, upper in pairwise(bands):
        assert lower.high_hz == pytest.approx(upper.low_hz, rel=1e-12)
    names = [band.name for band in octave_bands(1, low_hz=20, high_hz=24_000)]
    assert names == [f"band_{hz}" for hz in (31.5, 63, 125, 250, 500, 1000, 2000, 4000, 8000, 16000)]


@pytest.mark.parametrize("length", [4800, 4801])
@pytest.mark.parametrize("scaling", ["density", "spectrum"])
def test_bands_that_cover_all_frequencies_hold_the_power_of_the_windowed_frame(
    length: int, scaling: str
) -> None:
    samples = noise(length * 3)
    edges = [0, 17.3, 100, 101, 5000, RATE_HZ / 2]
    bands = op("bands", bands=[list(pair) for pair in pairwise(edges)])
    rows = run(bands, spectra(samples, length, overlap=0.0, scaling=scaling)).rows
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    power = np.sum((samples.reshape(3, length) * window) ** 2, axis=1) / np.sum(window**2)
    np.testing.assert_allclose(rows.sum(axis=1), power, rtol=1e-10)


def test_a_band_contains_the_overlapping_share_of_each_line() -> None:
    blocks = spectra(noise(9600, channels=2))
    low, high = 95.0, 223.0
    output = run(op("bands", bands=[[low, high]]), blocks)
    for row, spectrum in zip(output.rows, blocks[0].rows, strict=True):
        for channel in range(2):
            share = [
                max(0.0, min(10 * k + 5, high) - max(10 * k - 5, low)) / 10 for k in range(spectrum.shape[1])
            ]
            expected = sum(s * p * 10 for s, p in zip(share, spectrum[channel], strict=True))
            assert row[channel] == pytest.approx(expected, rel=1e-12)
    assert output.blocks[0].columns == ("channel0.band_95_223", "channel1.band_95_223")


def test_a_tone_is_in_its_third_octave_band_in_decibels() -> None:
    seconds = np.arange(9600) / RATE_HZ
    tone = 3 * np.sin(2 * np.pi * 1000 * seconds)[:, np.newaxis]
    output = run(op("bands", level="dB"), spectra(tone, scaling="spectrum"))
    loudest = output.blocks[0].columns[int(np.argmax(output.rows[0]))]
    assert loudest == "band_1000"
    assert output.rows[0].max() == pytest.approx(10 * np.log10(4.5), abs=0.01)


def test_inputs_without_matching_bands_are_rejected() -> None:
    with pytest.raises(OperationFailed, match=r"reach over half the rate \(24000 Hz\)"):
        op("bands", bands=[[100, 25_000]]).process(spectra(noise(4800))[0])
    with pytest.raises(OperationFailed, match='set level = "linear"'):
        op("bands").process(spectra(noise(4800), level="dB")[0])
    with pytest.raises(PolicyInvalid, match=r"cannot hold \[5, 5\]"):
        op("bands", bands=[[5, 5]])
