"""`sliding_dft`: amplitude and phase of a few tracked frequencies over a sliding window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ...errors import OperationFailed, PolicyInvalid
from .base.block import Block
from .base.operation import Operation, operation
from .base.reach import Reach, window
from .framing import Carry, Framing, channel_names

MAX_PARTS = 256
MAX_FREQUENCIES = 64


@dataclass(frozen=True, slots=True)
class SlidingDftState:
    """What is kept between blocks.

    Attributes:
        carry: samples of the incomplete hop.
        next_hop: number of the next expected hop.
        parts: shape (fewer than length / hop, channels, tones), transforms of the hops that later rows need.
        next_row: number of the next row, if no gap comes before it.
    """

    carry: Carry | None = None
    next_hop: int = 0
    parts: NDArray[np.complex128] | None = None
    next_row: int = 0


@operation("sliding_dft")
class SlidingDft(Operation):
    """The discrete Fourier transform of the last `length` samples at given frequencies, every `hop` samples.

    With w the window (periodic Hann, or none) and x the samples from s on, X = Σ w[n] x[n] exp(-2πi f n /
    rate), `amplitude_<f>` is 2 |X| / Σw, the peak amplitude of a tone, and `phase_<f>` the angle of X in
    radians, referred to sample 0 of the stream: a steady cosine keeps its phase. Frequencies need not be
    lines of the window.

    Each sample is multiplied once: the contribution of a hop to the transform is summed separately, and a row
    is the sum of the last length / hop contributions, with their phases shifted. Nothing is subtracted, so
    rounding errors do not accumulate. Hann's window combines the transforms at f and f ± rate / length.

    Samples of shape (n, channels) give float64 rows (m, columns), those of channel 0 first. Row `i` is
    complete with sample i hop + length - 1. Keeps length / hop transforms and fewer than `hop` samples.
    """

    input = "samples"
    accepts = ("values",)
    output = "features"
    state_type = SlidingDftState

    def __init__(
        self,
        *,
        frequencies_hz: Annotated[list[float], Meta(min_length=1, max_length=MAX_FREQUENCIES)],
        length: Annotated[int, Meta(ge=2, le=1_048_576)] = 2048,
        hop: Annotated[int, Meta(ge=1, le=1_048_576)] = 256,
        window: str = "hann",
        phase: bool = False,
    ) -> None:
        """The tracked frequencies and the window.

        Args:
            frequencies_hz: at most 64.
            length: samples of the window, a multiple of `hop`.
            hop: samples from one row to the next, at least length / 256.
            window: "hann" or "boxcar".
            phase: whether there are columns of phases too.
        """
        if length % hop or length // hop > MAX_PARTS:
            raise PolicyInvalid(f"length {length} must be hop {hop} times 1 to {MAX_PARTS}: set them to fit.")
        if window not in ("hann", "boxcar"):
            raise PolicyInvalid(f'window cannot be "{window}": it can be "hann" or "boxcar".')
        if len({f"{f:g}" for f in frequencies_hz}) < len(frequencies_hz) or min(frequencies_hz) <= 0:
            raise PolicyInvalid(f"frequencies_hz cannot be {frequencies_hz}: name each once, above 0.")
        self._frequencies_hz, self._length, self._hop = frequencies_hz, length, hop
        self._window, self._phase = window, phase
        self._waves_rate_hz = -1.0
        self._turns: NDArray[np.float64] = np.empty(0)
        self._waves: NDArray[np.float64] = np.empty((0, 0))
        self._state = SlidingDftState()

    def process(self, block: Block) -> Block | None:
        """Takes samples (n, channels); OperationFailed if a frequency is over half the rate."""
        if self._waves_rate_hz != block.rate_hz:
            self._new_waves(block.rate_hz)
        before = self._state
        framing = Framing(before.carry, block, length=self._hop, hop=self._hop)
        if framing.count == 0:
            self._state = SlidingDftState(framing.carry, before.next_hop, before.parts, before.next_row)
            return None
        parts, next_row, count = self._parts(framing), before.next_row, self._length // self._hop
        if framing.first != before.next_hop:
            next_row = max(next_row + 1, framing.first)
        elif before.parts is not None and before.parts.shape[1] == parts.shape[1]:
            parts = np.concatenate((before.parts, parts))
        rows_there = max(len(parts) - count + 1, 0)
        kept = parts[rows_there:].copy()
        self._state = SlidingDftState(
            framing.carry, framing.first + framing.count, kept, next_row + rows_there
        )
        if not rows_there:
            return None
        # The hops of the last `rows_there` rows end in this block, one each.
        last = framing.first + framing.count - rows_there + np.arange(rows_there)
        starts = framing.starts[framing.count - rows_there :] + self._hop - self._length
        names = [f"amplitude_{f:g}" for f in self._frequencies_hz]
        names += [f"phase_{f:g}" for f in self._frequencies_hz] if self._phase else []
        columns = channel_names(block, names)
        return Block(
            rows=self._rows(parts, rows_there, starts),
            first=next_row,
            times=framing.times().of_completed(next_row, last),
            rate_hz=block.rate_hz / self._hop,
            columns=columns,
            attrs={
                "kind": self.output,
                "columns": list(columns),
                "frequencies_hz": self._frequencies_hz,
                "rate_hz": block.rate_hz,
                "length": self._length,
                "hop": self._hop,
                "window": self._window,
                "channels": framing.channels,
                "unit": block.attrs.get("unit", ""),
            },
        )

    def depends_on(self) -> Reach:
        """The window."""
        return window(self._length, self._hop)

    def state(self) -> SlidingDftState:
        """The transforms of the last hops."""
        return self._state

    def restore(self, state: SlidingDftState | None) -> None:
        """Resumes from `state()`."""
        self._state = state if state is not None else SlidingDftState()

    def _new_waves(self, rate_hz: float) -> None:
        if not max(self._frequencies_hz) < rate_hz / 2:
            raise OperationFailed(
                f"{max(self._frequencies_hz):g} Hz cannot be tracked in samples at {rate_hz:g} Hz: set "
                "frequencies_hz below half the rate."
            )
        turns = np.array(self._frequencies_hz) / rate_hz
        if self._window == "hann":
            turns = np.concatenate((turns, turns - 1 / self._length, turns + 1 / self._length))
        angles = -2 * np.pi * turns[:, np.newaxis] * np.arange(self._hop)
        self._turns, self._waves = turns, np.concatenate((np.cos(angles), np.sin(angles)))
        self._waves_rate_hz = rate_hz

    def _parts(self, framing: Framing) -> NDArray[np.complex128]:
        """Transforms of single hops: shape (hops, channels, tones)."""
        tones = len(self._turns)
        parts = np.empty((framing.count, framing.channels, tones), np.complex128)
        with np.errstate(invalid="ignore", over="ignore"):
            for channel in range(framing.channels):
                for first, frames, room in framing.batches(channel):
                    out = parts[first : first + len(frames), channel]
                    for tone in range(tones):
                        # Not a matrix product: its order of summation depends on the number of rows.
                        out.real[:, tone] = np.multiply(frames, self._waves[tone], out=room).sum(axis=1)
                        np.multiply(frames, self._waves[tones + tone], out=room)
                        out.imag[:, tone] = room.sum(axis=1)
        return parts

    def _rows(
        self, parts: NDArray[np.complex128], count: int, starts: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        transforms = np.zeros((count, *parts.shape[1:]), np.complex128)
        for part in range(self._length // self._hop):
            turned = np.exp(-2j * np.pi * ((self._turns * (part * self._hop)) % 1.0))
            transforms += parts[part : part + count] * turned
        tones = len(self._frequencies_hz)
        if self._window == "hann":
            sides = transforms[..., tones : 2 * tones] + transforms[..., 2 * tones :]
            transforms = 0.5 * transforms[..., :tones] - 0.25 * sides
        amplitudes = 2 * np.abs(transforms) / (self._length * (0.5 if self._window == "hann" else 1.0))
        if not self._phase:
            return amplitudes.reshape(count, -1)
        places = (self._turns[:tones] * starts[:, np.newaxis]) % 1.0
        phases = np.angle(transforms * np.exp(-2j * np.pi * places)[:, np.newaxis])
        return np.concatenate((amplitudes, phases), axis=2).reshape(count, -1)
