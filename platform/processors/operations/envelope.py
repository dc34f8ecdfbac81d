"""`envelope`: the spectrum of a band's amplitude: the rate of impacts of a bearing, not its resonances.

Source: R. B. Randall, J. Antoni, "Rolling element bearing diagnostics: a tutorial", Mechanical Systems and
Signal Processing 25 (2011), section 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import scipy.fft
import scipy.signal
from msgspec import Meta
from numpy.typing import NDArray

from ...errors import OperationFailed, PolicyInvalid
from .base.block import Block
from .base.operation import Operation, operation
from .base.reach import Reach, window
from .framing import Carry, Framing


@dataclass(frozen=True, slots=True)
class _Band:
    """The values that depend on the rate: the filter's transforms, and the number of lines that are kept."""

    rate_hz: float
    low_hz: float
    high_hz: float
    real: NDArray[np.complex128]
    imaginary: NDArray[np.complex128]
    lines: int


@operation("envelope")
class Envelope(Operation):
    """Power spectra of the envelope of a band.

    The samples go through a band-pass of linear phase whose output is analytic: its taps are a windowed
    low-pass (Hamming, `taps` of them) times 2 exp(2πi f_c n / rate), f_c the middle of the band. The envelope
    is the magnitude of that, or its square. Of each frame of `length` envelope samples, less their mean, the
    one-sided power spectrum is given (Hann window, scaled so that a line of amplitude a has a²/2):
    Randall and Antoni 2011, section 5.

    Each frame includes the `taps` - 1 samples around it that the filter needs (overlap-save), so the result
    is that of filtering the whole stream. Samples of shape (n, channels) at a rate give rows (bins,) for one
    channel, (channels, bins) for more, up to `max_hz`. A row has the time of the event that brought the last
    sample that it depends on. No frame reaches over a gap.

    Keeps fewer than `length` + `taps` samples of each channel.
    """

    input = "samples"
    accepts = ("values",)
    output = "spectrum"
    state_type = Carry | None

    def __init__(
        self,
        *,
        low_hz: Annotated[float, Meta(gt=0)] | None = None,
        high_hz: Annotated[float, Meta(gt=0)] | None = None,
        length: Annotated[int, Meta(ge=16, le=1_048_576)] = 16_384,
        overlap: Annotated[float, Meta(ge=0, le=0.95)] = 0.5,
        taps: Annotated[int, Meta(ge=3, le=65_535)] = 255,
        envelope: Literal["magnitude", "squared"] = "magnitude",
        max_hz: Annotated[float, Meta(gt=0)] | None = None,
        dtype: Literal["float32", "float64"] = "float32",
    ) -> None:
        """The band, and the resolution of the envelope spectrum.

        Args:
            low_hz: lower edge of the band, by default a tenth of the rate.
            high_hz: upper edge of the band, by default four tenths of the rate.
            length: samples of a frame of the envelope; lines are rate / length apart.
            overlap: part of a frame that the next one shares.
            taps: of the filter, an odd number; more make the edges of the band steeper.
            envelope: the magnitude of the analytic signal, or its square.
            max_hz: highest frequency of the lines; by default half the rate.
            dtype: of the rows; computed in float64.
        """
        if taps % 2 == 0:
            raise PolicyInvalid(f"taps cannot be {taps}: give an odd number, such as {taps + 1}.")
        if low_hz is not None and high_hz is not None and low_hz >= high_hz:
            raise PolicyInvalid(f"the band cannot go from {low_hz:g} to {high_hz:g} Hz: low_hz is the lower.")
        self.length, self.hop, self.reach = length, length - int(length * overlap), taps - 1
        self._low_hz, self._high_hz, self._max_hz = low_hz, high_hz, max_hz
        self._taps, self._envelope, self._overlap = taps, envelope, overlap
        self._dtype = np.dtype(dtype)
        self._size = int(scipy.fft.next_fast_len(length + taps - 1, real=True))
        window = scipy.signal.get_window("hann", length)
        self._window: NDArray[np.float64] = window
        self._scale = 2.0 / np.sum(window) ** 2
        self._band: _Band | None = None
        self._carry: Carry | None = None

    def process(self, block: Block) -> Block | None:
        """Takes samples (n, channels); OperationFailed without a rate, or one too low for the band."""
        if self._band is None or self._band.rate_hz != block.rate_hz:
            self._band = self._new_band(block.rate_hz)
        framing = Framing(self._carry, block, length=self.length + self.reach, hop=self.hop)
        result = self._rows(framing, block, self._band) if framing.count else None
        self._carry = framing.carry
        return result

    def depends_on(self) -> Reach:
        """The frame, and the samples around it that the filter needs."""
        return window(self.length + self.reach, self.hop)

    def state(self) -> Carry | None:
        """The samples that the next frames share."""
        return self._carry

    def restore(self, state: Carry | None) -> None:
        """Resumes from `state()`."""
        self._carry = state

    def _rows(self, framing: Framing, block: Block, band: _Band) -> Block:
        rows = np.empty((framing.count, framing.channels, band.lines), self._dtype)
        with np.errstate(invalid="ignore", over="ignore"):
            for channel in range(framing.channels):
                for first, frames, _ in framing.batches(channel):
                    spectra = np.fft.rfft(frames, self._size, axis=1)
                    inside = slice(self.reach, self.reach + self.length)
                    real = np.fft.irfft(spectra * band.real, self._size, axis=1)[:, inside]
                    imaginary = np.fft.irfft(spectra * band.imaginary, self._size, axis=1)[:, inside]
                    squared = real * real + imaginary * imaginary
                    envelope = squared if self._envelope == "squared" else np.sqrt(squared)
                    envelope -= envelope.mean(axis=1, keepdims=True)
                    envelope *= self._window
                    lines = np.fft.rfft(envelope, axis=1)[:, : band.lines]
                    rows[first : first + len(frames), channel] = self._power(lines)
        unit = block.attrs.get("unit", "")
        return Block(
            rows=rows[:, 0] if framing.channels == 1 else rows,
            first=framing.first,
            times=framing.times(),
            rate_hz=block.rate_hz / self.hop,
            attrs={
                "kind": self.output,
                "envelope": self._envelope,
                "band_hz": [band.low_hz, band.high_hz],
                "taps": self._taps,
                "rate_hz": block.rate_hz,
                "window": "hann",
                "length": self.length,
                "hop": self.hop,
                "overlap": self._overlap,
                "scaling": "spectrum",
                "detrend": "constant",
                "channels": framing.channels,
                "unit": unit and (f"{unit}²" if self._envelope == "magnitude" else f"{unit}⁴"),
                "frequency_step_hz": block.rate_hz / self.length,
            },
        )

    def _power(self, lines: NDArray[np.complex128]) -> NDArray[np.float64]:
        power: NDArray[np.float64] = (lines.real**2 + lines.imag**2) * self._scale
        power[:, 0] /= 2
        if self.length % 2 == 0 and power.shape[1] == self.length // 2 + 1:
            power[:, -1] /= 2
        return power

    def _new_band(self, rate_hz: float) -> _Band:
        if not rate_hz > 0:
            raise OperationFailed('Samples without a rate have no bands: give "pcm" its rate_hz.')
        low_hz = rate_hz * 0.1 if self._low_hz is None else self._low_hz
        high_hz = rate_hz * 0.4 if self._high_hz is None else self._high_hz
        if not low_hz < high_hz <= rate_hz / 2:
            raise OperationFailed(
                f"The band from {low_hz:g} to {high_hz:g} Hz does not lie below half the rate of {rate_hz:g} "
                "Hz: set low_hz and high_hz to fit."
            )
        taps = analytic_taps(self._taps, low_hz, high_hz, rate_hz)
        step_hz, lines = rate_hz / self.length, self.length // 2 + 1
        if self._max_hz is not None:
            lines = min(lines, int(self._max_hz / step_hz) + 1)
        return _Band(
            rate_hz,
            low_hz,
            high_hz,
            np.fft.rfft(taps.real, self._size),
            np.fft.rfft(taps.imag, self._size),
            lines,
        )


def analytic_taps(count: int, low_hz: float, high_hz: float, rate_hz: float) -> NDArray[np.complex128]:
    """Taps of a band-pass with gain 2 for positive frequencies and 0 for negative ones."""
    middle_hz, half_hz = (low_hz + high_hz) / 2, (high_hz - low_hz) / 2
    low_pass = scipy.signal.firwin(count, half_hz, window="hamming", fs=rate_hz)
    turns = middle_hz / rate_hz * (np.arange(count) - (count - 1) / 2)
    taps: NDArray[np.complex128] = 2 * low_pass * np.exp(2j * np.pi * turns)
    return taps
