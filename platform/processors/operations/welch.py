"""`welch`: the mean of several periodograms in a stream, one row for each group of frames.

Source: P. D. Welch, "The use of fast Fourier transform for the estimation of power spectra: a method based on
time averaging over short, modified periodograms", IEEE Transactions on Audio and Electroacoustics 15 (1967).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ...errors import OperationFailed, PolicyInvalid
from .base.block import Block
from .base.operation import Operation, operation
from .base.reach import Reach, window
from .framing import Carry
from .spectrum import Spectrum, to_decibels

MAX_SEGMENTS = 1_000_000
MAX_OPEN = 16
"""Maximum means in progress at the same time: each is a row in memory."""


@dataclass(frozen=True, slots=True)
class WelchState:
    """What is kept between blocks.

    Attributes:
        carry: samples that later periodograms need.
        next_spectrum: number of the next expected periodogram.
        sums: shape (open, channels, bins), of the means in progress, the oldest first.
        since: number of periodograms since the last gap.
        next_row: number of the next row, if no gap comes before it.
    """

    carry: Carry | None = None
    next_spectrum: int = 0
    sums: tuple[NDArray[np.float64], ...] = ()
    since: int = 0
    next_row: int = 0


@operation("welch")
class Welch(Operation):
    """Welch's estimate (1967) of the power spectrum over `segments` frames, as `scipy.signal.welch` gives it
    for the samples of those frames.

    Samples of shape (n, channels) at a rate give rows of shape (bins,) for one channel, (channels, bins) for
    more, bins = length // 2 + 1; one row every `step` frames. A row has the time of the event that brought
    its last sample. No mean extends over a gap.

    Keeps fewer than `length` samples of each channel, and at most 16 rows.

    ```toml
    [[policy.pipeline]]
    operation = "welch"
    seconds = 60.0
    length = 8192
    ```
    """

    input = "samples"
    accepts = ("values",)
    output = "spectrum"
    state_type = WelchState

    def __init__(
        self,
        *,
        segments: Annotated[int, Meta(ge=1, le=MAX_SEGMENTS)] | None = None,
        seconds: Annotated[float, Meta(gt=0)] | None = None,
        step: Annotated[int, Meta(ge=1, le=MAX_SEGMENTS)] | None = None,
        length: Annotated[int, Meta(ge=2, le=1_048_576)] = 2048,
        overlap: Annotated[float, Meta(ge=0, le=0.95)] = 0.5,
        window: str = "hann",
        scaling: Literal["density", "spectrum"] = "density",
        detrend: Literal["none", "constant", "linear"] = "constant",
        level: Literal["linear", "dB"] = "linear",
        reference: Annotated[float, Meta(gt=0)] = 1.0,
        dtype: Literal["float32", "float64"] = "float64",
    ) -> None:
        """The frames of a mean; parameters from `length` on are those of `spectrum`.

        Args:
            segments: frames of one mean.
            seconds: of signal for one mean, in whole frames; 10 if neither is given.
            step: frames from one mean to the next, at least segments / 16; by default `segments`, so that
                means share no frame.
            length: samples in one frame.
            overlap: part of a frame that the next one shares.
            window: name of a window without parameters.
            scaling: power per Hz, or power of a line.
            detrend: what is subtracted from each frame; the default of scipy.signal.welch is "constant".
            level: "dB" for 10 log10(mean / reference²).
            reference: the value of 0 dB.
            dtype: of the rows.
        """
        if segments is not None and seconds is not None:
            raise PolicyInvalid("segments and seconds exclude each other: give one of them.")
        self._segments, self._seconds = segments, 10.0 if seconds is None else seconds
        self._step, self._length, self._hop = step, length, length - int(length * overlap)
        self._level, self._reference, self._dtype = level, reference, np.dtype(dtype)
        self._spectrum = Spectrum(
            length=length, overlap=overlap, window=window, scaling=scaling, detrend=detrend, dtype="float64"
        )
        if segments is not None:
            self._steps(segments)
        self._state = WelchState()

    def process(self, block: Block) -> Block | None:
        """Takes samples (n, channels); OperationFailed if rate or channels change, or without a rate."""
        segments, step = self._grouping(block.rate_hz)
        self._spectrum.restore(self._state.carry)
        spectra = self._spectrum.process(block)
        before = self._state
        carry = self._spectrum.state()
        if spectra is None:
            self._state = WelchState(carry, before.next_spectrum, before.sums, before.since, before.next_row)
            return None
        sums, since, next_row = [total.copy() for total in before.sums], before.since, before.next_row
        if spectra.first != before.next_spectrum:
            sums, since = [], 0
            next_row = max(next_row + 1, -(-spectra.first // step))
        first, rows, last = next_row, [], []
        for index, spectrum in enumerate(spectra.rows):
            if since % step == 0:
                sums.append(np.zeros_like(spectrum))
            for total in sums:
                np.add(total, spectrum, out=total)
            since += 1
            if since >= segments and (since - segments) % step == 0:
                rows.append(sums.pop(0) / segments)
                last.append(spectra.first + index)
                next_row += 1
        self._state = WelchState(carry, spectra.stop, tuple(sums), since, next_row)
        if not rows:
            return None
        given = np.stack(rows).astype(self._dtype, copy=False)
        if self._level == "dB":
            to_decibels(given, self._reference)
        return Block(
            rows=given,
            first=first,
            times=spectra.times.of_completed(first, np.array(last)),
            rate_hz=spectra.rate_hz / step,
            attrs=self._attrs(spectra, segments, step),
        )

    def depends_on(self) -> Reach:
        """The frames of the mean."""
        if self._state.carry is None:
            return Reach()
        segments, step = self._grouping(self._state.carry.rate_hz)
        return window((segments - 1) * self._hop + self._length, step * self._hop)

    def state(self) -> WelchState:
        """The samples of the next frames, and the sums of the means in progress."""
        return self._state

    def restore(self, state: WelchState | None) -> None:
        """Resumes from `state()`."""
        self._state = state if state is not None else WelchState()

    def _grouping(self, rate_hz: float) -> tuple[int, int]:
        segments = self._segments
        if segments is None:
            if not rate_hz > 0:
                raise OperationFailed('Samples without a rate have no spectrum: give "pcm" its rate_hz.')
            segments = int((self._seconds * rate_hz - self._length) // self._hop) + 1
            if not 1 <= segments <= MAX_SEGMENTS:
                raise OperationFailed(
                    f"{self._seconds:g} s at {rate_hz:g} Hz are {segments} frames, and can be 1 to "
                    f"{MAX_SEGMENTS}: set seconds or length to fit, or segments."
                )
        return segments, self._steps(segments)

    def _steps(self, segments: int) -> int:
        step = self._step or segments
        if not segments / MAX_OPEN <= step:
            raise PolicyInvalid(
                f"a mean of {segments} frames cannot be given every {step}: set step to "
                f"{-(-segments // MAX_OPEN)} or more, as at most {MAX_OPEN} means are made at a time."
            )
        return step

    def _attrs(self, spectra: Block, segments: int, step: int) -> dict[str, Any]:
        decibels = {"level": "dB", "reference": self._reference} if self._level == "dB" else {}
        return {**spectra.attrs, **decibels, "average": "mean", "segments": segments, "step": step}
