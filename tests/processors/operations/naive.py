"""Naive versions of the operations: slow, obvious, and on whole streams at a time."""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def row_times_ns(row_stops: Sequence[int], event_stops: Sequence[int], times_ns: Sequence[int]) -> list[int]:
    """The time of each row is that of the first event that completes the row."""
    return [
        next(time for stop, time in zip(event_stops, times_ns, strict=True) if stop >= row_stop)
        for row_stop in row_stops
    ]


def power_spectral_density(frame: Sequence[float], window: Sequence[float], rate_hz: float) -> list[float]:
    """The discrete Fourier transform by its definition, squared, one-sided, per Hz."""
    count = len(frame)
    power = []
    for k in range(count // 2 + 1):
        pairs = enumerate(zip(window, frame, strict=True))
        line = sum(w * x * cmath.exp(-2j * math.pi * k * n / count) for n, (w, x) in pairs)
        both_sides = 1 if k == 0 or 2 * k == count else 2
        power.append(both_sides * abs(line) ** 2 / (rate_hz * sum(w * w for w in window)))
    return power


def features(window: Sequence[float], rate_hz: float, bands: Sequence[tuple[float, float]]) -> list[float]:
    """RMS, peak, excess kurtosis; for each band the sum of power density times spacing over its lines."""
    count = len(window)
    mean = math.fsum(window) / count
    second = math.fsum((x - mean) ** 2 for x in window) / count
    fourth = math.fsum((x - mean) ** 4 for x in window) / count
    density = power_spectral_density(window, [1.0] * count, rate_hz)
    spacing = rate_hz / count
    energies = [
        math.fsum(
            value * spacing
            for k, value in enumerate(density)
            if low <= k * spacing < high or k * spacing == high == rate_hz / 2
        )
        for low, high in bands
    ]
    return [
        math.sqrt(math.fsum(x * x for x in window) / count),
        max(abs(x) for x in window),
        fourth / second**2 - 3 if len(set(window)) > 1 else 0.0,
        *energies,
    ]


def int24(data: bytes) -> NDArray[np.int32]:
    """Packed little-endian 24-bit integers."""
    return np.array(
        [int.from_bytes(data[i : i + 3], "little", signed=True) for i in range(0, len(data), 3)],
        dtype=np.int32,
    )


def wave_data(file: bytes) -> bytes:
    """The bytes of the samples of one whole WAVE file, whose last byte is the last of `file`.

    By the size of its data chunk if a chunk or nothing follows there, else all received bytes.
    """
    at = 12
    while file[at : at + 4] != b"data":
        size = int.from_bytes(file[at + 4 : at + 8], "little")
        at += 8 + size
        at += file[at : at + 4] not in (b"data", b"fmt ", b"LIST", b"ds64", b"bext")  # a byte of padding
    size = int.from_bytes(file[at + 4 : at + 8], "little")
    at += 8
    if file[:4] in (b"RF64", b"BW64") and size == 0xFFFFFFFF:
        ds64 = file.index(b"ds64")
        size = int.from_bytes(file[ds64 + 16 : ds64 + 24], "little")
    for end in (at + size, at + size + size % 2):
        if file[end : end + 4] in (b"", b"\0", b"LIST", b"bext"):
            return file[at : at + size]
    return file[at:]
