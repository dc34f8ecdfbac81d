"""`spectrum`: the short-time power spectral density of samples in a stream, one row for each frame."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from scipy.signal import get_window

from ...errors import OperationFailed, PolicyInvalid
from .base.block import Block
from .base.operation import Operation, operation
from .base.reach import Reach, window
from .framing import Carry, Framing, Scratch

_transforms = Scratch()


@operation("spectrum")
class Spectrum(Operation):
    """One-sided periodograms of windowed, overlapping frames, as `scipy.signal.spectrogram(mode="psd")` gives
    them.

    With X = rfft(w x), w the window and x the frame, the row is |X|², doubled where the bin stands for a
    negative frequency too (all but 0 and, for even lengths, half the rate), times 1 / (rate Σw²) for
    "density" (unit²/Hz) and 1 / (Σw)² for "spectrum" (unit²): Heinzel, Rüdiger, Schilling, "Spectrum and
    spectral density estimation by the discrete Fourier transform", 2002. Computed in float64, stored as
    `dtype`.

    Samples of shape (n, channels) at a rate give rows of shape (bins,) for one channel, (channels, bins) for
    more, where bins = length // 2 + 1. Row `i` covers the samples from `i * hop` to `i * hop + length` and
    has the time of the event that brought the last of them; after a gap, frames are counted again from the
    first sample behind it.

    Keeps fewer than `length` samples of each channel.
    """

    input = "samples"
    accepts = ("values",)
    output = "spectrum"
    state_type = Carry | None

    def __init__(
        self,
        *,
        length: Annotated[int, Meta(ge=2, le=1_048_576)] = 2048,
        overlap: Annotated[float, Meta(ge=0, le=0.95)] = 0.5,
        window: str = "hann",
        scaling: Literal["density", "spectrum"] = "density",
        detrend: Literal["none", "constant", "linear"] = "none",
        level: Literal["linear", "dB"] = "linear",
        reference: Annotated[float, Meta(gt=0)] = 1.0,
        dtype: Literal["float32", "float64"] = "float32",
    ) -> None:
        """The frames, and the computation of a row.

        Args:
            length: samples in one frame.
            overlap: part of a frame that the next one shares; bounded, as rows are at most 1 / (1 - overlap)
                as many.
            window: name of a window without parameters, as `scipy.signal.get_window` knows it (periodic).
            scaling: power per Hz, or power of a line.
            detrend: "constant" takes away each frame's mean first, "linear" its line of least squares.
            level: "dB" gives 10 log10(row / reference²), for 0 as for the least power of `dtype` that is not.
            reference: what has 0 dB, in the unit of the samples (in "density", that over the root of Hz).
            dtype: of the rows.
        """
        try:
            self._window: NDArray[np.float64] = np.asarray(get_window(window, length), dtype=np.float64)
        except ValueError as unknown:
            raise PolicyInvalid(
                f"the window {window!r} cannot be used ({unknown}): name one that needs no parameters, such "
                "as hann, hamming, blackman, blackmanharris, flattop, boxcar."
            ) from unknown
        self._length, self._hop = length, length - int(length * overlap)
        self._overlap, self._window_name = overlap, window
        self._scaling, self._detrend = scaling, detrend
        self._level, self._reference = level, reference
        self._dtype = np.dtype(dtype)
        ramp = np.arange(length) - (length - 1) / 2
        self._ramp: NDArray[np.float64] = ramp / np.sqrt(np.sum(ramp * ramp))
        self._scale_rate_hz, self._scale = 0.0, np.empty(0)
        self._carry: Carry | None = None

    def process(self, block: Block) -> Block | None:
        """Takes samples (n, channels); OperationFailed if they have no rate, or the rate changes."""
        if not block.rate_hz > 0:
            raise OperationFailed(
                'Samples without a rate have no spectrum: decode them with "pcm" and its rate_hz, or with '
                '"wav".'
            )
        framing = Framing(self._carry, block, length=self._length, hop=self._hop)
        result = self._rows(framing, block) if framing.count else None
        self._carry = framing.carry
        return result

    def depends_on(self) -> Reach:
        """The frame."""
        return window(self._length, self._hop)

    def state(self) -> Carry | None:
        """The samples that the next frames share."""
        return self._carry

    def restore(self, state: Carry | None) -> None:
        """Resumes from `state()`."""
        self._carry = state

    def _rows(self, framing: Framing, block: Block) -> Block:
        bins = self._length // 2 + 1
        rows = np.empty((framing.count, framing.channels, bins), self._dtype)
        if self._scale_rate_hz != block.rate_hz:
            self._scale_rate_hz, self._scale = block.rate_hz, self._new_scale(block.rate_hz)
        with np.errstate(invalid="ignore", over="ignore"):
            for channel in range(framing.channels):
                for first, frames, room in framing.batches(channel):
                    signal = frames
                    if self._detrend != "none":
                        signal = np.subtract(frames, frames.mean(axis=1, keepdims=True), out=room)
                    if self._detrend == "linear":
                        slope = (room * self._ramp).sum(axis=1, keepdims=True)
                        np.subtract(room, slope * self._ramp, out=room)
                    np.multiply(signal, self._window, out=room)
                    # That of NumPy writes into memory that is warm; SciPy's gives the same bits.
                    pairs = _transforms.of(len(room) * bins * 2).reshape(len(room), bins * 2)
                    np.fft.rfft(room, axis=1, out=pairs.view(np.complex128))
                    # Squares in place, seen as pairs of real numbers: no complex temporaries.
                    np.multiply(pairs, pairs, out=pairs)
                    power = room.reshape(-1)[: len(room) * bins].reshape(len(room), bins)
                    np.add(pairs[:, 0::2], pairs[:, 1::2], out=power)
                    out = rows[first : first + len(frames), channel]
                    np.multiply(power, self._scale, out=out, casting="same_kind")
        if self._level == "dB":
            to_decibels(rows, self._reference)
        return Block(
            rows=rows[:, 0] if framing.channels == 1 else rows,
            first=framing.first,
            times=framing.times(),
            rate_hz=block.rate_hz / self._hop,
            attrs=self._attrs(block, framing.channels),
        )

    def _new_scale(self, rate_hz: float) -> NDArray[np.float64]:
        window = self._window
        power = rate_hz * np.sum(window * window) if self._scaling == "density" else np.sum(window) ** 2
        scale = np.full(self._length // 2 + 1, 2.0 / power)
        scale[0] /= 2
        if self._length % 2 == 0:
            scale[-1] /= 2
        return scale

    def _attrs(self, block: Block, channels: int) -> dict[str, Any]:
        unit = block.attrs.get("unit", "")
        decibels = {"level": "dB", "reference": self._reference} if self._level == "dB" else {}
        return {
            **decibels,
            "kind": self.output,
            "rate_hz": block.rate_hz,
            "window": self._window_name,
            "length": self._length,
            "hop": self._hop,
            "overlap": self._overlap,
            "scaling": self._scaling,
            "detrend": self._detrend,
            "channels": channels,
            "unit": unit and (f"{unit}²/Hz" if self._scaling == "density" else f"{unit}²"),
            "frequency_step_hz": block.rate_hz / self._length,
        }


def to_decibels(power: NDArray[Any], reference: float) -> None:
    """10 log10(power / reference²) in place; 0 counts as the least normal number."""
    np.maximum(power, np.finfo(power.dtype).tiny, out=power)
    np.log10(power, out=power)
    power -= power.dtype.type(2 * np.log10(reference))
    power *= 10


def linear_power(block: Block, who: str) -> None:
    """OperationFailed if the rows are decibels, which cannot be added up."""
    if block.attrs.get("level") == "dB":
        raise OperationFailed(
            f'"{who}" adds powers, and gets decibels: set level = "linear" in the step before it.'
        )
