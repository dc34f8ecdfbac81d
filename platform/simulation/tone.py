"""A recording to begin with: a tone with overtones, noise, and a whistle that comes near the end."""

import wave
from pathlib import Path

import numpy as np

RATE_HZ = 16_000
DURATION_S = 10.0
TONE_HZ = 440.0
WHISTLE_HZ = 3_000.0
WHISTLE_FROM_S = 7.0
_FULL_SCALE = 32_767


def write_tone(file: Path) -> None:
    """Write a WAVE file: mono, int16, 16 kHz, 10 s; the same bytes each time. Raises OSError."""
    time_s = np.arange(int(RATE_HZ * DURATION_S)) / RATE_HZ
    sound = sum(0.3 / order * np.sin(2 * np.pi * TONE_HZ * order * time_s) for order in (1, 2, 3))
    sound = sound + 0.01 * np.random.default_rng(440).standard_normal(len(time_s))
    sound += 0.2 * np.sin(2 * np.pi * WHISTLE_HZ * time_s) * (time_s >= WHISTLE_FROM_S)
    samples = np.round(np.clip(sound, -1, 1) * _FULL_SCALE).astype("<i2")
    with open(file, "wb") as opened, wave.open(opened, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(RATE_HZ)
        written.writeframes(samples.tobytes())
