"""`kurtosis`: spectral kurtosis: the frequencies at which a signal is impulsive.

Source: J. Antoni, "The spectral kurtosis: a useful tool for characterising non-stationary signals",
Mechanical Systems and Signal Processing 20 (2006), section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from .base.block import Block
from .base.operation import Operation, operation
from .base.reach import Reach, window
from .framing import Carry
from .spectrum import Spectrum


@dataclass(frozen=True, slots=True)
class KurtosisState:
    """What is kept between blocks.

    Attributes:
        carry: samples that later frames need.
        next_frame: number of the next expected frame.
        frames: number of frames in the incomplete group.
        second: shape (channels, bins), sum of their |X|²; None before the first.
        fourth: sum of their |X|⁴.
        next_row: number of the next row, if no gap comes before it.
    """

    carry: Carry | None = None
    next_frame: int = 0
    frames: int = 0
    second: NDArray[np.float64] | None = None
    fourth: NDArray[np.float64] | None = None
    next_row: int = 0


@operation("kurtosis")
class Kurtosis(Operation):
    """Spectral kurtosis (Antoni 2006) over groups of frames, side by side.

    With X the short-time transform and E the mean over `frames` frames, the row is E|X|⁴ / (E|X|²)² - 2:
    about 0 for stationary noise, -1 for a steady tone, and large if there are bursts, such as a resonance
    that a bearing fault excites. At 0 and at half the rate, where X is real, 3 is subtracted instead of 2.
    Without power it is 0. Its standard deviation for noise is about 2 / √frames.

    Samples of shape (n, channels) at a rate give float64 rows (bins,) for one channel, (channels, bins) for
    more, bins = length // 2 + 1. A row has the time of the event that brought its last sample. No group
    reaches over a gap. Keeps fewer than `length` samples and two rows of each channel.
    """

    input = "samples"
    accepts = ("values",)
    output = "kurtosis"
    state_type = KurtosisState

    def __init__(
        self,
        *,
        length: Annotated[int, Meta(ge=4, le=1_048_576)] = 256,
        overlap: Annotated[float, Meta(ge=0, le=0.95)] = 0.5,
        window: str = "hann",
        frames: Annotated[int, Meta(ge=2, le=10_000_000)] = 512,
    ) -> None:
        """The frames and groups.

        Args:
            length: samples in a frame: shorter than the bursts are apart, longer than one rings.
            overlap: part of a frame that the next one shares.
            window: name of a window without parameters.
            frames: number of frames in a group.
        """
        self._frames = frames
        self._spectrum = Spectrum(
            length=length, overlap=overlap, window=window, scaling="spectrum", dtype="float64"
        )
        self._state = KurtosisState()

    def process(self, block: Block) -> Block | None:
        """Takes samples (n, channels); OperationFailed if rate or channels change, or without a rate."""
        before = self._state
        self._spectrum.restore(before.carry)
        spectra = self._spectrum.process(block)
        carry = self._spectrum.state()
        frames, second, fourth, next_row = before.frames, before.second, before.fourth, before.next_row
        if spectra is None:
            self._state = KurtosisState(carry, before.next_frame, frames, second, fourth, next_row)
            return None
        if spectra.first != before.next_frame:
            frames, next_row = 0, max(next_row + 1, -(-spectra.first // self._frames))
        first, rows, last = next_row, [], []
        even, taken = spectra.attrs["length"] % 2 == 0, 0
        while taken < len(spectra.rows):
            part = spectra.rows[taken : taken + self._frames - frames]
            second = _added(second if frames else None, part)
            fourth = _added(fourth if frames else None, part * part)
            taken, frames = taken + len(part), frames + len(part)
            if frames == self._frames:
                rows.append(self._kurtosis(second, fourth, even=even))
                last.append(spectra.first + taken - 1)
                frames, next_row = 0, next_row + 1
        self._state = KurtosisState(carry, spectra.stop, frames, second, fourth, next_row)
        if not rows:
            return None
        kept = ("rate_hz", "window", "length", "hop", "overlap", "channels", "frequency_step_hz")
        return Block(
            rows=np.stack(rows),
            first=first,
            times=spectra.times.of_completed(first, np.array(last)),
            rate_hz=spectra.rate_hz / self._frames,
            attrs={
                "kind": self.output,
                "frames": self._frames,
                "unit": "",
                **{key: spectra.attrs[key] for key in kept},
            },
        )

    def depends_on(self) -> Reach:
        """The frames of the group."""
        frame = self._spectrum.depends_on()
        length, hop = frame.rows or 0, int(frame.step or 0)
        return window((self._frames - 1) * hop + length, self._frames * hop)

    def state(self) -> KurtosisState:
        """The samples of the next frame, and the sums of the group."""
        return self._state

    def restore(self, state: KurtosisState | None) -> None:
        """Resumes from `state()`."""
        self._state = state if state is not None else KurtosisState()

    def _kurtosis(
        self, second: NDArray[np.float64], fourth: NDArray[np.float64], *, even: bool
    ) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            kurtosis = self._frames * fourth / (second * second) - 2
        kurtosis[..., 0] -= 1
        if even:
            kurtosis[..., -1] -= 1
        return np.where(second == 0, 0.0, kurtosis)


def _added(total: NDArray[np.float64] | None, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adds row by row, so that the result does not depend on the number of rows per call."""
    if total is not None:
        rows = np.concatenate((total[np.newaxis], rows))
    added: NDArray[np.float64] = np.add.reduce(rows, axis=0)
    return added
