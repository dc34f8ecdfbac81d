"""`spectrum` against SciPy and against the definition, for any cut of the samples."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import scipy.io.wavfile
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from windvane.errors import OperationFailed, PolicyInvalid
from windvane.processors.operations.base.block import blocks_of

from tests.processors.operations import naive
from tests.processors.streams import Cut, audio, cuts, firsts, op, run, run_with_restarts, whole

RATE_HZ = 25_600.0


def noise(count: int, channels: int = 1, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal((count, channels)) * 100


def scipy_rows(samples: NDArray[Any], rate_hz: float, **settings: Any) -> NDArray[np.float64]:
    *_, rows = scipy.signal.spectrogram(samples.astype(np.float64), rate_hz, mode="psd", **settings)
    result: NDArray[np.float64] = rows.T
    return result


@pytest.mark.parametrize("name", ["Front_Center.wav", "Noise.wav"])
def test_rows_of_a_recording_are_those_of_scipy(name: str) -> None:
    rate_hz, samples = scipy.io.wavfile.read(audio(name))
    blocks = list(whole(len(samples)).blocks(samples[:, np.newaxis], rate_hz=float(rate_hz)))
    oracle = scipy_rows(samples, rate_hz, window="hann", nperseg=2048, noverlap=1024, detrend=False)

    double = run(op("spectrum", dtype="float64"), blocks).rows
    np.testing.assert_allclose(double, oracle, rtol=1e-12, atol=0)
    single = run(op("spectrum"), blocks).rows
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, oracle, rtol=1e-5, atol=1e-44)

    # ShortTimeFFT scales the window before the transform, and so rounds lines differently that are 1e9 times
    # weaker than others. So the error is taken relative to the strongest line of the row.
    window = scipy.signal.get_window("hann", 2048)
    transform = scipy.signal.ShortTimeFFT(window, 1024, rate_hz, scale_to="psd", phase_shift=None)
    frames = (len(samples) - 1024) // 1024
    rows = transform.spectrogram(samples.astype(np.float64), p0=0, p1=frames, k_offset=1024).T
    rows[:, 1:-1] *= 2
    assert np.all(np.abs(double - rows) <= 1e-12 * rows.max(axis=1, keepdims=True))


@pytest.mark.parametrize("length", [2, 7, 64, 101, 2048])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("scaling", ["density", "spectrum"])
@pytest.mark.parametrize("detrend", ["none", "constant"])
def test_every_parameter_means_what_it_means_to_scipy(
    length: int, overlap: float, scaling: str, detrend: str
) -> None:
    samples = noise(3 * length + 5)
    spectrum = op(
        "spectrum",
        length=length,
        overlap=overlap,
        scaling=scaling,
        detrend=detrend,
        window="hamming",
        dtype="float64",
    )
    output = run(spectrum, whole(len(samples)).blocks(samples, rate_hz=RATE_HZ))
    oracle = scipy_rows(
        samples[:, 0],
        RATE_HZ,
        window="hamming",
        nperseg=length,
        noverlap=int(length * overlap),
        scaling=scaling,
        detrend=False if detrend == "none" else detrend,
    )
    np.testing.assert_allclose(output.rows, oracle, rtol=1e-12, atol=1e-12 * oracle.max())
    hop = output.blocks[0].attrs["hop"]
    assert (len(samples) - length) // hop + 1 == len(output.rows)
    assert output.blocks[0].rate_hz == RATE_HZ / hop


@pytest.mark.parametrize("length", [16, 17])
def test_a_row_is_the_definition(length: int) -> None:
    samples = noise(length)
    spectrum = op("spectrum", length=length, dtype="float64")
    output = run(spectrum, whole(length).blocks(samples, rate_hz=RATE_HZ))
    window = [0.5 - 0.5 * np.cos(2 * np.pi * n / length) for n in range(length)]
    expected = naive.power_spectral_density(samples[:, 0].tolist(), window, RATE_HZ)
    np.testing.assert_allclose(output.rows[0], expected, rtol=1e-12, atol=1e-12 * max(expected))


def test_the_mean_of_the_rows_is_welchs_estimate() -> None:
    samples = noise(50_000)
    rows = run(op("spectrum", dtype="float64"), whole(50_000).blocks(samples, rate_hz=RATE_HZ)).rows
    _, expected = scipy.signal.welch(samples[:, 0], RATE_HZ, "hann", 2048, 1024, detrend=False)
    np.testing.assert_allclose(rows.mean(axis=0), expected, rtol=1e-12, atol=1e-12 * expected.max())


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_output_does_not_depend_on_chunk_boundaries(data: st.DataObject) -> None:
    length = data.draw(st.sampled_from([2, 5, 16, 31, 64]))
    parameters = {
        "length": length,
        "overlap": data.draw(st.sampled_from([0.0, 0.25, 0.5, 0.9])),
        "detrend": data.draw(st.sampled_from(["none", "constant"])),
        "dtype": data.draw(st.sampled_from(["float32", "float64"])),
    }
    dtype = data.draw(st.sampled_from([np.int16, np.float32, np.float64]))
    count, channels = data.draw(st.integers(1, 6 * length)), data.draw(st.integers(1, 3))
    samples = noise(count, channels).astype(dtype)
    cut = data.draw(cuts(count))

    expected = run(op("spectrum", **parameters), whole(count).blocks(samples, rate_hz=RATE_HZ))
    blocks = list(cut.blocks(samples, rate_hz=RATE_HZ))
    output = run(op("spectrum", **parameters), blocks)
    assert output.same_rows(expected)
    restarted = run_with_restarts(lambda: op("spectrum", **parameters), blocks)
    assert restarted.same_rows(expected)

    if output.blocks:
        hop = output.blocks[0].attrs["hop"]
        stops = [index * hop + length for index in range(len(output.rows))]
        times_ns = naive.row_times_ns(stops, cut.event_stops, cut.times_ns)
        assert output.times_ns.tolist() == restarted.times_ns.tolist() == times_ns


@pytest.mark.parametrize("length", [2048, 2560, 1009])
def test_output_of_batched_frames_does_not_depend_on_chunk_boundaries(length: int) -> None:
    samples = noise(60 * length).astype(np.int16)
    cut = Cut([length * 5 + 3, length * 6, length * 41 - 1, 60 * length], [1, 2, 3, 4], [1, 2, 3, 4])
    expected = run(op("spectrum", length=length), whole(len(samples)).blocks(samples, rate_hz=RATE_HZ))
    output = run(op("spectrum", length=length), cut.blocks(samples, rate_hz=RATE_HZ))
    assert output.same_rows(expected)


def test_a_row_has_the_time_of_the_event_that_brought_its_last_sample() -> None:
    cut = Cut([4, 7, 8, 16], [10, 20, 30, 40], [2, 4])
    output = run(op("spectrum", length=4, overlap=0.5), cut.blocks(noise(16), rate_hz=RATE_HZ))
    # Rows are complete with samples 4, 6, 8, 10, 12, 14 and 16.
    assert output.times_ns.tolist() == [10, 20, 30, 40, 40, 40, 40]


def test_several_channels_are_several_spectra() -> None:
    samples = noise(10_000, channels=3)
    rows = run(op("spectrum"), whole(10_000).blocks(samples, rate_hz=RATE_HZ)).rows
    assert rows.shape[1:] == (3, 1025)
    for channel in range(3):
        alone = run(op("spectrum"), whole(10_000).blocks(samples[:, [channel]], rate_hz=RATE_HZ)).rows
        assert rows[:, channel].tobytes() == alone.tobytes()


def test_attrs_describe_the_rows() -> None:
    blocks = whole(4096).blocks(noise(4096), rate_hz=RATE_HZ, attrs={"unit": "g", "rate_hz": RATE_HZ})
    assert run(op("spectrum"), blocks).blocks[0].attrs == {
        "kind": "spectrum",
        "rate_hz": RATE_HZ,
        "window": "hann",
        "length": 2048,
        "hop": 1024,
        "overlap": 0.5,
        "scaling": "density",
        "detrend": "none",
        "channels": 1,
        "unit": "g²/Hz",
        "frequency_step_hz": 12.5,
    }


def test_no_frame_is_joined_over_a_gap() -> None:
    samples = noise(100)
    blocks = list(Cut([30, 50, 100], [1, 2, 3], [1, 2, 3]).blocks(samples, rate_hz=RATE_HZ))
    spectrum = op("spectrum", length=16, overlap=0.0, dtype="float64")
    output = run(spectrum, [blocks[0], blocks[2]], gaps=True)
    rows = output.rows
    # Sample 50 would be in frame 3.125: the frame of 48 to 64 is skipped.
    assert firsts(output) == [0, 4, 5, 6]
    frames = [samples[0:16, 0], *(samples[start : start + 16, 0] for start in (50, 66, 82))]
    for row, frame in zip(rows, frames, strict=True):
        expected = scipy_rows(frame, RATE_HZ, window="hann", nperseg=16, detrend=False)[0]
        np.testing.assert_allclose(row, expected, rtol=1e-12, atol=1e-12 * expected.max())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate_hz": 48_000.0}, "1 channels at 25600 Hz to 1 at 48000 Hz within one stream"),
        ({"rows": noise(20, channels=2)}, "1 channels at 25600 Hz to 2 at 25600 Hz within one stream"),
        ({"rate_hz": 0.0}, "Samples without a rate"),
    ],
)
def test_samples_of_another_layout_are_rejected_and_change_no_state(
    change: dict[str, Any], message: str
) -> None:
    samples = noise(60)
    first, second, third = Cut([20, 40, 60], [1, 2, 3], [1, 2, 3]).blocks(samples, rate_hz=RATE_HZ)
    spectrum = op("spectrum", length=16)
    given = [spectrum.process(first)]
    with pytest.raises(OperationFailed, match=message):
        spectrum.process(dataclasses.replace(second, **change))
    given += [spectrum.process(second), spectrum.process(third)]
    rows = np.concatenate([block.rows for result in given for block in blocks_of(result)])
    expected = run(op("spectrum", length=16), whole(60).blocks(samples, rate_hz=RATE_HZ))
    assert rows.tobytes() == expected.rows.tobytes()


def test_a_window_unknown_to_scipy_is_rejected() -> None:
    with pytest.raises(PolicyInvalid, match=r'step "spectrum": the window "?\'?kaiser.*such as hann'):
        op("spectrum", window="kaiser")


def test_nan_values_affect_only_their_frames() -> None:
    samples = noise(64)
    samples[20] = np.nan
    rows = run(op("spectrum", length=16, overlap=0.0), whole(64).blocks(samples, rate_hz=RATE_HZ)).rows
    assert np.isnan(rows).all(axis=1).tolist() == [False, True, False, False]
    assert np.isfinite(rows[[0, 2, 3]]).all()
