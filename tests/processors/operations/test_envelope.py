"""`envelope` against a filter over the whole signal, and `bearing` against simulated impacts of a bearing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray
from windvane.errors import OperationFailed, PolicyInvalid
from windvane.processors.operations.bearing import Geometry
from windvane.processors.operations.envelope import analytic_taps

from tests.processors.streams import Cut, op, run, whole

RATE_HZ = 10_000.0


def noise(count: int, channels: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(6).standard_normal((count, channels)) * 10 + 3


@pytest.mark.parametrize("length", [512, 601])
@pytest.mark.parametrize("squared", [False, True])
def test_rows_are_spectra_of_the_envelope_of_the_whole_signal(length: int, squared: bool) -> None:
    samples = noise(6000, channels=2)
    envelope = op(
        "envelope",
        low_hz=2000,
        high_hz=4000,
        length=length,
        taps=101,
        envelope="squared" if squared else "magnitude",
        dtype="float64",
    )
    cut = Cut([700, 701, 6000], [1, 2, 3], [1, 2, 3])
    output = run(envelope, cut.blocks(samples, rate_hz=RATE_HZ))
    hop = length - length // 2
    assert len(output.rows) == (6000 - length - 100) // hop + 1
    taps = analytic_taps(101, 2000, 4000, RATE_HZ)
    for channel in range(2):
        whole_envelope = np.abs(np.convolve(samples[:, channel], taps, mode="valid")) ** (1 + squared)
        *_, oracle = scipy.signal.spectrogram(
            whole_envelope,
            RATE_HZ,
            "hann",
            length,
            length - hop,
            detrend="constant",
            scaling="spectrum",
            mode="psd",
        )
        rows = output.rows[:, channel]
        np.testing.assert_allclose(rows, oracle.T[: len(rows)], rtol=1e-9, atol=1e-12 * oracle.max())


def test_the_analytic_signal_is_that_of_hilbert() -> None:
    samples = noise(4000)[:, 0]
    taps = analytic_taps(401, 1500, 3500, RATE_HZ)
    analytic = np.convolve(samples, taps, mode="same")
    hilbert = scipy.signal.hilbert(analytic.real)
    inside = slice(500, 3500)
    np.testing.assert_allclose(
        np.abs(analytic)[inside], np.abs(hilbert)[inside], atol=0.02 * np.abs(hilbert).max()
    )


def test_an_amplitude_modulated_tone_has_a_line_at_the_modulation_frequency() -> None:
    seconds = np.arange(20_000) / RATE_HZ
    signal = (5 + 2 * np.cos(2 * np.pi * 50 * seconds)) * np.sin(2 * np.pi * 3000 * seconds)
    output = run(
        op("envelope", length=10_000, overlap=0.0, max_hz=100.0),
        whole(20_000).blocks(signal[:, np.newaxis], rate_hz=RATE_HZ),
    )
    assert output.rows.shape[1] == 101
    assert np.argmax(output.rows[0]) == 50
    assert np.sqrt(2 * output.rows[0, 50]) == pytest.approx(2, rel=1e-3)


def test_fault_frequencies_are_those_of_the_tables() -> None:
    # SKF 6205-2RS of the bearing data center of Case Western Reserve University, as its table gives them.
    per_turn = Geometry(rollers=9, roller_diameter=0.3126, pitch_diameter=1.537).per_turn()
    assert per_turn["bpfi"] == pytest.approx(5.4152, abs=1e-4)
    assert per_turn["bpfo"] == pytest.approx(3.5848, abs=1e-4)
    assert per_turn["ftf"] == pytest.approx(0.39828, abs=1e-4)
    assert 2 * per_turn["bsf"] == pytest.approx(4.7135, abs=1e-3)


BEARING: dict[str, Any] = {"rollers": 9, "roller_diameter_mm": 7.94, "pitch_diameter_mm": 39.04}


def impacts(turns: NDArray[np.float64], per_turn: float) -> NDArray[np.float64]:
    """A 3 kHz resonance that each impact excites, in some noise."""
    since_s = np.zeros(len(turns))
    last = 0
    for index, number in enumerate(np.floor(turns * per_turn)):
        if index and number != np.floor(turns[index - 1] * per_turn):
            last = index
        since_s[index] = (index - last) / RATE_HZ
    ringing = np.exp(-since_s * 800) * np.sin(2 * np.pi * 3000 * since_s)
    return ringing + noise(len(turns))[:, 0] * 0.005


@pytest.mark.parametrize("fault", ["bpfo", "bpfi", "bsf"])
def test_the_fault_that_causes_impacts_is_named(fault: str) -> None:
    per_turn = Geometry(9, 7.94, 39.04).per_turn()[fault]
    seconds = np.arange(30_000) / RATE_HZ
    signal = impacts(seconds * 25, per_turn)[:, np.newaxis]
    bearing = op("bearing", **BEARING, speed_rpm=1500, low_hz=2000, high_hz=4000, length=8192, harmonics=2)
    output = run(bearing, whole(30_000).blocks(signal, rate_hz=RATE_HZ))
    named = dict(zip(output.blocks[0].columns, output.rows[0].tolist(), strict=True))
    beating = {name: value for name, value in named.items() if name.endswith("_1")}
    assert max(beating, key=lambda name: beating[name]) == f"{fault}_1"
    assert named[f"{fault}_1"] > 10 * named["floor"]
    assert named["speed_hz"] == 25


def test_the_speed_may_come_in_a_channel_and_change() -> None:
    count = 60_000
    speed_hz = np.linspace(15, 30, count)
    turns = np.cumsum(speed_hz) / RATE_HZ
    signal = impacts(turns, Geometry(9, 7.94, 39.04).per_turn()["bpfo"])
    samples = np.stack([speed_hz * 60, signal], axis=1)
    bearing = op("bearing", **BEARING, speed_channel=0, low_hz=2000, high_hz=4000, length=4096)
    cut = Cut([5000, 30_001, count], [1, 2, 3], [1, 2, 3])
    output = run(bearing, cut.blocks(samples, rate_hz=RATE_HZ))
    columns = output.blocks[0].columns
    assert columns[0] == "bpfo_1"
    speeds = output.rows[:, columns.index("speed_hz")]
    assert speeds[0] == pytest.approx(15.5, abs=0.3)
    assert speeds[-1] == pytest.approx(29.5, abs=0.3)
    first = [columns.index(f"{fault}_1") for fault in ("bpfo", "bpfi", "bsf", "ftf")]
    assert np.all(np.argmax(output.rows[:, first], axis=1) == 0)


def test_at_standstill_there_is_no_fault_frequency() -> None:
    samples = np.stack([np.zeros(1000), noise(1000)[:, 0]], axis=1)
    output = run(
        op("bearing", **BEARING, speed_channel=0, length=256, taps=31),
        whole(1000).blocks(samples, rate_hz=RATE_HZ),
    )
    assert np.isnan(output.rows[:, :-2]).all()


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("envelope", {"taps": 100}, "taps cannot be 100: give an odd number"),
        ("envelope", {"low_hz": 3, "high_hz": 2}, "cannot go from 3 to 2 Hz"),
        ("bearing", {**BEARING}, "either as speed_rpm or as speed_channel"),
        ("bearing", {**BEARING, "speed_rpm": 1, "speed_channel": 0}, "either as speed_rpm"),
        ("bearing", {**BEARING, "speed_rpm": 1, "pitch_diameter_mm": 5}, "rollers of 7.94 mm do not fit"),
        ("bearing", {}, "rollers is missing"),
    ],
)
def test_invalid_parameters_are_rejected(name: str, parameters: Any, message: str) -> None:
    with pytest.raises(PolicyInvalid, match=message):
        op(name, **parameters)


def test_a_band_above_half_the_rate_is_rejected() -> None:
    block = next(whole(10).blocks(noise(10), rate_hz=1000.0))
    with pytest.raises(OperationFailed, match="from 400 to 600 Hz does not lie below half the rate of 1000"):
        op("envelope", low_hz=400, high_hz=600).process(block)
    with pytest.raises(OperationFailed, match="no speed in channel 1 of 1"):
        op("bearing", **BEARING, speed_channel=1).process(block)
