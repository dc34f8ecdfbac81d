"""`welch` against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray
from windvane.errors import OperationFailed, PolicyInvalid

from tests.processors.streams import op, run, whole

RATE_HZ = 25_600.0


def noise(count: int, channels: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(1).standard_normal((count, channels)) * 100 + 5


@pytest.mark.parametrize("length", [64, 101])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
@pytest.mark.parametrize("detrend", ["none", "constant", "linear"])
@pytest.mark.parametrize("scaling", ["density", "spectrum"])
@pytest.mark.parametrize("step", [None, 3, 12])
def test_rows_are_those_of_scipy(
    length: int, overlap: float, detrend: str, scaling: str, step: int | None
) -> None:
    samples, segments = noise(40 * length, channels=2), 7
    given = {"length": length, "overlap": overlap, "detrend": detrend, "scaling": scaling}
    welch = op("welch", segments=segments, step=step, window="blackman", **given)
    output = run(welch, whole(len(samples)).blocks(samples, rate_hz=RATE_HZ))
    hop, size = output.blocks[0].attrs["hop"], segments
    apart = hop * (step or segments)
    used = (size - 1) * hop + length
    assert len(output.rows) == (len(samples) - used) // apart + 1
    for index, row in enumerate(output.rows):
        _, oracle = scipy.signal.welch(
            samples[index * apart : index * apart + used].T,
            RATE_HZ,
            "blackman",
            length,
            length - hop,
            detrend=False if detrend == "none" else detrend,
            scaling=scaling,
        )
        np.testing.assert_allclose(row, oracle, rtol=1e-12, atol=1e-12 * oracle.max())
    assert output.blocks[0].rate_hz == RATE_HZ / apart


def test_decibels_are_of_the_mean() -> None:
    samples = noise(50_000)
    blocks = list(whole(50_000).blocks(samples, rate_hz=RATE_HZ))
    power = run(op("welch", seconds=1.0), blocks).rows
    decibels = run(op("welch", seconds=1.0, level="dB", reference=1e-6), blocks).rows
    assert len(power) == 1
    np.testing.assert_allclose(decibels, 10 * np.log10(power / 1e-12), rtol=1e-12)


def test_seconds_are_whole_frames() -> None:
    samples = noise(51_200)
    output = run(op("welch", seconds=1.0), whole(51_200).blocks(samples, rate_hz=RATE_HZ))
    assert output.blocks[0].attrs["segments"] == (25_600 - 2048) // 1024 + 1


def test_invalid_welch_parameters_are_rejected() -> None:
    with pytest.raises(PolicyInvalid, match="exclude each other"):
        op("welch", segments=3, seconds=1.0)
    with pytest.raises(PolicyInvalid, match="every 1: set step to 7 or more"):
        op("welch", segments=100, step=1)
    block = next(whole(100).blocks(noise(100), rate_hz=1.0))
    with pytest.raises(OperationFailed, match=r"10 s at 1 Hz are -.* frames"):
        op("welch").process(block)
