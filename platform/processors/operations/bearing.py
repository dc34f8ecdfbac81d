"""`bearing`: amplitudes of the envelope at the fault frequencies of a bearing.

With n rollers of diameter d on a circle of diameter D, contact angle φ, r = d/D cos φ, the inner ring
rotating at f and the outer ring fixed, the rollers pass a point of the outer race at BPFO = n f/2 (1 - r), of
the inner race at BPFI = n f/2 (1 + r); a roller rotates at BSF = f D/(2d) (1 - r²), and the cage at
FTF = f/2 (1 - r): R. B. Randall, J. Antoni, "Rolling element bearing diagnostics: a tutorial", Mechanical
Systems and Signal Processing 25 (2011), equations 1 to 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ...errors import OperationFailed, PolicyInvalid
from .base.block import Block
from .base.operation import Operation, operation
from .base.reach import Reach
from .envelope import Envelope
from .framing import Carry, Framing

FAULTS = ("bpfo", "bpfi", "bsf", "ftf")


@dataclass(frozen=True, slots=True)
class Geometry:
    """The geometry of a rolling bearing; both diameters in the same unit."""

    rollers: int
    roller_diameter: float
    pitch_diameter: float
    contact_deg: float = 0.0

    def per_turn(self) -> dict[str, float]:
        """Impacts per revolution of the shaft for each kind of fault."""
        ratio = self.roller_diameter / self.pitch_diameter * math.cos(math.radians(self.contact_deg))
        return {
            "bpfo": self.rollers / 2 * (1 - ratio),
            "bpfi": self.rollers / 2 * (1 + ratio),
            "bsf": self.pitch_diameter / (2 * self.roller_diameter) * (1 - ratio**2),
            "ftf": (1 - ratio) / 2,
        }


@dataclass(frozen=True, slots=True)
class BearingState:
    """The samples of the next frames: of the signal, and of the speed if it is measured by a channel."""

    signal: Carry | None = None
    speed: Carry | None = None


@operation("bearing")
class Bearing(Operation):
    """Amplitudes at the fault frequencies of a bearing and their harmonics, in the envelope spectrum.

    Per turn of the inner ring, with n rollers of diameter d, the pitch diameter D, the angle of contact φ and
    r = d/D cos φ, the frequencies are BPFO = n/2 (1 - r), BPFI = n/2 (1 + r), BSF = D/2d (1 - r²) and
    FTF = (1 - r)/2 (Randall and Antoni 2011, equations 1 to 4). A damaged roller hits both races: see
    `bsf_2`.

    For each channel `bpfo_1`, …, `bpfi_1`, …, `bsf_1`, …, `ftf_1`, …: the amplitude of the strongest line
    within `tolerance` of that multiple of the frequency (rollers slip by a per cent or two), or at least of
    the lines on both sides of it; then `floor`, the median amplitude of all lines, and `speed_hz`. What lies
    above the spectrum is NaN, and so is all at standstill.

    Samples of shape (n, channels) give float64 rows (m, columns). Frames, band and envelope are those of
    `envelope`. A channel that holds the speed is used only as such, by its mean over the frame.

    ```toml
    [[policy.pipeline]]
    operation = "bearing"
    rollers = 13
    roller_diameter_mm = 32.0
    pitch_diameter_mm = 205.0
    speed_channel = 1
    low_hz = 2000
    high_hz = 8000
    ```
    """

    input = "samples"
    accepts = ("values",)
    output = "features"
    state_type = BearingState

    def __init__(
        self,
        *,
        rollers: Annotated[int, Meta(ge=2, le=1000)],
        roller_diameter_mm: Annotated[float, Meta(gt=0)],
        pitch_diameter_mm: Annotated[float, Meta(gt=0)],
        contact_deg: Annotated[float, Meta(ge=0, lt=90)] = 0.0,
        speed_rpm: Annotated[float, Meta(gt=0)] | None = None,
        speed_channel: Annotated[int, Meta(ge=0)] | None = None,
        speed_scale: float = 1.0,
        harmonics: Annotated[int, Meta(ge=1, le=32)] = 3,
        tolerance: Annotated[float, Meta(ge=0, le=0.2)] = 0.01,
        low_hz: Annotated[float, Meta(gt=0)] | None = None,
        high_hz: Annotated[float, Meta(gt=0)] | None = None,
        length: Annotated[int, Meta(ge=16, le=1_048_576)] = 16_384,
        overlap: Annotated[float, Meta(ge=0, le=0.95)] = 0.5,
        taps: Annotated[int, Meta(ge=3, le=65_535)] = 255,
        envelope: Literal["magnitude", "squared"] = "magnitude",
    ) -> None:
        """The bearing and its speed; parameters from `low_hz` on are those of `envelope`.

        Args:
            rollers: number of balls or rollers in a row.
            roller_diameter_mm: of one of them.
            pitch_diameter_mm: of the circle through their centers.
            contact_deg: angle of contact.
            speed_rpm: revolutions of the inner ring per minute, if constant.
            speed_channel: index of the channel that holds the speed, instead of `speed_rpm`.
            speed_scale: turns a minute per unit of that channel.
            harmonics: multiples of each frequency.
            tolerance: maximum deviation of a line from a frequency, as a fraction of the frequency.
            low_hz: lower edge of the band.
            high_hz: upper edge of the band.
            length: samples of a frame.
            overlap: part of a frame that the next one shares.
            taps: of the filter.
            envelope: the magnitude of the analytic signal, or its square.
        """
        if roller_diameter_mm >= pitch_diameter_mm:
            raise PolicyInvalid(
                f"rollers of {roller_diameter_mm:g} mm do not fit on a circle of {pitch_diameter_mm:g} mm."
            )
        if (speed_rpm is None) == (speed_channel is None):
            raise PolicyInvalid("give the speed, either as speed_rpm or as speed_channel.")
        self._geometry = Geometry(rollers, roller_diameter_mm, pitch_diameter_mm, contact_deg)
        self._speed_rpm, self._speed_channel, self._speed_scale = speed_rpm, speed_channel, speed_scale
        self._harmonics, self._tolerance = harmonics, tolerance
        self._envelope = Envelope(
            low_hz=low_hz,
            high_hz=high_hz,
            length=length,
            overlap=overlap,
            taps=taps,
            envelope=envelope,
            dtype="float64",
        )
        self._state = BearingState()

    def process(self, block: Block) -> Block | None:
        """Takes samples (n, channels); OperationFailed if the channel is missing, and as in `envelope`."""
        signal, speed = self._parted(block)
        self._envelope.restore(self._state.signal)
        spectra = self._envelope.process(signal)
        speeds_hz, speed_carry = self._speeds(speed, 0 if spectra is None else len(spectra.rows))
        self._state = BearingState(self._envelope.state(), speed_carry)
        if spectra is None:
            return None
        amplitudes = np.sqrt(2 * spectra.rows.reshape(len(spectra.rows), -1, spectra.rows.shape[-1]))
        step_hz = spectra.attrs["frequency_step_hz"]
        per_turn = self._geometry.per_turn()
        names = [f"{fault}_{k}" for fault in FAULTS for k in range(1, self._harmonics + 1)]
        names += ["floor", "speed_hz"]
        rows = np.empty((len(amplitudes), amplitudes.shape[1], len(names)))
        rows[:, :, -2], rows[:, :, -1] = np.median(amplitudes, axis=2), speeds_hz[:, np.newaxis]
        for index, speed_hz in enumerate(speeds_hz.tolist()):
            multiples = [per_turn[fault] * k for fault in FAULTS for k in range(1, self._harmonics + 1)]
            for column, multiple in enumerate(multiples):
                rows[index, :, column] = self._strongest(amplitudes[index], multiple * speed_hz / step_hz)
        columns = self._columns(block, names)
        return Block(
            rows=rows.reshape(len(rows), -1),
            first=spectra.first,
            times=spectra.times,
            rate_hz=spectra.rate_hz,
            columns=columns,
            attrs={
                "kind": self.output,
                "columns": list(columns),
                "per_turn": per_turn,
                "channels": amplitudes.shape[1],
                **{key: spectra.attrs[key] for key in ("envelope", "band_hz", "rate_hz", "length", "hop")},
                "unit": block.attrs.get("unit", ""),
            },
        )

    def depends_on(self) -> Reach:
        """As `envelope`."""
        return self._envelope.depends_on()

    def state(self) -> BearingState:
        """The samples that the next frames share."""
        return self._state

    def restore(self, state: BearingState | None) -> None:
        """Resumes from `state()`."""
        self._state = state if state is not None else BearingState()

    def _parted(self, block: Block) -> tuple[Block, Block | None]:
        channel = self._speed_channel
        if channel is None:
            return block, None
        if not channel < block.rows.shape[1] > 1:
            raise OperationFailed(
                f"There is no speed in channel {channel} of {block.rows.shape[1]} next to a signal: set "
                "speed_channel, counted from 0, or speed_rpm."
            )
        others = [index for index in range(block.rows.shape[1]) if index != channel]
        return replace(block, rows=block.rows[:, others]), replace(block, rows=block.rows[:, [channel]])

    def _speeds(self, speed: Block | None, count: int) -> tuple[NDArray[np.float64], Carry | None]:
        """The speed in each frame, in revolutions per second."""
        if speed is None:
            return np.full(count, (self._speed_rpm or 0.0) / 60), None
        envelope = self._envelope
        framing = Framing(self._state.speed, speed, length=envelope.length + envelope.reach, hop=envelope.hop)
        speeds = np.empty(framing.count)
        for first, frames, _ in framing.batches(0):
            speeds[first : first + len(frames)] = frames.mean(axis=1)
        return speeds * self._speed_scale / 60, framing.carry

    def _strongest(self, amplitudes: NDArray[np.float64], line: float) -> Any:
        """The maximum of the lines (channels, bins) around a fractional line."""
        if not 0 < line < amplitudes.shape[1] - 1:
            return np.nan
        low = min(math.ceil(line * (1 - self._tolerance)), math.floor(line))
        high = max(math.floor(line * (1 + self._tolerance)), math.ceil(line))
        return amplitudes[:, low : high + 1].max(axis=1)

    def _columns(self, block: Block, names: list[str]) -> tuple[str, ...]:
        channels = list(block.columns) or [f"channel{index}" for index in range(block.rows.shape[1])]
        if self._speed_channel is not None:
            del channels[self._speed_channel]
        if len(channels) == 1 and not block.columns:
            return tuple(names)
        return tuple(f"{channel}.{name}" for channel in channels for name in names)
