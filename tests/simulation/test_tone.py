"""The recording of `windvane simulate --wav`."""

import wave
from pathlib import Path

import numpy as np
from windvane.simulation.tone import DURATION_S, RATE_HZ, TONE_HZ, WHISTLE_FROM_S, WHISTLE_HZ, write_tone


def test_the_recording_is_a_wave_file_with_a_tone_and_a_whistle_that_comes_late(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        write_tone(tmp_path / name)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    with wave.open(str(tmp_path / "a.wav")) as read:
        assert (read.getnchannels(), read.getsampwidth(), read.getframerate()) == (1, 2, RATE_HZ)
        samples = np.frombuffer(read.readframes(read.getnframes()), "<i2").astype(float)
    assert len(samples) == RATE_HZ * DURATION_S
    quiet, loud = (np.abs(np.fft.rfft(samples[int(at_s * RATE_HZ) :][:RATE_HZ])) for at_s in (1, 8))
    assert quiet.argmax() == loud.argmax() == TONE_HZ  # a second: bins of 1 Hz
    assert loud[int(WHISTLE_HZ)] > 100 * quiet[int(WHISTLE_HZ)]
    assert 1 + 1 < WHISTLE_FROM_S < 8
