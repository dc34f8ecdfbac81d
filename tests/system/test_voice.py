"""A recording sent as a user sends it comes out byte for byte, and as the spectrum that SciPy computes."""

import hashlib
import io
import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io.wavfile
import scipy.signal
from numpy.typing import NDArray
from windvane.lab import connect

from tests.processes import Running, wait_until, windvane


def run(site: Running, *arguments: str) -> bytes:
    done = windvane(site.home, *arguments)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def get(site: Running, path: str, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(f"{site.ready['web']}/api/v1/{path}", headers=headers)
    request.add_header("Authorization", f"Bearer {site.ready['token']}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status, answer.read()


def psd_by_scipy(recording: Path, length: int) -> NDArray[np.float64]:
    """Rows of the short-time power spectral density, as SciPy computes them."""
    rate, samples = scipy.io.wavfile.read(recording)
    _, _, spectra = scipy.signal.spectrogram(
        samples.astype(np.float64),
        rate,
        window="hann",
        nperseg=length,
        noverlap=length // 2,
        detrend=False,
        scaling="density",
    )
    return np.ascontiguousarray(spectra.T)


def psd_by_short_time_fft(recording: Path, length: int) -> NDArray[np.float64]:
    """The same from SciPy's newer ShortTimeFFT, over whole frames alone."""
    rate, samples = scipy.io.wavfile.read(recording)
    hop = length // 2
    transform = scipy.signal.ShortTimeFFT(
        scipy.signal.get_window("hann", length),
        hop,
        rate,
        fft_mode="onesided2X",
        scale_to="psd",
        phase_shift=None,
    )
    frames = (len(samples) - length) // hop + 1
    spectra = transform.spectrogram(samples.astype(np.float64), p0=1, p1=1 + frames)
    return np.ascontiguousarray(spectra.T)


def wait_for_size(site: Running, tag: str, size: int) -> None:
    context = connect(site.home)
    wait_until(lambda: tag in context.streams and context.streams[tag].size == size, f"{tag} is stored")


def wait_for_rows(site: Running, reference: str, rows: int) -> None:
    context = connect(site.home)
    wait_until(lambda: reference in context.arrays and len(context.arrays[reference]) == rows, f"{rows} rows")


@pytest.fixture(scope="module")
def voice(site: Running, speech: Path) -> Path:
    """The two commands of the README, and the wait for their results."""
    run(site, "policy", "create", "voice", "--tag", "voice", "--preset", "audio")
    run(site, "send", "voice", str(speech), "--format", "raw", "--chunk-bytes", "2048")
    wait_for_size(site, "voice", speech.stat().st_size)
    wait_for_rows(site, "voice:spectrum", len(psd_by_scipy(speech, 2048)))
    return speech


def test_the_stream_is_the_file(site: Running, voice: Path) -> None:
    expected = hashlib.sha256(voice.read_bytes()).hexdigest()
    assert hashlib.sha256(run(site, "cat", "voice")).hexdigest() == expected
    assert hashlib.sha256(get(site, "streams/voice/data")[1]).hexdigest() == expected
    assert hashlib.sha256(connect(site.home).streams["voice"][:]).hexdigest() == expected


def test_the_spectrum_is_what_scipy_computes(site: Running, voice: Path) -> None:
    found = np.asarray(connect(site.home).arrays["voice:spectrum"])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, psd_by_scipy(voice, 2048), rtol=1e-5, atol=0)


def test_float64_rows_are_equal_to_twelve_digits(site: Running, speech: Path, tmp_path: Path) -> None:
    policy = tmp_path / "precise.toml"
    policy.write_text("""
        [[policy]]
        reference = "precise"
        format = "raw"
        pipeline = [{operation = "wav"}, {operation = "spectrum", length = 1024, dtype = "float64"}]
    """)
    run(site, "apply", str(policy))
    run(site, "send", "precise", str(speech), "--format", "raw", "--chunk-bytes", "777")
    expected = psd_by_scipy(speech, 1024)
    wait_for_rows(site, "precise:spectrum", len(expected))
    found = np.asarray(connect(site.home).arrays["precise:spectrum"])
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=0)
    # ShortTimeFFT rounds intermediate values: a bin near zero consists of its rounding error.
    newer = psd_by_short_time_fft(speech, 1024)
    assert np.all(np.abs(found - newer) <= 1e-12 * newer.max(axis=1, keepdims=True))


def test_however_a_file_is_cut_streams_and_arrays_are_the_same(site: Running, voice: Path) -> None:
    for size in ("1", "4093", "1000000"):
        tag = f"voice.by{size}"
        windvane(site.home, "policy", "create", tag, "--preset", "audio")
        source = voice if size != "1" else site.home / "head.wav"
        if size == "1":
            source.write_bytes(voice.read_bytes()[:9000])
        run(site, "send", tag, str(source), "--format", "raw", "--chunk-bytes", size)
        wait_for_size(site, tag, source.stat().st_size)
    context = connect(site.home)
    for tag in ("voice.by4093", "voice.by1000000"):
        assert context.streams[tag][:] == context.streams["voice"][:]
        for output in ("samples", "spectrum", "features", "model"):
            expected = np.asarray(context.arrays[f"voice:{output}"])
            wait_for_rows(site, f"{tag}:{output}", len(expected))
            assert np.asarray(context.arrays[f"{tag}:{output}"]).tobytes() == expected.tobytes(), output
    wait_for_rows(site, "voice.by1:samples", (9000 - 44) // 2)
    head = np.asarray(context.arrays["voice.by1:samples"])
    assert np.array_equal(head, np.asarray(context.arrays["voice:samples"])[: len(head)])


def test_the_web_serves_what_the_store_holds(site: Running, voice: Path) -> None:
    described: dict[str, Any] = json.loads(get(site, "streams/voice")[1])
    assert described["size"] == voice.stat().st_size
    assert described["chunks"] == described["events"] == -(-voice.stat().st_size // 2048)
    assert (described["tag"], described["policy"], described["start"]) == ("voice", "voice", 0)
    array = np.asarray(connect(site.home).arrays["voice:spectrum"])
    assert json.loads(get(site, "arrays/voice:spectrum")[1])["shape"] == list(array.shape)
    assert get(site, "arrays/voice:spectrum/data?start=3&stop=40&step=5")[1] == array[3:40:5].tobytes()
    npy = np.load(io.BytesIO(get(site, "arrays/voice:spectrum/data?start=-2&format=npy")[1]))
    assert np.array_equal(npy, array[-2:])
    status, part = get(site, "streams/voice/data", Range="bytes=8-11")
    assert (status, part) == (206, b"WAVE")


def test_an_array_is_exported_in_every_format(site: Running, voice: Path, tmp_path: Path) -> None:
    array = np.asarray(connect(site.home).arrays["voice:features"])
    run(site, "export", "voice:features", str(tmp_path / "f.npy"))
    assert np.array_equal(np.load(tmp_path / "f.npy"), array)
    run(site, "export", "voice:features", str(tmp_path / "f.csv"))
    assert len((tmp_path / "f.csv").read_text().splitlines()) == len(array) + 1
    run(site, "export", "voice:features", str(tmp_path / "f.parquet"))
    import pyarrow.parquet

    assert pyarrow.parquet.read_table(tmp_path / "f.parquet").num_rows == len(array)
