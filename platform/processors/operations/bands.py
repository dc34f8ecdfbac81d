"""`bands`: the power of spectra in given bands, octave bands or third-octave bands.

Octave bands are those of IEC 61260-1 (2014), base ten: with G = 10^(3/10) the exact mid-band frequencies are
fm = 1000 G^x Hz for octaves and 1000 G^(x/3) for thirds, x whole; a band goes from fm G^(-1/2b) to
fm G^(1/2b), b = 1 or 3. They are taken from the lines of a spectrum, not by the filters of that standard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from scipy.signal import get_window

from ...errors import OperationFailed, PolicyInvalid
from .base.block import Block
from .base.operation import Operation, operation
from .base.reach import ROW_BY_ROW, Reach
from .spectrum import linear_power, to_decibels

# R10 preferred numbers: the names of the bands.
_NOMINAL = (1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0)


@dataclass(frozen=True, slots=True)
class Band:
    """A band: its name and its edges in Hz."""

    name: str
    low_hz: float
    high_hz: float


def octave_bands(fraction: Literal[1, 3], *, low_hz: float, high_hz: float) -> list[Band]:
    """The octave bands (fraction 1) or third-octave bands (3) that lie entirely between two frequencies."""
    # In tenths of a decade: third-octave bands are one apart, octave bands three; 1 kHz is the 30th.
    step, bands = (3 if fraction == 1 else 1), []
    for tenth in range(-90, 120, step):
        low, high = 10 ** ((tenth - step / 2) / 10), 10 ** ((tenth + step / 2) / 10)
        if low >= low_hz and high <= high_hz:
            nominal = _NOMINAL[tenth % 10] * 10.0 ** (tenth // 10)
            bands.append(Band(f"band_{nominal:g}", low, high))
    return bands


@operation("bands")
class Bands(Operation):
    """Power in bands, from the rows of `spectrum`, `welch` or `envelope`.

    The power of a line is spread evenly over what is nearer to it than to others: so a band takes part of
    the lines at its edges, bands side by side share nothing and lose nothing, and bands that cover all
    frequencies sum to the power of the frame. The result is in unit², or in dB of it.

    Octave bands are those of IEC 61260-1:2014, base ten: their middles are 1000 · 10^(3x/10) Hz (octaves) and
    1000 · 10^(x/10) Hz (thirds), and nominal frequencies name them: `band_31.5`, `band_1000`. They are sums
    of lines, not the filters of that standard. Columns of given bands are `band_<low>_<high>`.

    Rows of shape (n, bins) or (n, channels, bins) give float64 rows (n, columns), the bands of channel 0
    first; a row for each row, with its time. Keeps nothing.

    ```toml
    [[policy.pipeline]]
    operation = "bands"
    input = "welch"
    level = "dB"
    reference = 1e-6
    ```
    """

    input = "spectrum"
    output = "features"

    def __init__(
        self,
        *,
        bands: Literal["octave", "third-octave"] | list[tuple[float, float]] = "third-octave",
        low_hz: Annotated[float, Meta(ge=0)] | None = None,
        high_hz: Annotated[float, Meta(gt=0)] | None = None,
        level: Literal["linear", "dB"] = "linear",
        reference: Annotated[float, Meta(gt=0)] = 1.0,
    ) -> None:
        """Which bands.

        Args:
            bands: edges [[low, high], …] in Hz, or all octaves or thirds between `low_hz` and `high_hz`.
            low_hz: by default the frequency from which octave bands are as wide as the line spacing.
            high_hz: by default half the rate.
            level: "dB" for 10 log10(power / reference²).
            reference: what has 0 dB, in the unit of the samples.
        """
        if isinstance(bands, list):
            if not bands or len(bands) > 1024:
                raise PolicyInvalid(f"bands cannot be {len(bands)}: give 1 to 1024 [low, high] in Hz.")
            for low, high in bands:
                if not 0 <= low < high < np.inf:
                    raise PolicyInvalid(
                        f"bands cannot hold [{low:g}, {high:g}]: an entry is [low, high] in Hz, "
                        "0 <= low < high."
                    )
        self._bands, self._low_hz, self._high_hz = bands, low_hz, high_hz
        self._level, self._reference = level, reference
        self._layout: tuple[tuple[float, float, int, str], list[Band], list[_Lines]] | None = None

    def process(self, block: Block) -> Block:
        """Takes spectra; OperationFailed if they are in dB, or a band exceeds half the rate."""
        linear_power(block, "bands")
        attrs = block.attrs
        key = (attrs["rate_hz"], attrs["frequency_step_hz"], block.rows.shape[-1], attrs["scaling"])
        if self._layout is None or self._layout[0] != key:
            self._layout = (key, *self._lay_out(block))
        _, bands, lines = self._layout
        spectra = block.rows.reshape(len(block.rows), -1, block.rows.shape[-1])
        rows = np.empty((len(spectra), spectra.shape[1], len(bands)))
        for index, taken in enumerate(lines):
            taken.power(spectra, rows[:, :, index])
        if self._level == "dB":
            to_decibels(rows, self._reference)
        channels = spectra.shape[1]
        prefixes = [f"channel{channel}." for channel in range(channels)] if channels > 1 else [""]
        columns = tuple(prefix + band.name for prefix in prefixes for band in bands)
        return Block(
            rows=rows.reshape(len(rows), -1),
            first=block.first,
            times=block.times.of_counts(block.first, block.times.ends),
            rate_hz=block.rate_hz,
            columns=columns,
            attrs={
                "kind": self.output,
                "columns": list(columns),
                "bands": [[band.low_hz, band.high_hz] for band in bands],
                "channels": channels,
                "unit": _unit(attrs),
                **({"level": "dB", "reference": self._reference} if self._level == "dB" else {}),
            },
        )

    def depends_on(self) -> Reach:
        """The spectrum."""
        return ROW_BY_ROW

    def _lay_out(self, block: Block) -> tuple[list[Band], list[_Lines]]:
        step_hz, half_hz = block.attrs["frequency_step_hz"], block.attrs["rate_hz"] / 2
        if isinstance(self._bands, list):
            bands = [Band(f"band_{low:g}_{high:g}", low, high) for low, high in self._bands]
        else:
            fraction: Literal[1, 3] = 1 if self._bands == "octave" else 3
            high_hz = half_hz if self._high_hz is None else self._high_hz
            narrow = 10 ** (0.15 / fraction) - 10 ** (-0.15 / fraction)
            low_hz = step_hz / narrow * 10 ** (-0.15 / fraction) if self._low_hz is None else self._low_hz
            bands = octave_bands(fraction, low_hz=low_hz, high_hz=high_hz)
        if not bands or max(band.high_hz for band in bands) > half_hz:
            raise OperationFailed(
                f"No bands, or some that reach over half the rate ({half_hz:g} Hz), come of spectra with a "
                f"line every {step_hz:g} Hz: set bands, low_hz and high_hz to fit."
            )
        scale = _power_of_line(block)
        bins = block.rows.shape[-1]
        return bands, [_Lines.of(band, step_hz, bins, half_hz, scale) for band in bands]


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines of a band: from `start` to `stop`, and how much of each counts."""

    start: int
    stop: int
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, band: Band, step_hz: float, bins: int, half_hz: float, scale: float) -> _Lines:
        lines = np.arange(bins) * step_hz
        lows, highs = np.maximum(lines - step_hz / 2, 0), np.minimum(lines + step_hz / 2, half_hz)
        inside = np.minimum(highs, band.high_hz) - np.maximum(lows, band.low_hz)
        parts = np.clip(inside / (highs - lows), 0, 1)
        taken = np.flatnonzero(parts)
        start, stop = int(taken[0]), int(taken[-1]) + 1
        return cls(start, stop, parts[start:stop] * scale)

    def power(self, spectra: NDArray[Any], out: NDArray[np.float64]) -> None:
        np.sum(spectra[..., self.start : self.stop] * self.weights, axis=-1, out=out)


def _power_of_line(block: Block) -> float:
    """The factor that converts the value of a line to power in unit²."""
    if block.attrs["scaling"] == "density":
        return float(block.attrs["frequency_step_hz"])
    window = get_window(block.attrs["window"], block.attrs["length"])
    # A line of a power spectrum holds as much noise as its equivalent noise bandwidth.
    return float(np.sum(window) ** 2 / (len(window) * np.sum(window * window)))


def _unit(attrs: Any) -> str:
    unit = str(attrs.get("unit", "")).removesuffix("/Hz")
    return unit
