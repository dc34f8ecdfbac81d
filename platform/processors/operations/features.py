"""`features`: a few numbers that describe a window of samples: the usual input of models."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ...errors import OperationFailed, PolicyInvalid
from .base.block import Block
from .base.operation import Operation, operation
from .base.reach import Reach, window
from .framing import Carry, Framing, Scratch, channel_names

MAX_WINDOW = 1_048_576
"""Maximum samples in a window; it bounds the state between blocks."""

WindowMeasure = Literal[
    "rms",
    "peak",
    "kurtosis",
    "crest",
    "skewness",
    "mean",
    "std",
    "min",
    "max",
    "peak_to_peak",
    "shape",
    "impulse",
    "clearance",
]

_transforms = Scratch()


@operation("features")
class Features(Operation):
    """RMS, peak, kurtosis and band energies of windows side by side; each row from its own window alone.

    For each channel, of a window x of N samples in float64:

    - `rms`: sqrt(mean(x²)), mean included;
    - `peak`: max |x|;
    - `kurtosis`: excess kurtosis (Fisher; normal noise has 0) m4 / m2² - 3 of the central moments, without
      correction for bias; 0 if all samples are equal;
    - `crest`: peak / rms; 0 if all samples are 0;
    - `skewness`: m3 / m2^1.5 of the central moments; 0 if all samples are equal;
    - `mean`, `std` (divided by N), `min`, `max`, `peak_to_peak`: max - min;
    - `shape`: rms / mean(|x|), `impulse`: peak / mean(|x|), `clearance`: peak / mean(√|x|)²; 0 if all
      samples are 0;
    - `band_<low>_<high>`: energy between two frequencies in Hz, lower one included: the sum of PSD times line
      spacing over the lines of the one-sided periodogram, rectangular window, no detrending. So it is in
      unit², and bands that cover everything sum to rms² (Parseval). The line at half the rate belongs to a
      band that ends there.

    Samples of shape (n, channels) give float64 rows (n, columns), the columns of channel 0 first. With one
    nameless channel the columns are named as above, else `channel0.rms`, or `<column>.rms`. A row has the
    time of the event that brought its last sample. NaN in a window gives NaN in its row.

    Keeps fewer samples than one window.
    """

    input = "samples"
    accepts = ("values",)
    output = "features"
    state_type = Carry | None

    def __init__(
        self,
        *,
        window: Annotated[int, Meta(ge=2, le=MAX_WINDOW)] | None = None,
        window_s: Annotated[float, Meta(gt=0)] | None = None,
        bands: Annotated[int, Meta(ge=0, le=1024)] | list[tuple[float, float]] = 8,
        measures: list[WindowMeasure] | None = None,
    ) -> None:
        """The length of the windows, and the bands that are measured in them.

        Args:
            window: samples in a window.
            window_s: seconds in a window, rounded to whole samples; 0.1 if neither is given.
            bands: number of equally wide bands up to half the rate, or their edges [[low, high], …] in Hz,
                which may overlap. Rows without a rate, such as values, have no frequencies: use 0.
            measures: the columns before the bands, by default rms, peak and kurtosis.
        """
        if window is not None and window_s is not None:
            raise PolicyInvalid(
                "window (samples) and window_s (seconds) exclude each other: give one of them."
            )
        self._window, self._window_s = window, 0.1 if window_s is None else window_s
        self._bands = bands
        self._measures: list[WindowMeasure] = ["rms", "peak", "kurtosis"] if measures is None else measures
        if len(set(self._measures)) < len(self._measures) or not (self._measures or bands):
            raise PolicyInvalid(f"measures cannot be {self._measures}: name each once, or leave them out.")
        for low, high in [] if isinstance(bands, int) else bands:
            if not 0 <= low < high < np.inf:
                raise PolicyInvalid(
                    f"bands cannot hold [{low:g}, {high:g}]: an entry is [low, high] in Hz, 0 <= low < high."
                )
        self._carry: Carry | None = None
        self._layout: _Layout | None = None

    def process(self, block: Block) -> Block | None:
        """Takes rows (n, channels); OperationFailed if rate or channels change, or no band fits."""
        if self._layout is None or self._layout.rate_hz != block.rate_hz:
            self._layout = self._lay_out(block.rate_hz)
        layout = self._layout
        framing = Framing(self._carry, block, length=layout.length, hop=layout.length)
        result = None
        if framing.count:
            columns = _columns(block, self._measures, layout.bands)
            result = Block(
                rows=_rows(framing, self._measures, layout.lines),
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
                resolution=block.resolution,
            )
        self._carry = framing.carry
        return result

    def depends_on(self) -> Reach:
        """The window."""
        layout = self._layout
        if layout is None:
            return Reach()
        return window(layout.length, layout.length)

    def state(self) -> Carry | None:
        """The samples of the window that is not full yet."""
        return self._carry

    def restore(self, state: Carry | None) -> None:
        """Resumes from `state()`."""
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


def _rows(framing: Framing, measures: list[WindowMeasure], lines: list[slice]) -> NDArray[np.float64]:
    width = len(measures) + len(lines)
    rows = np.empty((framing.count, framing.channels * width))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        for channel in range(framing.channels):
            for first, windows, room in framing.batches(channel):
                out = rows[first : first + len(windows), channel * width : (channel + 1) * width]
                measured = _Windows(windows, room)
                for index, name in enumerate(measures):
                    out[:, index] = measured.measure(name)
                if lines:
                    _band_energies(windows, lines, out[:, len(measures) :])
    return rows


class _Windows:
    """A batch of windows (n, length) and their measures; each intermediate result is computed only once."""

    def __init__(self, windows: NDArray[np.float64], room: NDArray[np.float64]) -> None:
        self._windows, self._room = windows, room

    def measure(self, name: WindowMeasure) -> NDArray[np.float64]:
        match name:
            case "rms":
                return self.rms
            case "peak":
                return self.peak
            case "mean":
                return self.mean
            case "min":
                return self.low
            case "max":
                return self.high
            case "peak_to_peak":
                return self.high - self.low
            case "std":
                np.subtract(self._windows, self.mean[:, np.newaxis], out=self._room)
                std: NDArray[np.float64] = np.sqrt(
                    np.multiply(self._room, self._room, out=self._room).mean(axis=1)
                )
                return std
            case "crest":
                return self._quotient(self.peak, self.rms)
            case "shape":
                return self._quotient(self.rms, self.mean_size)
            case "impulse":
                return self._quotient(self.peak, self.mean_size)
            case "clearance":
                np.sqrt(np.abs(self._windows, out=self._room), out=self._room)
                return self._quotient(self.peak, self._room.mean(axis=1) ** 2)
            case "kurtosis":
                return np.where(self.low == self.high, 0.0, self._kurtosis())
            case "skewness":
                return np.where(self.low == self.high, 0.0, self._skewness())

    def _quotient(self, of: NDArray[np.float64], to: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(self.peak == 0, 0.0, of / to)

    @cached_property
    def low(self) -> NDArray[np.float64]:
        low: NDArray[np.float64] = self._windows.min(axis=1)
        return low

    @cached_property
    def high(self) -> NDArray[np.float64]:
        high: NDArray[np.float64] = self._windows.max(axis=1)
        return high

    @cached_property
    def peak(self) -> NDArray[np.float64]:
        return np.maximum(-self.low, self.high)

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = self._windows.mean(axis=1)
        return mean

    @cached_property
    def mean_size(self) -> NDArray[np.float64]:
        mean_size: NDArray[np.float64] = np.abs(self._windows, out=self._room).mean(axis=1)
        return mean_size

    @cached_property
    def rms(self) -> NDArray[np.float64]:
        rms: NDArray[np.float64] = np.sqrt(
            np.multiply(self._windows, self._windows, out=self._room).mean(axis=1)
        )
        return rms

    def _deviations(self) -> NDArray[np.float64]:
        """Deviations from the mean, in `room`, scaled to a maximum of 1, so that float64 holds the powers."""
        room = np.subtract(self._windows, self.mean[:, np.newaxis], out=self._room)
        room /= np.maximum(self.high - self.mean, self.mean - self.low)[:, np.newaxis]
        return room

    def _kurtosis(self) -> NDArray[np.float64]:
        room = self._deviations()
        np.multiply(room, room, out=room)
        variance = room.mean(axis=1)
        np.multiply(room, room, out=room)
        kurtosis: NDArray[np.float64] = room.mean(axis=1) / (variance * variance) - 3.0
        return kurtosis

    def _skewness(self) -> NDArray[np.float64]:
        room = self._deviations()
        squares = room * room
        variance = squares.mean(axis=1)
        third = np.multiply(squares, room, out=squares).mean(axis=1)
        skewness: NDArray[np.float64] = third / variance**1.5
        return skewness


def _columns(
    block: Block, measures: list[WindowMeasure], bands: list[tuple[float, float]]
) -> tuple[str, ...]:
    names = [*measures, *(f"band_{low:g}_{high:g}" for low, high in bands)]
    return channel_names(block, names)


def _lines(band: tuple[float, float], rate_hz: float, length: int) -> slice:
    """Lines with low <= frequency < high, and the one at half the rate if the band ends there."""
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
