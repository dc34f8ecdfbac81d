"""`sliding_dft` against the transform by its definition, and on known tones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray
from windvane.errors import OperationFailed, PolicyInvalid

from tests.processors.streams import Cut, firsts, op, run, whole

RATE_HZ = 1000.0


def noise(count: int, channels: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(8).standard_normal((count, channels))


@pytest.mark.parametrize("window", ["hann", "boxcar"])
@pytest.mark.parametrize(("length", "hop"), [(64, 16), (64, 64), (60, 4)])
def test_rows_are_the_definition(window: str, length: int, hop: int) -> None:
    samples, frequencies_hz = noise(500, channels=2), [50.0, 123.4]
    cut = Cut([3, 100, 500], [1, 2, 3], [1, 2, 3])
    tracked = op(
        "sliding_dft", frequencies_hz=frequencies_hz, length=length, hop=hop, window=window, phase=True
    )
    output = run(tracked, cut.blocks(samples, rate_hz=RATE_HZ))
    assert len(output.rows) == (500 - length) // hop + 1
    weights = scipy.signal.get_window(window, length)
    for index, row in enumerate(output.rows):
        places = index * hop + np.arange(length)
        expected = []
        for channel in range(2):
            frame = weights * samples[places, channel]
            lines = [np.sum(frame * np.exp(-2j * np.pi * f * places / RATE_HZ)) for f in frequencies_hz]
            expected += [2 * abs(line) / weights.sum() for line in lines]
            expected += [float(np.angle(line)) for line in lines]
        np.testing.assert_allclose(row, expected, rtol=1e-8, atol=1e-9)
    assert output.blocks[0].columns[:4] == (
        "channel0.amplitude_50",
        "channel0.amplitude_123.4",
        "channel0.phase_50",
        "channel0.phase_123.4",
    )


def test_a_cosine_keeps_amplitude_and_phase_also_over_a_gap() -> None:
    places = np.arange(10_000)
    tone = 3 * np.cos(2 * np.pi * 77.7 * places / RATE_HZ + 0.5)[:, np.newaxis]
    blocks = list(Cut([4000, 4321, 10_000], [1, 2, 3], [1, 2, 3]).blocks(tone, rate_hz=RATE_HZ))
    tracked = op("sliding_dft", frequencies_hz=[77.7], length=1000, hop=100, phase=True)
    output = run(tracked, [blocks[0], blocks[2]], gaps=True)
    np.testing.assert_allclose(output.rows[:, 0], 3, rtol=1e-3)
    np.testing.assert_allclose(output.rows[:, 1], 0.5, atol=1e-3)
    assert firsts(output)[30:32] == [30, 44]


def test_numeric_error_does_not_grow_over_many_hops() -> None:
    loud, quiet = np.full((200_000, 1), 1e9), noise(2000)
    samples = np.concatenate((loud, quiet))
    tracked = op("sliding_dft", frequencies_hz=[100.0], length=100, hop=10)
    rows = run(tracked, whole(202_000).blocks(samples, rate_hz=RATE_HZ)).rows
    alone = op("sliding_dft", frequencies_hz=[100.0], length=100, hop=10)
    expected = run(alone, whole(2000).blocks(quiet, rate_hz=RATE_HZ)).rows
    np.testing.assert_allclose(rows[-len(expected) :], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"frequencies_hz": [1], "length": 100, "hop": 30}, "length 100 must be hop 30 times 1 to"),
        ({"frequencies_hz": [1], "length": 1024, "hop": 1}, "times 1 to 256"),
        ({"frequencies_hz": [1], "window": "kaiser"}, '"hann" or "boxcar"'),
        ({"frequencies_hz": [1, 1.0]}, "name each once"),
        ({"frequencies_hz": [0]}, "above 0"),
        ({}, "frequencies_hz is missing"),
    ],
)
def test_invalid_parameters_are_rejected(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyInvalid, match=message):
        op("sliding_dft", **parameters)


def test_a_frequency_over_half_the_rate_is_rejected() -> None:
    block = next(whole(10).blocks(noise(10), rate_hz=RATE_HZ))
    for rate_hz in (0.0, RATE_HZ):
        with pytest.raises(OperationFailed, match="500 Hz cannot be tracked"):
            op("sliding_dft", frequencies_hz=[500.0]).process(replace(block, rate_hz=rate_hz))
