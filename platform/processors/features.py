"""`features`: what a window of samples is like, in a handful of numbers: what models are fed with."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ..errors import OperationFailed, PolicyInvalid
from .block import Block
from .framing import Carry, Framing, Scratch, channel_names
from .operation import Operation, operation

MAX_WINDOW = 1_048_576
"""Samples in a window, at most; what is kept between blocks is bounded by it."""

_transforms = Scratch()


@operation("features")
class Features(Operation):
    """RMS, peak, kurtosis and band energies of windows side by side; each row from its own window alone.

    For each channel, of a window x of N samples in float64:

    - `rms`: sqrt(mean(x²)), mean included;
    - `peak`: max |x|;
    - `kurtosis`: excess kurtosis (Fisher; normal noise has 0) m4 / m2² - 3 of the central moments, without
      correction for bias; 0 where all samples are equal;
    - `band_<low>_<high>`: energy between two frequencies in Hz, lower one included: the sum of PSD times line
      spacing over the lines of the one-sided periodogram, rectangular window, no detrending. So it is in
      unit², and bands that cover everything sum to rms² (Parseval). The line at half the rate belongs to a
      band that ends there.

    Samples of shape (n, channels) give float64 rows (n, columns), the columns of channel 0 first. With one
    nameless channel the columns are called as above, else `channel0.rms`, or `<column>.rms`. A row has the
    time of the event that brought its last sample. NaN in a window gives NaN in its row.

    Keeps fewer samples than one window.
    """

    input = "samples"
    accepts = ("values",)
    output = "features"

    def __init__(
        self,
        *,
        window: Annotated[int, Meta(ge=2, le=MAX_WINDOW)] | None = None,
        window_s: Annotated[float, Meta(gt=0)] | None = None,
        bands: Annotated[int, Meta(ge=0, le=1024)] | list[tuple[float, float]] = 8,
    ) -> None:
        """How long the windows are, and which bands they are asked for.

        Args:
            window: samples in a window.
            window_s: seconds in a window, rounded to whole samples; 0.1 where neither is given.
            bands: number of equally wide bands up to half the rate, or their edges [[low, high], …] in Hz,
                which may overlap. What comes without a rate, such as values, has no frequencies: 0.
        """
        if window is not None and window_s is not None:
            raise PolicyInvalid(
                "window (samples) and window_s (seconds) exclude each other: give one of them."
            )
        self._window, self._window_s = window, 0.1 if window_s is None else window_s
        self._bands = bands
        for low, high in [] if isinstance(bands, int) else bands:
            if not 0 <= low < high < np.inf:
                raise PolicyInvalid(
                    f"bands cannot hold [{low:g}, {high:g}]: an entry is [low, high] in Hz, 0 <= low < high."
                )
        self._carry: Carry | None = None
        self._layout: _Layout | None = None

    def process(self, block: Block) -> Block | None:
        """Takes rows (n, channels); OperationFailed where rate or channels change, or no band fits."""
        if self._layout is None or self._layout.rate_hz != block.rate_hz:
            self._layout = self._lay_out(block.rate_hz)
        layout = self._layout
        framing = Framing(self._carry, block, length=layout.length, hop=layout.length)
        result = None
        if framing.count:
            columns = _columns(block, layout.bands)
            result = Block(
                rows=_rows(framing, layout.lines),
                first=framing.first,
                times=framing.times(),
                rate_hz=block.rate_hz / layout.length,
                columns=columns,
                attrs={
                    "kind": self.output,
                    "columns": list(columns),
                    "rate_hz": block.rate_hz,
                    "window": layout.length,
                    "bands": [list(band) for band in layout.bands],
                    "channels": framing.channels,
                    "unit": block.attrs.get("unit", ""),
                },
            )
        self._carry = framing.carry
        return result

    def state(self) -> Carry | None:
        """The samples of the window that is not full yet."""
        return self._carry

    def restore(self, state: Carry | None) -> None:
        """Goes on from `state()`."""
        self._carry = state

    def _lay_out(self, rate_hz: float) -> _Layout:
        length = round(self._window_s * rate_hz) if self._window is None else self._window
        if not 2 <= length <= MAX_WINDOW:
            raise OperationFailed(
                f"A window of {self._window_s:g} s at {rate_hz:g} Hz has {length} samples, and can have 2 to "
                f"{MAX_WINDOW}: set window_s to fit the rate, or window to a number of samples."
            )
        bands = self._bands
        if isinstance(bands, int):
            bands = list(pairwise(np.linspace(0, rate_hz / 2, bands + 1).tolist())) if bands else []
        if bands and not rate_hz > 0:
            raise OperationFailed(
                "What comes without a rate has no frequency bands: set bands = 0 and a window."
            )
        return _Layout(rate_hz, length, bands, [_lines(band, rate_hz, length) for band in bands])


@dataclass(frozen=True, slots=True)
class _Layout:
    """Windows and bands at one rate: samples a window, edges in Hz, lines of the transform."""

    rate_hz: float
    length: int
    bands: list[tuple[float, float]]
    lines: list[slice]


def _rows(framing: Framing, lines: list[slice]) -> NDArray[np.float64]:
    width = 3 + len(lines)
    rows = np.empty((framing.count, framing.channels * width))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        for channel in range(framing.channels):
            for first, windows, room in framing.batches(channel):
                out = rows[first : first + len(windows), channel * width : (channel + 1) * width]
                low, high = windows.min(axis=1), windows.max(axis=1)
                np.sqrt(np.multiply(windows, windows, out=room).mean(axis=1), out=out[:, 0])
                np.maximum(-low, high, out=out[:, 1])
                out[:, 2] = np.where(low == high, 0.0, _excess_kurtosis(windows, low, high, room))
                if lines:
                    _band_energies(windows, lines, out[:, 3:])
    return rows


def _columns(block: Block, bands: list[tuple[float, float]]) -> tuple[str, ...]:
    names = ["rms", "peak", "kurtosis", *(f"band_{low:g}_{high:g}" for low, high in bands)]
    return channel_names(block, names)


def _lines(band: tuple[float, float], rate_hz: float, length: int) -> slice:
    """Lines with low <= frequency < high, and the one at half the rate where the band ends there."""
    low, high = band
    if high > rate_hz / 2:
        raise OperationFailed(
            f"The band from {low:g} to {high:g} Hz reaches over half the rate of {rate_hz:g} Hz: set bands "
            "that end there."
        )
    frequencies = np.fft.rfftfreq(length, 1 / rate_hz)
    start, stop = np.searchsorted(frequencies, [low, high])
    if high == rate_hz / 2:
        stop = len(frequencies)
    if start == stop:
        raise OperationFailed(
            f"The band from {low:g} to {high:g} Hz holds no line of a window of {length} samples, which has "
            f"one every {rate_hz / length:g} Hz: make the band wider or the window longer."
        )
    return slice(int(start), int(stop))


def _excess_kurtosis(
    windows: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    room: NDArray[np.float64],
) -> NDArray[np.float64]:
    mean = windows.mean(axis=1)
    np.subtract(windows, mean[:, np.newaxis], out=room)
    # Scaled to a largest deviation of 1, so that the fourth power stays within the range of float64.
    room /= np.maximum(high - mean, mean - low)[:, np.newaxis]
    np.multiply(room, room, out=room)
    variance = room.mean(axis=1)
    np.multiply(room, room, out=room)
    kurtosis: NDArray[np.float64] = room.mean(axis=1) / (variance * variance) - 3.0
    return kurtosis


def _band_energies(windows: NDArray[np.float64], lines: list[slice], out: NDArray[np.float64]) -> None:
    count, length = windows.shape
    bins = length // 2 + 1
    pairs = _transforms.of(count * bins * 2).reshape(count, bins * 2)
    np.fft.rfft(windows, axis=1, out=pairs.view(np.complex128))
    np.multiply(pairs, pairs, out=pairs)
    power = pairs[:, 0::2] + pairs[:, 1::2]
    # PSD times line spacing is 2 |X|² / (rate N) * rate / N: the rate cancels out.
    power *= 2.0 / length**2
    power[:, 0] /= 2
    if length % 2 == 0:
        power[:, -1] /= 2
    for index, band in enumerate(lines):
        np.sum(power[:, band], axis=1, out=out[:, index])
